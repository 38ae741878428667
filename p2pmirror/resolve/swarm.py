"""The peers that have parts of one blob: who they are, what each of them has and claims, and how long each is asked.

Laws:
- a peer whose piece does not match its own claim is asked no more for this digest, one that contradicts another's is
  set apart (see `flight`); `pieces` fetches them;
- each peer is asked for one piece at a time; one that breaks again and again is left for a while, longer each
  time that it gave none between; one that is busy is asked again a little later;
- at most `NEIGHBOURS_MAX` peers; they come from whoever calls `meet`, and from one another.

DESIGN.md section 4, "Flights and pieces".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

import trio

from p2pmirror.errors import NotHere, PeerMisbehaved, Unreachable
from p2pmirror.peers.piecemap import FOLLOWERS_MAX, PieceMap
from p2pmirror.peers.protocol import Busy, FlightQuestion
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.neighbour import Neighbour, SwarmParts, in_time, stands_against
from p2pmirror.resolve.pieces import Pieces
from p2pmirror.routing.protocol import Provider
from p2pmirror.wire.identity import NodeId

NEIGHBOURS_MAX: Final = 16
EARLY_S: Final = 1.0  # who was just named as a leader may not have begun; he is asked again every `EARLY_GAP_S`
EARLY_GAP_S: Final = 0.05
POLL_S: Final = 2.0  # a peer answers by then, with news or without
BUSY_S: Final = 0.1  # until a busy peer is asked again; up to twice that, by chance
DOUBT_BAN_S: Final = 60.0  # who is contradicted by several, or is in the way: a pull and its retries
REST_S: Final = 2.0  # until a peer that broke twice is asked again: it may have been restarted
REST_GROWS: Final = 4.0  # times as long after each further time without a piece between,
REST_S_MAX: Final = 60.0  # up to this


class Swarm:
    """The peers of one flight; pieces come while `run` runs."""

    def __init__(self, flight: Flight, parts: SwarmParts, metrics: ResolveMetrics) -> None:
        """Know nobody."""
        self.size: int | None = None  # as the first peer told that knows it
        self.told = trio.Event()  # set once it is known
        self._flight = flight
        self._parts = parts
        self._neighbours: dict[NodeId, Neighbour] = {}
        self._rests: dict[NodeId, tuple[int, float]] = {}  # how often each broke since its last piece, and until when
        self._nursery: trio.Nursery | None = None
        self._progress_at = trio.current_time()
        self._question = FlightQuestion(flight.digest, flight.registry, flight.repository, parts.zone)
        self._pieces = Pieces(
            flight,
            parts,
            metrics,
            self._neighbours,
            question=self._question,
            came=self._came,
            refute=self._refute,
        )

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
            neighbour = self._neighbours[node_id] = Neighbour(provider)
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

    async def _keep_company(self, neighbour: Neighbour) -> None:
        """Watch and ask one peer until it breaks, misbehaves, or has nothing to do with the flight any more."""
        try:
            with neighbour.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._until_it_fails, neighbour, self._watch)
                    nursery.start_soon(self._until_it_fails, neighbour, self._fetch)
        finally:
            self._neighbours.pop(neighbour.node_id, None)
            self._flight.changed_pieces()

    async def _until_it_fails(self, neighbour: Neighbour, work: Callable[[Neighbour], Awaitable[None]]) -> None:
        digest, now = self._flight.digest, trio.current_time
        try:
            await work(neighbour)
        except NotHere:
            pass  # its flight has ended
        except PeerMisbehaved as error:
            self._parts.scores.ban(neighbour.node_id, digest, now(), str(error))
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
        why = "what it claims of a piece is not what others send"
        self._parts.scores.ban(claimant, self._flight.digest, trio.current_time(), why, DOUBT_BAN_S)
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

    async def _watch(self, neighbour: Neighbour) -> None:
        while True:
            piece_map = await in_time(POLL_S, partial(self._ask_map, neighbour))
            self._take_map(neighbour, piece_map)
            if piece_map.complete:
                await trio.sleep_forever()

    async def _ask_map(self, neighbour: Neighbour) -> PieceMap:
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

    def _take_map(self, neighbour: Neighbour, piece_map: PieceMap) -> None:
        """Take in what a peer tells. Raises `PeerMisbehaved`, and `NotHere` where it is not clear who is wrong."""
        flight = self._flight
        neighbour.seq, neighbour.spreads = piece_map.seq, piece_map.spreads
        flight.is_acknowledged = flight.is_acknowledged or piece_map.spreads
        self._progress_at = trio.current_time() if piece_map.size is None and piece_map.spreads else self._progress_at
        neighbour.is_crowded = len(piece_map.followers) == FOLLOWERS_MAX
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

    def _take_claims(self, neighbour: Neighbour, piece_map: PieceMap) -> None:
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

    def _take_claims_of(self, claimant: NodeId, teller: Neighbour, hashes: dict[int, bytes]) -> NodeId | None:
        """Take somebody's claims in, whoever passes them on; return him, None: what he claims is known to be wrong."""
        flight = self._flight
        if claimant == self._parts.router.node_id or claimant in flight.refuted:
            return None
        flight.learn(claimant, hashes, stands_against(teller.node_id, self._neighbours))
        return claimant

    def _meet_followers(self, followers: Iterable[NodeId]) -> None:
        """Ask those whom a peer names, where they are members that we know ourselves."""
        unknown = set(followers) - self._neighbours.keys() - {self._parts.router.node_id}
        if unknown and len(self._neighbours) < NEIGHBOURS_MAX:
            named = [each for each in self._parts.router.members() if each.node_id in unknown]
            near = [each for each in named if self._may_ask(each.zone)]
            self.meet(Provider(each.node_id, each.address, each.zone, complete=False) for each in near)

    def _may_ask(self, zone: str) -> bool:
        """Whether a node of that zone is to be asked: another zone's only by the one that does it for its own."""
        return not zone or not self._parts.zone or zone == self._parts.zone or self._flight.border is not None

    # pieces

    async def _fetch(self, neighbour: Neighbour) -> None:
        while True:
            try:
                got = await (
                    self._pieces.fetch_next(neighbour) if neighbour.spreads else self._pieces.fetch_one(neighbour)
                )
            except Busy as error:
                self._meet_followers(error.holders)
                await self._pause()
                continue
            if not got:
                with trio.move_on_after(POLL_S):
                    await self._flight.wait_for_pieces()

    def _came(self, neighbour: Neighbour) -> None:
        """Take note that a peer gave a whole piece, which was right."""
        self._progress_at = trio.current_time()
        self._rests.pop(neighbour.node_id, None)
        neighbour.is_idle = False

    # waiting

    async def _pause(self) -> None:
        await trio.sleep(BUSY_S * (1 + self._parts.random.random()))
