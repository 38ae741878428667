"""Questions and their answers over datagrams: ids, repeats, round-trip times, and cookies against forged senders.

Laws:
- an answer counts only from the address that was asked, under the id that it was asked with, from the node expected;
- a question is repeated under its own id until its limit; answering it twice does no harm;
- news rides only to addresses that answered once: whoever invents an address makes nobody send it more than a question;
- whoever has not proved that it receives at the address it sends from gets a challenge, which is shorter than any
  question, and nothing else; with a key so does whoever did not bind its question to this life and minute of ours;
- an address that never gave us a cookie is sent a knock in place of the question, which is shorter than what it takes
  to name an address; whoever has our cookie gives us his with his ping, so that no question back needs a knock;
- a question may come twice (a repeat, a copy, a replay within a minute), so that what it says must be idempotent;
- being cancelled leaves no question behind.

DESIGN.md section 4, "Membership and DHT" (wire).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import msgspec
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.codec import DATAGRAM_BYTES_MAX, Fitter, Seal, Unsealed, decode
from p2pmirror.routing.dht.lookup import soft_timeout_s
from p2pmirror.routing.dht.messages import (
    NO_COOKIE,
    AnyAnswer,
    AnyQuestion,
    Challenge,
    Knock,
    Malformed,
    News,
    NodeInfo,
    Ping,
    Pong,
    Reply,
    Request,
    pack_address,
)
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import AGE_MAX_MS, UNBOUND, Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import Datagrams

CORRESPONDENTS_MAX = 4096  # addresses of which something is remembered: contacts, and all who come by within minutes
SMOOTHING = 0.125  # weight of the newest round trip: TCP's value (RFC 6298, section 2)
PENDING_MAX = 4096  # questions without an answer: a publishing round has some hundreds under way
CHALLENGES_MAX = 3  # of one question: one is due, and another one when the receiver restarts meanwhile

FIRST_REPEAT_FRACTION = 1 / 8  # of a question's limit: three repeats; more would drown a busy node in its own echo

OnAnswer = Callable[[AnyAnswer], None]


@dataclass(slots=True)
class _Correspondent:
    """What is remembered of an address."""

    round_trip_s: float | None = None  # smoothed
    cookie: bytes = NO_COOKIE  # what it gave us
    boot_id: bytes = UNBOUND.boot_id
    clock_ahead_ms: int = 0  # its clock less ours; means something with a boot id
    expected_cookie: bytes = b""  # what we gave it


@dataclass(slots=True)
class Asked:
    """A question under way; `answered` is called with each answer to it, from the task that receives."""

    request: Request
    to: Address
    expected: NodeId | None
    answered: OnAnswer
    sent_at: float
    repeated: bool = False
    challenges: int = 0  # that it was sent again for


class Rpc:
    """Asks, and hands the questions of others to whoever answers them."""

    def __init__(
        self,
        datagrams: Datagrams,
        own_id: NodeId,
        *,
        seal: Seal,
        random: Random,
        metrics: RoutingMetrics,
        news: Callable[[], tuple[News, ...]],
        boot_id: bytes,
        clock_ms: Callable[[], int],
    ) -> None:
        """Use a bound port; `news` gives what is to ride on the next datagram, `clock_ms` the clock that is told."""
        self._datagrams = datagrams
        self._own_id = own_id
        self._seal = seal
        self._random = random
        self._metrics = metrics
        self._news = news
        self._fitter = Fitter(DATAGRAM_BYTES_MAX - seal.overhead_bytes)
        self._pending: dict[bytes, Asked] = {}
        self._boot_id = boot_id
        self.clock_ms = clock_ms
        self._correspondents: dict[Address, _Correspondent] = {}  # the oldest first
        self._secret = random.randbytes(32)

    @property
    def address(self) -> Address:
        """Where this node receives."""
        return self._datagrams.address

    @property
    def pending(self) -> int:
        """How many questions wait for an answer."""
        return len(self._pending)

    @property
    def fitter(self) -> Fitter:
        """What knows how much fits into a datagram."""
        return self._fitter

    def soft_s(self, address: Address) -> float:
        """Return after what time an answer from there is late."""
        known = self._correspondents.get(address)
        return soft_timeout_s(None if known is None else known.round_trip_s)

    def binding(self, address: Address) -> Binding:
        """Return the boot id of whoever is there and what its clock says now; `UNBOUND` when it never told."""
        known = self._correspondents.get(address)
        if known is None or known.boot_id == UNBOUND.boot_id:
            return UNBOUND
        return Binding(known.boot_id, max(0, self.clock_ms() + known.clock_ahead_ms))

    async def ask(
        self,
        to: Address,
        question: AnyQuestion,
        *,
        limit_s: float,
        expected: NodeId | None = None,
        news: Sequence[News] | None = None,
    ) -> AnyAnswer:
        """Ask, repeat with doubling pauses, and return the first answer. Raises `Unreachable` after `limit_s`."""
        answers: list[AnyAnswer] = []
        arrived = trio.Event()

        def answered(answer: AnyAnswer) -> None:
            answers.append(answer)
            arrived.set()

        asked = self.begin(to, question, answered, expected=expected, news=news)
        pause = max(self.soft_s(to), limit_s * FIRST_REPEAT_FRACTION)
        try:
            with trio.move_on_after(limit_s):
                while not answers:
                    self.send(asked)
                    with trio.move_on_after(pause):
                        await arrived.wait()
                    pause *= 2
            if not answers:
                await trio.lowlevel.checkpoint()  # a process that was frozen finds the answer in its socket only now
        finally:
            self.end(asked)
        if not answers:
            raise Unreachable(f"no answer from {to} within {limit_s * 1000:.0f} ms")
        return answers[0]

    def begin(
        self,
        to: Address,
        question: AnyQuestion,
        answered: OnAnswer,
        *,
        expected: NodeId | None = None,
        news: Sequence[News] | None = None,
    ) -> Asked:
        """Prepare a question that `send` sends; `end` it in every case. Raises `Unreachable` when too many wait."""
        if len(self._pending) >= PENDING_MAX:
            raise Unreachable(f"{PENDING_MAX} questions wait for an answer already")
        known = self._correspondents.get(to)
        own_news = self._news() if news is None and known is not None else ()
        riding = own_news if news is None else tuple(news)
        cookie = NO_COOKIE if known is None else known.cookie
        request = Request(self._random.randbytes(8), self._own_id, cookie, question, riding)
        asked = Asked(request, to, expected, answered, sent_at=0.0)
        self._pending[request.id] = asked
        return asked

    def ping(self, info: NodeInfo, to: Address) -> Ping:
        """Return the question with which this node introduces itself at an address."""
        return Ping(info, self._cookie_for(to), self.clock_ms())

    def send(self, asked: Asked) -> None:
        """Send a question, or send it again."""
        asked.repeated = asked.sent_at > 0.0
        asked.sent_at = trio.current_time()
        self._ask(asked)

    def end(self, asked: Asked) -> None:
        """Take no more answers to it, and let go of whoever waited for them: they mostly hold the question."""
        self._pending.pop(asked.request.id, None)
        asked.answered = _nobody_waits

    def reply(self, request: Request, source: Address, answer: AnyAnswer) -> None:
        """Answer a request that `received` handed out."""
        self._reply(Reply(request.id, self._own_id, answer, self._news()), source)

    def received(self, datagram: bytes, source: Address) -> Request | Reply | None:
        """Take in a datagram; return a request to be answered, or a reply that was taken in.

        None: dropped and counted, or answered with a cookie.
        """
        if len(datagram) > DATAGRAM_BYTES_MAX:
            self._metrics.drop("too_large")
            return None
        try:
            payload, binding = self._seal.open(datagram)
            message = decode(payload)
        except Unsealed:
            self._metrics.drop("unauthenticated")
            return None
        except Malformed:
            self._metrics.drop("undecodable")
            return None
        if isinstance(message, Reply):
            self._metrics.datagram(type(message.answer), "in")
            return message if self._answered(message, source) else None
        self._metrics.datagram(type(message.question), "in")
        if message.cookie == self._cookie_for(source) and (not self._seal.binds or self._is_current(binding)):
            if isinstance(message.question, Ping):
                self._introduced(message.question, source)
            return message
        self._challenge(message, source, len(datagram))
        return None

    def _introduced(self, ping: Ping, source: Address) -> None:
        known = self._correspondent(source)
        known.cookie, known.boot_id = ping.cookie, ping.info.boot_id
        known.clock_ahead_ms = ping.clock_ms - self.clock_ms()

    def _is_current(self, binding: Binding) -> bool:
        return binding.boot_id == self._boot_id and abs(self.clock_ms() - binding.clock_ms) <= AGE_MAX_MS

    def _challenge(self, request: Request, source: Address, question_bytes: int) -> None:
        challenge = Challenge(self._cookie_for(source), self._boot_id, self.clock_ms())
        reply = Reply(request.id, self._own_id, challenge)
        if len(self._fitter.encode(reply)) + self._seal.overhead_bytes > question_bytes:
            self._metrics.drop("too_small")
            return
        self._reply(reply, source)

    def _answered(self, reply: Reply, source: Address) -> bool:
        asked = self._pending.get(reply.id)
        if asked is None or asked.to != source or asked.expected not in {None, reply.sender}:
            self._metrics.drop("unasked")
            return False
        answer = reply.answer
        if isinstance(answer, Challenge):
            self._ask_again(asked, answer)
            return False
        correspondent = self._correspondent(source)
        if isinstance(answer, Pong):
            correspondent.boot_id = answer.info.boot_id
            correspondent.clock_ahead_ms = answer.clock_ms - self.clock_ms()
        if not asked.repeated:
            round_trip_s = trio.current_time() - asked.sent_at
            old = correspondent.round_trip_s
            correspondent.round_trip_s = round_trip_s if old is None else old + SMOOTHING * (round_trip_s - old)
        asked.answered(answer)
        return True

    def _ask_again(self, asked: Asked, challenge: Challenge) -> None:
        """Ask with the cookie, bound to what the challenge says."""
        known = self._correspondent(asked.to)
        known.boot_id, known.clock_ahead_ms = challenge.boot_id, challenge.clock_ms - self.clock_ms()
        known.cookie = challenge.cookie
        if asked.challenges and asked.request.cookie == challenge.cookie:
            return  # the answer to an earlier copy of the question: the one with the cookie is under way
        if asked.challenges == CHALLENGES_MAX:
            return  # it means to be asked for ever
        asked.challenges += 1
        asked.request = msgspec.structs.replace(asked.request, cookie=challenge.cookie)
        asked.sent_at = trio.current_time()
        self._ask(asked)

    def _ask(self, asked: Asked) -> None:
        request = asked.request
        if request.cookie is NO_COOKIE:
            request = Request(request.id, request.sender, NO_COOKIE, _KNOCK)
        self._metrics.datagram(type(request.question), "out")
        binding = self.binding(asked.to) if self._seal.binds else UNBOUND
        self._datagrams.send(self._seal.seal(self._fitter.encode(request), binding), asked.to)

    def _reply(self, reply: Reply, to: Address) -> None:
        """Send a reply; it needs no binding, since the id of the question that it repeats was drawn for this once."""
        self._metrics.datagram(type(reply.answer), "out")
        self._datagrams.send(self._seal.seal(self._fitter.encode(reply), UNBOUND), to)

    def _correspondent(self, address: Address) -> _Correspondent:
        known = self._correspondents.get(address)
        if known is None:
            known = self._correspondents[address] = _Correspondent()
            if len(self._correspondents) > CORRESPONDENTS_MAX:
                del self._correspondents[next(iter(self._correspondents))]
        return known

    def _cookie_for(self, address: Address) -> bytes:
        """Return what proves that a node receives at this address; valid for the life of this process."""
        known = self._correspondents.get(address)
        if known is not None and known.expected_cookie:
            return known.expected_cookie
        cookie = hashlib.blake2b(pack_address(address), digest_size=8, key=self._secret).digest()
        if known is not None:
            known.expected_cookie = cookie
        return cookie


_KNOCK = Knock()


def _nobody_waits(_: AnyAnswer) -> None:
    pass
