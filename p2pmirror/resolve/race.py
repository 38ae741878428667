"""Asking providers as they are learnt until one of them answers: the shell around `plan`."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from p2pmirror.errors import NotHere, PeerMisbehaved, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.peers.protocol import Answer, Busy, Follow, Peers, Question
from p2pmirror.peers.scores import Scores
from p2pmirror.resolve.intake import Intake
from p2pmirror.resolve.plan import Plan
from p2pmirror.resolve.want import Trail
from p2pmirror.routing.protocol import Checking, Provider, Providers, Router, key_of
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.patience import Patience

DIAL_GAP_S = 0.05  # between dials: most answers come sooner, so that a second dial is the exception
HEAD_START_S = 0.02  # for a provider of our own records: a lookup takes less than is then left until the second dial
SILENCE_S = 0.5  # beyond what a peer was told to wait: any process may stand still for that long
HEAD_S = 1.0  # headers or a 404 come within it: containerd waits much longer, but a miss must stay cheap


@dataclass(frozen=True, slots=True)
class RaceOptions:
    """Limits of a race for a source (settings `mirror_resolve_timeout`, `mirror_resolve_retries`, `zone`)."""

    first_provider_s: float = 0.03
    asks_max: int = 5
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Won:
    """The provider that answered first, and its open answer; whoever gets it closes it."""

    provider: Provider
    answer: Answer


class OnlyParts(NotHere):
    """Nobody gives all of it, but these have parts of it, or are fetching it."""

    def __init__(self, message: str, providers: Sequence[Provider]) -> None:
        """Name `providers`, of which there is one at least."""
        super().__init__(message)
        self.providers = tuple(providers)


@dataclass(frozen=True, slots=True)
class Sources:
    """The peers as somewhere to get content from: found by `router`, asked by `peers`, remembered in `scores`."""

    router: Router
    peers: Peers
    scores: Scores
    options: RaceOptions
    intake: Intake = field(default_factory=Intake)

    async def first(
        self,
        digest: Digest,
        question: Question,
        trail: Trail,
        *,
        check: Callable[[Answer], None] = lambda _: None,
        without: AbstractSet[NodeId] = frozenset(),
    ) -> Won:
        """Return the first answer that passes `check`, which raises `PeerMisbehaved` for one that must not be used.

        Nodes in `without` are not asked. Raises `NotHere` when nobody answers within `HEAD_S`; `OnlyParts` when some
        have parts. Cancellation closes whatever had been opened.
        """
        race = _Race(self, digest, question, trail, check=check, without=without)
        try:
            async with self.router.find(key_of(digest)) as providers:
                await race.run(providers)
        except BaseException:
            if race.won is not None:
                race.won.answer.close()
            raise
        if race.won is None and race.parts:
            raise OnlyParts(f"no peer has all of {digest}", list(race.parts.values()))
        if race.won is None:
            raise NotHere(f"no peer has {digest}")
        return race.won

    async def told(self, digest: Digest) -> tuple[Provider, ...]:
        """Return who is told to have it, or parts of it, without asking any of them. Cancellation: nothing is left."""
        async with self.router.find(key_of(digest)) as providers:
            return tuple([each async for each in providers if isinstance(each, Provider)])

    async def waited_for(self, provider: Provider, question: Question) -> Answer:
        """Ask one peer a question that waits; silence beyond that breaks with it. Raises as `Peers.ask`.

        Cancellation drops the connection.
        """
        try:
            with trio.fail_after(question.waits_s + SILENCE_S):
                return await self.peers.ask(provider.node_id, provider.address, question)
        except trio.TooSlowError:
            self.broke(provider)
            raise Unreachable("the peer that is waited for has fallen silent") from None
        except Busy:
            raise
        except Unreachable:
            self.broke(provider)
            raise

    def misbehaved(self, provider: Provider, digest: Digest, why: PeerMisbehaved) -> None:
        """Ban a provider for a digest: it sent what no honest peer sends."""
        self.scores.ban(provider.node_id, digest, trio.current_time(), str(why))

    def broke(self, provider: Provider) -> None:
        """Take note that a provider did not answer or stopped, and have whoever named it look at it."""
        self.scores.failed(provider.node_id, trio.current_time())
        self.router.failed(provider.node_id)

    def pick(self, candidates: Sequence[Provider]) -> int:
        """Return the index of the one to ask."""
        zone = self.options.zone
        return self.scores.pick(
            [(each.node_id, bool(zone) and each.zone == zone) for each in candidates], trio.current_time()
        )


class _Race:
    """One race: what its tasks share."""

    def __init__(
        self,
        sources: Sources,
        digest: Digest,
        question: Question,
        trail: Trail,
        *,
        check: Callable[[Answer], None],
        without: AbstractSet[NodeId],
    ) -> None:
        self.won: Won | None = None
        self.parts: dict[NodeId, Provider] = {}
        self._sources = sources
        self._digest = digest
        self._question = question
        self._trail = trail
        self._check = check
        self._without = without
        self._wake = trio.Event()
        self._clock = Patience()
        self._plan = Plan(
            now=self._clock.now(),
            asks_max=sources.options.asks_max,
            dial_gap_s=DIAL_GAP_S,
            first_provider_s=sources.options.first_provider_s,
            head_s=HEAD_S,
            pick=sources.pick,
        )

    async def run(self, providers: Providers) -> None:
        """Ask until one has won or the race is lost. Cancelled, `won` may be set all the same."""
        self._take_known(providers)
        first = self._plan.next_ask(trio.current_time())
        async with trio.open_nursery() as nursery:
            if first is None:
                await self._contest(providers, nursery)
            else:
                # Mostly it wins, and nobody else needs to be known: what this costs is a question's price.
                nursery.start_soon(self._contest_later, providers, nursery)
                await self._ask(first)
                if self.won is not None:
                    nursery.cancel_scope.cancel()

    def _take_known(self, providers: Providers) -> None:
        """Feed the plan with what is known without asking anybody."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._take(providers.receive_nowait())

    async def _contest_later(self, providers: Providers, nursery: trio.Nursery) -> None:
        """Let the one that is being asked be the only one for a moment, unless it fails."""
        with trio.move_on_after(HEAD_START_S):
            await self._wake.wait()
        if self.won is None:
            self._clock = Patience()  # the old one would take this wait for a freeze
            await self._contest(providers, nursery)

    async def _contest(self, providers: Providers, nursery: trio.Nursery) -> None:
        """Learn of others, and ask them when it is time, until one has won or the race is lost."""
        nursery.start_soon(self._learn, providers)
        await self._steer(nursery)
        nursery.cancel_scope.cancel()

    async def _learn(self, providers: Providers) -> None:
        """Feed the plan until the lookup ends."""
        async for found in providers:
            self._take(found)
            self._wake.set()
        self._plan.lookup_ended()
        self._wake.set()

    def _take(self, found: Provider | Checking) -> None:
        """Feed the plan with whoever is whole and not banned."""
        if isinstance(found, Checking):
            self._plan.hoped()
        elif self._usable(found):
            if found.complete:
                self._plan.learnt(found)
            else:
                self.parts[found.node_id] = found

    def _usable(self, provider: Provider) -> bool:
        return provider.node_id not in self._without and not self._sources.scores.banned(
            provider.node_id, self._digest, trio.current_time()
        )

    async def _steer(self, nursery: trio.Nursery) -> None:
        """Start asks when the plan says so, until one has won or the race is lost."""
        clock = self._clock
        while self.won is None and not self._plan.lost(clock.now()):
            provider = self._plan.next_ask(clock.now())
            if provider is not None:
                nursery.start_soon(self._ask, provider)
                continue
            await clock.wait(self._wake, self._plan.wakes_at())
            self._wake = trio.Event()

    async def _ask(self, provider: Provider) -> None:
        self._trail.attempts += 1
        try:
            answer = await self._sources.peers.ask(provider.node_id, provider.address, self._question)
            try:
                self._check(answer)
            except BaseException:
                answer.close()
                raise
        except Follow as error:
            self._follow(error.leader)
            self._plan.failed(provider)
        except NotHere:
            self._plan.failed(provider)
        except Busy as error:
            self._plan.busy(provider, self._clock.now())
            self._learn_holders(error.holders)
        except Unreachable:
            self._sources.broke(provider)
            self._plan.failed(provider)
        except PeerMisbehaved as error:
            self._sources.misbehaved(provider, self._digest, error)
            self._plan.failed(provider)
        else:
            if self.won is None:
                self.won = Won(provider, answer)
            else:
                answer.close()
        self._wake.set()

    def _learn_holders(self, holders: Sequence[NodeId]) -> None:
        """Feed the plan with those whom a busy peer names, where they are members."""
        for member in self._sources.router.members() if holders else ():
            if member.node_id in holders:
                self._take(Provider(member.node_id, member.address, member.zone))

    def _follow(self, leader: NodeId) -> None:
        """Take note of whom a peer names in its own place, if it is a member."""
        for member in self._sources.router.members():
            if member.node_id == leader:
                self.parts[leader] = Provider(leader, member.address, member.zone, complete=False, leading=True)
