"""Questions to registries, asked by one node of the cluster for all that ask at the same moment.

Laws:
- the router says who asks; the others wait for that node's answer to the question that is under way, never for one that
  has ended, so that an image that was pushed again is seen by the next pull; what is kept, as manifests are, is given
  to whoever comes until the lease ends;
- who is waited for asks a registry itself, or is just being told whether to: nobody waits for one who waits;
- a registry's refusal is the answer of all who wait; that it was not reached is its asker's own matter;
- whoever was followed in vain is followed no more: another one may lead, else this node asks for itself, which costs a
  question and never an answer;
- a question belongs to no asker. A lease ends with it, and at the latest when it is `patience_s` old: another node may
  reach the registry.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, Literal, TypeVar

import trio

from p2pmirror.errors import MirrorError, NotHere, UpstreamRefused, only_error
from p2pmirror.peers.protocol import Follow, RegistrySaid
from p2pmirror.resolve.shared import Shared, Work
from p2pmirror.routing.protocol import Grant, Key, Provider, Router
from p2pmirror.wire.identity import NodeId

WANT_S: Final = 0.5  # for the router to say who asks; it takes milliseconds when all is well
WANTS_MAX: Final = 3  # times that it is asked: whoever was named may have been done, and the next one dead
FOLLOWED_MAX: Final = 2  # nodes that one grant names and that are asked: a leader, or some that have it
POLL_S: Final = 0.5  # a node that is waited for says so often that it is still there
WAIT_S_MAX: Final = 2.0  # for one who waits here, whatever he says: each holds a connection
REPORT_S: Final = 0.4  # between two words of a leader to whoever granted it the lead

_Value = TypeVar("_Value")

Outcome = Literal["asked", "told", "vain"]
"""How an answer came: this node asked, another one did, or this node did after another was followed in vain."""


@dataclass(frozen=True, slots=True)
class Inquiry(Generic[_Value]):
    """What is to be asked: `subject` is the same for all who share the answer, under `key` nodes agree on who asks.

    `of_peer(provider, wait_s)` asks a node for the answer that it waits for. It raises `Follow`, naming that very node,
    when that one is still asking after `wait_s`; `RegistrySaid`; any other `MirrorError` when there is none.
    """

    subject: Hashable
    key: Key
    of_registry: Callable[[], Awaitable[_Value]]
    of_peer: Callable[[Provider, float], Awaitable[_Value]]


@dataclass(frozen=True, slots=True)
class Told(Generic[_Value]):
    """What was answered, and to which node; None: to this one."""

    value: _Value
    by: NodeId | None


class Once(Generic[_Value]):
    """Questions of one kind; they are asked while `run` runs."""

    def __init__(
        self, router: Router, *, patience_s: float, is_kept: bool, count: Callable[[Outcome], None] = lambda _: None
    ) -> None:
        """Follow others for `patience_s` at most; `is_kept`: what was answered can still be had here afterwards."""
        self._router = router
        self._patience_s = patience_s
        self._is_kept = is_kept
        self._count = count
        self._settling: Shared[Hashable, Told[_Value] | Work[_Value]] = Shared()
        self._asking: Shared[Hashable, _Value] = Shared()
        self._undecided: dict[Hashable, trio.Event] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let questions be asked until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._asking.run)
            await nursery.start(self._settling.run)
            task_status.started()
            await trio.sleep_forever()

    async def settled(self, inquiry: Inquiry[_Value]) -> Told[_Value] | Work[_Value]:
        """Return what another node was answered; or this node's question, which is under way, when it is to ask.

        Takes `patience_s` at most, and half a second. Raises `NotHere`, `UpstreamRefused`: the registry's word to
        another node; `Unreachable` when this one stops. Cancellation: what was begun goes on for others.
        """
        asked = self._asking.get(inquiry.subject)
        if asked is not None:
            await trio.lowlevel.checkpoint()
            return asked
        return await self._settled(inquiry).outcome()

    def begin(self, inquiry: Inquiry[_Value]) -> None:
        """Begin to ask, unless that is under way: for a peer that was sent here. Raises `Unreachable` at a stop."""
        if self._asking.get(inquiry.subject) is None:
            self._settled(inquiry)

    def alone(self, inquiry: Inquiry[_Value]) -> Work[_Value]:
        """Return this node's question without asking who else asks: the one under way, or a new one."""
        return self._asking.begin(inquiry.subject, inquiry.of_registry)

    async def awaited(self, subject: Hashable, wait_s: float) -> _Value:
        """Return what this node is answered to a question that is under way, for another node that waits for it.

        Raises `RegistrySaid`; `Follow`, naming this node, when there is no answer after `wait_s`; `NotHere` when there
        is no such question, or nobody answered it. Cancellation: the question goes on.
        """
        with trio.move_on_after(min(wait_s, WAIT_S_MAX)):
            undecided = self._undecided.get(subject)
            if undecided is not None:
                await undecided.wait()
            return await self._joined(subject)
        raise Follow("the registry has not answered yet", self._router.node_id)

    async def _joined(self, subject: Hashable) -> _Value:
        asked = self._asking.get(subject)
        if asked is None:
            await trio.lowlevel.checkpoint()
            raise NotHere("this is not being asked here")
        try:
            return await asked.outcome()
        except NotHere as error:
            raise RegistrySaid(str(error), 404) from None
        except UpstreamRefused as error:
            raise RegistrySaid(str(error), error.status) from None
        except MirrorError as error:
            raise NotHere(f"the registry was not reached: {error}") from None

    def _settled(self, inquiry: Inquiry[_Value]) -> Work[Told[_Value] | Work[_Value]]:
        """Return the finding out of who asks, which begins now unless it is under way: then it is undecided at once."""
        settling = self._settling.get(inquiry.subject)
        if settling is None:
            settling = self._settling.begin(inquiry.subject, partial(self._settle, inquiry))
            self._undecided[inquiry.subject] = trio.Event()
        return settling

    async def _settle(self, inquiry: Inquiry[_Value]) -> Told[_Value] | Work[_Value]:
        """Follow whoever asks; begin to ask when that is this node."""
        deadline = trio.current_time() + self._patience_s
        followed: set[NodeId] = set()
        for _ in range(WANTS_MAX):
            grant = await self._granted(inquiry)
            fresh = [] if grant.leads else [each for each in _named(grant) if each.node_id not in followed]
            with trio.move_on_at(deadline):
                for provider in fresh[:FOLLOWED_MAX]:
                    followed.add(provider.node_id)
                    told = await self._follow(provider, inquiry, deadline)
                    if told is not None:
                        return told
            if not fresh or trio.current_time() >= deadline:
                break
        self._count("vain" if followed else "asked")
        return self._asking.begin(inquiry.subject, partial(self._lead, inquiry))

    async def _granted(self, inquiry: Inquiry[_Value]) -> Grant:
        """Ask the router who asks; this node, when it does not say so in time."""
        decided = self._undecided.setdefault(inquiry.subject, trio.Event())
        try:
            with trio.move_on_after(WANT_S):
                return await self._router.want(inquiry.key)
            return Grant(leads=True, leader=None, providers=())
        finally:
            del self._undecided[inquiry.subject]
            decided.set()

    async def _follow(self, provider: Provider, inquiry: Inquiry[_Value], deadline: float) -> Told[_Value] | None:
        """Wait for a node's answer as long as it says that it is asking; None when it was followed in vain."""
        while (now := trio.current_time()) < deadline:
            wait_s = min(POLL_S, deadline - now)
            try:
                value = await inquiry.of_peer(provider, wait_s)
            except RegistrySaid as error:
                self._count("told")
                raise _refusal(error) from None
            except Follow as error:
                if error.leader != provider.node_id or trio.current_time() < now + wait_s / 2:
                    return None  # it knows of another one, or says at once, and again and again, that it is at it
            except MirrorError:
                return None
            else:
                self._count("told")
                return Told(value, provider.node_id)
        return None

    async def _lead(self, inquiry: Inquiry[_Value]) -> _Value:
        """Ask the registry, and say meanwhile that this node leads."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report, inquiry.key)
                value = await inquiry.of_registry()
                nursery.cancel_scope.cancel()
        except BaseException as error:
            self._router.resign(inquiry.key)
            if isinstance(error, BaseExceptionGroup):
                raise only_error(error) from None
            raise
        if not self._is_kept:
            self._router.resign(inquiry.key)
        return value

    async def _report(self, key: Key) -> None:
        with trio.move_on_after(self._patience_s):
            while True:
                self._router.report(key, 0)
                await trio.sleep(REPORT_S)
        self._router.resign(key)


def _named(grant: Grant) -> Iterable[Provider]:
    """Return whom a grant sends to: who leads, else whoever has all of it."""
    return [grant.leader] if grant.leader is not None else [each for each in grant.providers if each.complete]


def _refusal(error: RegistrySaid) -> MirrorError:
    """Return what this node would have met, had it asked itself."""
    if error.status == 404:
        return NotHere(str(error))
    return UpstreamRefused(str(error), status=error.status)
