"""The peers that have parts of one blob: what each of them has, and pieces from all of them at once.

Laws:
- a piece is taken only with the hash that somebody claims for it; a peer whose piece does not match its own claim is
  asked no more for this digest, one that contradicts another's is set apart (see `flight`);
- each peer is asked for one piece at a time; one that breaks again and again is left for a while, longer each
  time that it gave none between; one that is busy is asked again a little later;
- at most `NEIGHBOURS_MAX` peers; they come from whoever calls `meet`, and from one another.

DESIGN.md section 4, "Flights and pieces".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from random import Random
from typing import Final, TypeVar

import trio

from p2pmirror.errors import MirrorError, NotHere, PeerMisbehaved, Unreachable
from p2pmirror.oci import blob_path
from p2pmirror.peers.piecemap import Bitmap, PieceMap
from p2pmirror.peers.protocol import Answer, Busy, FlightQuestion, Peers, Question
from p2pmirror.peers.scores import Scores
from p2pmirror.resolve.fetching import PIECE_S, Fetching, receive
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.intake import Intake
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.picking import rarest, wanted, window
from p2pmirror.routing.protocol import Provider, Router
from p2pmirror.wire.identity import NodeId

NEIGHBOURS_MAX: Final = 16
FETCHES_MAX: Final = 6  # pieces on their way to this node that it chose itself: more would only share its link
EARLY_S: Final = 1.0  # who was just named as a leader may not have begun; he is asked again every `EARLY_GAP_S`
EARLY_GAP_S: Final = 0.05
POLL_S: Final = 2.0  # a peer answers by then, with news or without
NEXT_S: Final = 1.0  # and so does one that has no piece to give
ANSWER_S: Final = 3.0  # beyond these: a peer that says nothing at all is gone
BUSY_S: Final = 0.1  # until a busy peer is asked again; up to twice that, by chance
DOUBT_BAN_S: Final = 60.0  # who is contradicted by several, or is in the way: a pull and its retries
REST_S: Final = 2.0  # until a peer that broke twice is asked again: it may have been restarted
REST_GROWS: Final = 4.0  # times as long after each further time without a piece between,
REST_S_MAX: Final = 60.0  # up to this
LATE_S: Final = 1.0  # a piece that takes longer than this, and than `LATE` times the usual, is late
LATE: Final = 4.0

_T = TypeVar("_T")


@dataclass(eq=False)
class _Neighbour:
    """One peer of a flight; `have` None: it has not told yet."""

    provider: Provider
    have: Bitmap | None = None
    seq: int = 0
    spreads: bool = False
    differs: set[int] = field(default_factory=set)  # pieces of which it tells another hash than is believed
    is_idle: bool = False  # nothing came, of it either, when it was to come: what it says it has is no reason to wait
    asks_all: bool = False  # its claims are to be told once more: some that came first were forgotten
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def node_id(self) -> NodeId:
        return self.provider.node_id

    def tells(self, index: int, hashes: Mapping[int, bytes]) -> bool:
        """Whether the hash of a piece is known, and this peer has told no other one."""
        return index in hashes and index not in self.differs


@dataclass(frozen=True, slots=True)
class SwarmParts:
    """What a swarm works with."""

    peers: Peers
    router: Router
    scores: Scores
    random: Random
    hashing: Hashing
    fetches: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(FETCHES_MAX))  # of all flights
    intake: Intake = field(default_factory=Intake)
    zone: str = ""


class Swarm:
    """The peers of one flight; pieces come while `run` runs."""

    def __init__(self, flight: Flight, parts: SwarmParts, metrics: ResolveMetrics) -> None:
        """Know nobody."""
        self._metrics = metrics
        self.size: int | None = None  # as the first peer told that knows it
        self.told = trio.Event()  # set once it is known
        self._flight = flight
        self._parts = parts
        self._neighbours: dict[NodeId, _Neighbour] = {}
        self._rests: dict[NodeId, tuple[int, float]] = {}  # how often each broke since its last piece, and until when
        self._nursery: trio.Nursery | None = None
        self._progress_at = trio.current_time()
        self._question = FlightQuestion(flight.digest, flight.registry, flight.repository, parts.zone)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask peers until cancelled. Raises `StoreFull`."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._progress_at = trio.current_time()
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it is closed to new ones

    def meet(self, providers: Iterable[Provider]) -> None:
        """Ask these too, unless there are enough already."""
        now = trio.current_time()
        for provider in providers:
            node_id = provider.node_id
            if len(self._neighbours) >= NEIGHBOURS_MAX or self._nursery is None:
                return
            if node_id in self._neighbours or node_id == self._parts.router.node_id:
                continue
            if node_id in self._flight.apart or self._parts.scores.banned(node_id, self._flight.digest, now):
                continue
            if now < self._rests.get(node_id, (0, now))[1]:
                continue
            neighbour = self._neighbours[node_id] = _Neighbour(provider)
            self._nursery.start_soon(self._keep_company, neighbour)

    @property
    def company(self) -> AbstractSet[NodeId]:
        """Who is being asked."""
        return self._neighbours.keys()

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to ask."""
        return not self._neighbours

    def has_elsewhere(self, index: int) -> bool:
        """Whether a neighbour has a piece, and it can be believed of what it sends that it is that one."""
        return any(
            each.have is not None and index in each.have and (each.spreads or each.tells(index, self._flight.hashes))
            for each in self._neighbours.values()
            if not each.is_idle
        )

    def leave(self) -> None:
        """Ask nobody any more of those who are asked now."""
        for neighbour in self._neighbours.values():
            neighbour.scope.cancel()

    async def starve(self, seconds: float) -> None:
        """Wait until nothing has come for so long, all has, or nobody is left. Cancellation leaves nothing behind."""
        self._progress_at = trio.current_time()
        while self._neighbours and not self._flight.has_all and trio.current_time() < self._progress_at + seconds:
            with trio.move_on_at(self._progress_at + seconds):
                await self._flight.wait_for_pieces()

    async def _keep_company(self, neighbour: _Neighbour) -> None:
        """Watch and ask one peer until it breaks, misbehaves, or has nothing to do with the flight any more."""
        try:
            with neighbour.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._until_it_fails, neighbour, self._watch)
                    nursery.start_soon(self._until_it_fails, neighbour, self._fetch)
        finally:
            self._neighbours.pop(neighbour.node_id, None)
            self._flight.changed_pieces()

    async def _until_it_fails(self, neighbour: _Neighbour, work: Callable[[_Neighbour], Awaitable[None]]) -> None:
        digest, now = self._flight.digest, trio.current_time
        try:
            await work(neighbour)
        except NotHere:
            pass  # its flight has ended
        except PeerMisbehaved:
            self._parts.scores.ban(neighbour.node_id, digest, now())
            self._disbelieve(neighbour.node_id)
        except Unreachable:
            self._parts.scores.failed(neighbour.node_id, now())
            self._parts.router.failed(neighbour.node_id)
            self._rest(neighbour.node_id)
        neighbour.scope.cancel()

    def doubt(self) -> None:
        """Believe nobody that he has anything, and those no more because of whom others were set apart."""
        flight = self._flight
        for neighbour in self._neighbours.values():
            neighbour.is_idle = True
        differing = {flight.claimed_by.get(i) for each in self._neighbours.values() for i in each.differs}
        for claimant in {*flight.apart.values(), *differing - {None} - flight.used.keys()}:
            assert claimant is not None
            self._refute(claimant)

    def _refute(self, claimant: NodeId) -> None:
        self._parts.scores.ban(claimant, self._flight.digest, trio.current_time(), DOUBT_BAN_S)
        if claimant in self._neighbours:
            self._neighbours[claimant].scope.cancel()
        self._disbelieve(claimant)

    def _disbelieve(self, claimant: NodeId) -> None:
        """Forget a peer's claims, and have the others' told once more."""
        self._flight.disbelieve(claimant)
        for neighbour in self._neighbours.values():
            neighbour.asks_all = True
            neighbour.differs.clear()

    def _rest(self, node_id: NodeId) -> None:
        """Leave a peer that broke: at first it may be asked again at once."""
        times = self._rests.get(node_id, (0, 0.0))[0]
        rest_s = min(REST_S * REST_GROWS ** (times - 1), REST_S_MAX) if times else 0.0
        self._rests[node_id] = times + 1, trio.current_time() + rest_s

    # what a peer has

    async def _watch(self, neighbour: _Neighbour) -> None:
        while True:
            piece_map = await _in_time(POLL_S, partial(self._ask_map, neighbour))
            self._take_map(neighbour, piece_map)
            if piece_map.complete:
                await trio.sleep_forever()

    async def _ask_map(self, neighbour: _Neighbour) -> PieceMap:
        provider = neighbour.provider
        early_until = trio.current_time() + EARLY_S
        while True:
            since, neighbour.asks_all = 0 if neighbour.asks_all else neighbour.seq, False
            try:
                return await self._parts.peers.map(
                    provider.node_id, provider.address, self._question, since=since, wait_s=POLL_S
                )
            except Busy:
                await self._pause()
            except NotHere:
                if neighbour.seq or not provider.leading or trio.current_time() >= early_until:
                    raise
                await trio.sleep(EARLY_GAP_S)

    def _take_map(self, neighbour: _Neighbour, piece_map: PieceMap) -> None:
        """Take in what a peer tells. Raises `PeerMisbehaved`, and `NotHere` where it is not clear who is wrong."""
        flight = self._flight
        neighbour.seq, neighbour.spreads = piece_map.seq, piece_map.spreads
        flight.is_acknowledged = flight.is_acknowledged or piece_map.spreads
        self._progress_at = trio.current_time() if piece_map.size is None and piece_map.spreads else self._progress_at
        self._meet_followers(piece_map.followers)
        if piece_map.size is None:
            return
        if piece_map.piece_bytes != flight.sizes.of(piece_map.size):
            raise PeerMisbehaved(f"{flight.digest}: pieces of {piece_map.piece_bytes} bytes")
        size = flight.size if flight.opened.is_set() else self.size
        if size is not None and piece_map.size != size:
            raise flight.disputed(neighbour.node_id, piece_map.size)
        if self.size is None:
            self.size = piece_map.size
            if size is None:
                flight.size_by = neighbour.node_id
            self.told.set()
        if neighbour.have is not None and len(piece_map.have) < len(neighbour.have):
            raise PeerMisbehaved(f"{flight.digest}: a piece that was there is no more")
        neighbour.have = piece_map.have
        self._take_claims(neighbour, piece_map)
        flight.changed_pieces()

    def _take_claims(self, neighbour: _Neighbour, piece_map: PieceMap) -> None:
        """Take in the hashes of a map, each as a claim of whoever makes it."""
        flight, hashes = self._flight, dict(piece_map.hashes)
        for claimant, indexes in piece_map.others.items():
            self._take_claims_of(claimant, neighbour, {i: hashes.pop(i) for i in indexes if i in hashes})
        if piece_map.author is not None:
            author = self._take_claims_of(piece_map.author, neighbour, hashes)
            if author is not None and (flight.author is None or piece_map.spreads):
                flight.author = author
        for index, piece_hash in piece_map.hashes.items():
            (neighbour.differs.discard if flight.hashes.get(index) == piece_hash else neighbour.differs.add)(index)

    def _take_claims_of(self, claimant: NodeId, teller: _Neighbour, hashes: dict[int, bytes]) -> NodeId | None:
        """Take somebody's claims in; where he is banned they are those of whoever tells. Return whose they are now."""
        flight = self._flight
        if claimant == self._parts.router.node_id or claimant in flight.refuted:
            return None
        if self._parts.scores.banned(claimant, flight.digest, trio.current_time()):
            claimant = teller.node_id
        flight.learn(claimant, hashes, self._stands_against(teller.node_id))
        return claimant

    def _stands_against(self, teller: NodeId) -> Callable[[NodeId], bool]:
        """Return whether claims of a node count more than a peer's word: it is around, and is not that peer itself."""
        return lambda claimant: claimant != teller and claimant in self._neighbours

    def _meet_followers(self, followers: Iterable[NodeId]) -> None:
        """Ask those whom a peer names, where they are members that we know ourselves."""
        unknown = set(followers) - self._neighbours.keys()
        if unknown and len(self._neighbours) < NEIGHBOURS_MAX:
            named = [each for each in self._parts.router.members() if each.node_id in unknown]
            near = [each for each in named if self._may_ask(each.zone)]
            self.meet(Provider(each.node_id, each.address, each.zone, complete=False) for each in near)

    def _may_ask(self, zone: str) -> bool:
        """Whether a node of that zone is to be asked: another zone's only by the one that does it for its own."""
        return not zone or not self._parts.zone or zone == self._parts.zone or self._flight.border is not None

    # pieces

    async def _fetch(self, neighbour: _Neighbour) -> None:
        while True:
            try:
                got = await (self._fetch_next(neighbour) if neighbour.spreads else self._fetch_one(neighbour))
            except Busy as error:
                self._meet_followers(error.holders)
                await self._pause()
                continue
            if not got:
                with trio.move_on_after(POLL_S):
                    await self._flight.wait_for_pieces()

    async def _fetch_one(self, neighbour: _Neighbour) -> bool:
        """Ask a peer for a piece that it has; return whether there was one to ask for."""
        if self._choose(neighbour) is None:
            return False
        flight, provider = self._flight, neighbour.provider
        async with self._parts.fetches:
            index = self._choose(neighbour)  # others went on meanwhile
            if index is None:
                return False
            offset, count = flight.extent(index)
            path = blob_path(flight.repository, flight.digest)
            question = Question(path, flight.registry, offset=offset, count=count)
            ask = partial(self._parts.peers.ask, provider.node_id, provider.address, question)
            with Fetching(flight, index):
                await self._take_piece(neighbour, index, await _in_time(0.0, ask))
        return True

    def _choose(self, neighbour: _Neighbour) -> int | None:
        """Return the piece to ask a peer for; None: it has none that is wanted."""
        flight, have = self._flight, neighbour.have
        if have is None or flight.incoming is None:
            return None
        candidates = [index for index in self._wanted() if index in have and neighbour.tells(index, flight.hashes)]
        others = [each.have for each in self._neighbours.values() if each.have is not None]
        return rarest(candidates, others, self._parts.random)

    async def _fetch_next(self, neighbour: _Neighbour) -> bool:
        """Ask a peer that spreads for a piece of its choice; return whether it gave one."""
        flight, provider = self._flight, neighbour.provider
        if flight.incoming is None:
            return False
        wants = self._wanted()
        if not wants:
            return False
        first = wants[0]
        lacks = Bitmap(wants[-1] - first + 1)
        for index in wants:
            lacks.add(index - first)
        answer = await _in_time(NEXT_S, partial(self._ask_next, provider, first, bytes(lacks)))
        if answer is None:
            return True  # it waited for us
        try:
            index = self._given(answer, wants)
        except BaseException:
            answer.close()
            raise
        if index in flight.have or flight.streaming == index:
            answer.close()
            return True
        with Fetching(flight, index):
            await self._take_piece(neighbour, index, answer)
        return True

    async def _ask_next(self, provider: Provider, first: int, lacks: bytes) -> Answer | None:
        return await self._parts.peers.next(
            provider.node_id, provider.address, self._question, first=first, lacks=lacks, wait_s=NEXT_S
        )

    def _given(self, answer: Answer, wants: list[int]) -> int:
        """Return which piece a peer gives. Raises `PeerMisbehaved`."""
        flight = self._flight
        index = answer.offset // flight.piece_bytes
        if index not in wants or (answer.offset, answer.count) != flight.extent(index) or answer.size != flight.size:
            raise PeerMisbehaved(f"{flight.digest}: bytes {answer.offset} and on were not asked for")
        return index

    def _wanted(self) -> list[int]:
        flight, rate = self._flight, self._parts.scores.usual_rate()
        missing = [i for i in window(flight.have, flight.written // flight.piece_bytes) if i != flight.streaming]
        late_s = LATE_S if rate is None else max(LATE_S, LATE * flight.piece_bytes / rate)
        return wanted(missing, flight.fetching, trio.current_time() - late_s)

    async def _take_piece(self, neighbour: _Neighbour, index: int, answer: Answer) -> None:
        """Receive a piece, check it and have it. Raises `Unreachable`, `PeerMisbehaved`, `StoreFull`."""
        flight, scores, node_id = self._flight, self._parts.scores, neighbour.node_id
        began, count = trio.current_time(), 0
        scores.began(node_id)
        try:
            data, meter, waited_s = memoryview(bytearray(answer.count)), self._parts.intake.meter(), 0.0
            while count < len(data):
                waited_s += await meter.ready()
                got = await receive(answer, meter.room(data[count:]), began + PIECE_S + waited_s)
                meter.took(got)
                count += got
                flight.moved += got
        except Unreachable:
            self._metrics.piece("lost")
            self._metrics.resumes.inc()  # the flight goes on from somebody else
            raise
        finally:
            answer.close()
            scores.ended(node_id, count, trio.current_time() - began)
            self._metrics.took_from(neighbour.provider.zone, self._parts.zone, count)
        self._learn_from(neighbour, index, answer)
        piece_hash = await self._checked(neighbour.node_id, index, data)
        if index not in flight.have and flight.incoming is not None:
            begin = flight.begins_at(index)
            await flight.incoming.put(begin, data[begin - flight.extent(index)[0] :])
            flight.used[node_id] = flight.used.get(node_id, 0) + len(data)
            self._progress_at = trio.current_time()
            self._rests.pop(node_id, None)
            neighbour.is_idle = False
            self._metrics.piece("leader" if neighbour.spreads else "peer")
            flight.add(index, piece_hash)

    def _learn_from(self, neighbour: _Neighbour, index: int, answer: Answer) -> None:
        """Take the hash in that came with a piece."""
        if answer.piece_hash is not None:
            stands = self._stands_against(neighbour.node_id)
            self._flight.learn(neighbour.node_id, {index: answer.piece_hash}, stands)

    async def _checked(self, sender: NodeId, index: int, data: memoryview) -> bytes:
        """Return the hash of a piece, once somebody claims the same one. Raises `MirrorError`."""
        flight, hasher = self._flight, sha256()
        await self._parts.hashing(hasher, data)
        found = hasher.digest()
        if flight.have.count == 1 and flight.digest.algorithm == "sha256":
            claimed: bytes | None = bytes.fromhex(flight.digest.hex)
        else:
            with trio.move_on_after(ANSWER_S):
                while index not in flight.hashes:
                    await flight.wait_for_pieces()
            claimed = flight.hashes.get(index)
        if claimed is None:
            raise Unreachable(f"nobody tells the hash of piece {index}")
        if found != claimed:
            self._metrics.piece("wrong")
            raise self._contradiction(sender, index)
        return found

    def _contradiction(self, sender: NodeId, index: int) -> MirrorError:
        """Return what it means for its sender that a piece is not what somebody claims."""
        flight = self._flight
        claimant = flight.claimed_by.get(index) if flight.have.count > 1 else None
        text = f"{flight.digest}: piece {index} has another hash than is claimed"
        if claimant is None or claimant == sender:
            return PeerMisbehaved(text)
        if flight.contradicts(sender, claimant):
            self._refute(claimant)
        return NotHere(f"{text} by another node")

    # waiting

    async def _pause(self) -> None:
        await trio.sleep(BUSY_S * (1 + self._parts.random.random()))


async def _in_time(wait_s: float, ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask somebody who may take `wait_s` to have something to say. Raises `Unreachable`."""
    try:
        with trio.fail_after(wait_s + ANSWER_S):
            return await ask()
    except trio.TooSlowError:
        raise Unreachable(f"no answer within {wait_s + ANSWER_S:g} s") from None
