"""Questions and their answers over datagrams: ids, repeats, round-trip times, and cookies against forged senders.

Laws:
- an answer counts only from the address that was asked, under the id that it was asked with, from the node expected;
- a question is repeated under its own id until its limit; answering it twice does no harm;
- whoever has not proved that it receives at the address it sends from gets a cookie, which is shorter than any
  question, and nothing else;
- being cancelled leaves no question behind.

DESIGN.md section 4, "Membership and DHT" (wire).
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import msgspec
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.codec import DATAGRAM_BYTES_MAX, Fitter, Seal, decode
from p2pmirror.routing.dht.lookup import soft_timeout_s
from p2pmirror.routing.dht.messages import (
    AnyAnswer,
    AnyQuestion,
    Challenge,
    Malformed,
    News,
    Reply,
    Request,
    pack_address,
)
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import Datagrams

ADDRESSES_REMEMBERED_MAX = 16_384  # addresses with a round-trip time and a cookie: above ten thousand nodes
SMOOTHING = 0.125  # weight of the newest round trip: TCP's value (RFC 6298, section 2)
PENDING_MAX = 4096  # questions without an answer: a publishing round has some hundreds under way

FIRST_REPEAT_FRACTION = 1 / 8  # of a question's limit: three repeats; more would drown a busy node in its own echo

OnAnswer = Callable[[AnyAnswer], None]


@dataclass(slots=True)
class Asked:
    """A question under way; `answered` is called with each answer to it, from the task that receives."""

    request: Request
    to: Address
    expected: NodeId | None
    answered: OnAnswer
    sent_at: float
    repeated: bool = False
    challenged: bool = False


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
    ) -> None:
        """Use a bound port; `news` gives what is to ride on the next datagram."""
        self._datagrams = datagrams
        self._own_id = own_id
        self._seal = seal
        self._random = random
        self._metrics = metrics
        self._news = news
        self._fitter = Fitter(DATAGRAM_BYTES_MAX - seal.overhead_bytes)
        self._pending: dict[bytes, Asked] = {}
        self._round_trips: OrderedDict[Address, float] = OrderedDict()
        self._cookies: OrderedDict[Address, bytes] = OrderedDict()
        self._secret = random.randbytes(32)

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
        return soft_timeout_s(self._round_trips.get(address))

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
        riding = self._news() if news is None else tuple(news)
        request = Request(self._random.randbytes(8), self._own_id, self._cookies.get(to, b""), question, riding)
        asked = Asked(request, to, expected, answered, sent_at=0.0)
        self._pending[request.id] = asked
        return asked

    def send(self, asked: Asked) -> None:
        """Send a question, or send it again."""
        asked.repeated = asked.sent_at > 0.0
        asked.sent_at = trio.current_time()
        self._send(asked.request, asked.to)

    def end(self, asked: Asked) -> None:
        """Take no more answers to it."""
        self._pending.pop(asked.request.id, None)

    def reply(self, request: Request, source: Address, answer: AnyAnswer) -> None:
        """Answer a request that `received` handed out."""
        self._send(Reply(request.id, self._own_id, answer, self._news()), source)

    def received(self, datagram: bytes, source: Address) -> Request | Reply | None:
        """Take in a datagram; return a request to be answered, or a reply that was taken in.

        None: dropped and counted, or answered with a cookie.
        """
        if len(datagram) > DATAGRAM_BYTES_MAX:
            self._metrics.drop("too_large")
            return None
        try:
            message = decode(self._seal.open(datagram, source))
        except Malformed:
            self._metrics.drop("undecodable")
            return None
        if isinstance(message, Reply):
            self._metrics.datagram(type(message.answer), "in")
            return message if self._answered(message, source) else None
        self._metrics.datagram(type(message.question), "in")
        if message.cookie == self._cookie_for(source):
            return message
        self._challenge(message, source, len(datagram))
        return None

    def _challenge(self, request: Request, source: Address, question_bytes: int) -> None:
        challenge = Reply(request.id, self._own_id, Challenge(self._cookie_for(source)))
        if len(self._fitter.encode(challenge)) + self._seal.overhead_bytes > question_bytes:
            self._metrics.drop("too_small")
            return
        self._send(challenge, source)

    def _answered(self, reply: Reply, source: Address) -> bool:
        asked = self._pending.get(reply.id)
        if asked is None or asked.to != source or asked.expected not in {None, reply.sender}:
            self._metrics.drop("unasked")
            return False
        if isinstance(reply.answer, Challenge):
            self._ask_with_cookie(asked, reply.answer.cookie)
            return False
        if not asked.repeated:
            self._measured(source, trio.current_time() - asked.sent_at)
        asked.answered(reply.answer)
        return True

    def _ask_with_cookie(self, asked: Asked, cookie: bytes) -> None:
        self._remember(self._cookies, asked.to, cookie)
        if asked.challenged and asked.request.cookie == cookie:
            return  # the answer to an earlier copy of the question: the one with the cookie is under way
        asked.challenged = True
        asked.request = msgspec.structs.replace(asked.request, cookie=cookie)
        asked.sent_at = trio.current_time()
        self._send(asked.request, asked.to)

    def _send(self, message: Request | Reply, to: Address) -> None:
        kind = type(message.question) if isinstance(message, Request) else type(message.answer)
        self._metrics.datagram(kind, "out")
        self._datagrams.send(self._seal.seal(self._fitter.encode(message), to), to)

    def _measured(self, address: Address, round_trip_s: float) -> None:
        old = self._round_trips.get(address, round_trip_s)
        self._round_trips[address] = old + SMOOTHING * (round_trip_s - old)
        if len(self._round_trips) > ADDRESSES_REMEMBERED_MAX:
            self._round_trips.popitem(last=False)

    def _remember(self, cookies: "OrderedDict[Address, bytes]", address: Address, cookie: bytes) -> None:
        cookies[address] = cookie
        if len(cookies) > ADDRESSES_REMEMBERED_MAX:
            cookies.popitem(last=False)

    def _cookie_for(self, address: Address) -> bytes:
        """Return what proves that a node receives at this address; valid for the life of this process."""
        return hashlib.blake2b(pack_address(address), digest_size=8, key=self._secret).digest()
