"""Blobs on their way to this node: one flight a digest, which any number of readers follow, and peers too.

Laws:
- a flight belongs to no reader: it goes on when the first one leaves, and ends by itself when nobody has followed it
  for `LINGER_S` and less than half of it is there;
- it comes from a stream (a registry, or a peer that has all of it), from peers that have parts, or from both, as its
  `Course` says, which is asked again whenever nothing more comes;
- when it has no room to arrive in (none is left, a disk broke) its readers go on without it, each by itself; when
  nobody is left to fetch from they end short of their length;
- what came from peers is kept only when nobody has taken it over while it lingered: a runtime has it by then.

DESIGN.md section 4, "Flights and pieces".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from p2pmirror.errors import MirrorError, NotHere, PeerMisbehaved, StoreFull, Unreachable, UpstreamRefused, only_error
from p2pmirror.oci import Digest
from p2pmirror.peers.piecemap import PIECES_MAX, pieces_of
from p2pmirror.peers.scores import BAN_S
from p2pmirror.resolve.flight import Flight, Following, PieceSizes
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.pouring import catch_up, hash_pieces, pour
from p2pmirror.resolve.swarm import Swarm, SwarmParts
from p2pmirror.routing.protocol import Offer, Provider, key_of
from p2pmirror.store.cache.protocol import Incoming, Receives
from p2pmirror.upstream.protocol import Download
from p2pmirror.wire.identity import NodeId

LINGER_S: Final = 30.0  # without readers; containerd comes back for a layer within seconds
LOOK_S: Final = 5.0  # how often that is looked at
STARVED_S: Final = 2.0  # without a byte from peers: as long as a lease, so that somebody else may lead by then
REPORT_S: Final = 0.4  # between two words of a leader to whoever granted it the lead
STUCK_MAX: Final = 5  # steps without a byte, some 10 s: then peers are left, whatever they say
ERRORS_MAX: Final = 3  # courses that failed in a row while peers were there

OpenAt = Callable[[int], AbstractAsyncContextManager[Download]]
"""Opens the blob from a byte on, once its length is known."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Somewhere to get all of it from, in order; `is_registry`: a registry, and not a peer."""

    open_at: OpenAt
    is_registry: bool
    close: Callable[[], None] = lambda: None  # twice does no harm
    used: Callable[[], Sequence[NodeId]] = tuple  # the peers whose bytes it brought


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next: fetch from a stream, and from these peers at the same time."""

    stream: Stream | None
    providers: tuple[Provider, ...] = ()


class Course(Protocol):
    """Decides where a flight goes on."""

    async def next(self, flight: Flight, company: AbstractSet[NodeId]) -> Step:
        """Return where more of the flight is, while peers of this `company` are being asked.

        Raises `NotHere`, `Unreachable`, `UpstreamRefused`: nowhere.
        """
        ...


class Flights:
    """All flights of this node."""

    def __init__(
        self,
        room: Receives,
        parts: SwarmParts,
        metrics: ResolveMetrics,
        *,
        sizes: PieceSizes | None = None,
        is_held: Callable[[Digest], bool] = lambda _: False,
    ) -> None:
        """Receive into `room`; `is_held` says whether the node's own store has a blob."""
        self.sizes = sizes or PieceSizes()
        self._room = room
        self._parts = parts
        self._metrics = metrics
        self._is_held = is_held
        self._flights: dict[Digest, Flight] = {}
        self._nursery: trio.Nursery | None = None
        metrics.flights.set_function(lambda: len(self._flights))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let blobs arrive until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._end_the_lonely)
                task_status.started()
                await self._report()
        finally:
            self._nursery = None

    def all(self) -> list[Flight]:
        """Return those under way, oldest first."""
        return list(self._flights.values())

    def get(self, digest: Digest) -> Flight | None:
        """Return the flight of a digest, if one is under way and may still succeed."""
        return self._flights.get(digest)

    def begin(self, digest: Digest, name: str, course: Course, first: Step | None = None) -> Flight:
        """Return the flight of a digest: the one under way, or a new one on this course, whose `first` step is known.

        Raises `Unreachable` while the node starts or stops.
        """
        flight = self._flights.get(digest)
        if flight is None:
            if self._nursery is None:
                raise Unreachable("this node is starting or stopping")
            now = trio.current_time()
            flight = self._flights[digest] = Flight(digest, name, began=now, sizes=self.sizes, alone_since=now)
            self._nursery.start_soon(self._fly, flight, course, first)
        elif first is not None and first.stream is not None:
            first.stream.close()
        return flight

    async def follow(self, flight: Flight, start: int, end: int | None) -> Following:
        """Return a reader of an open flight. Raises `Unreachable`. Cancellation: nothing is left open."""
        incoming = flight.incoming
        if incoming is None:
            raise flight.failed or Unreachable("the flight is not open")
        return Following(flight, await incoming.reader(), start, flight.size if end is None else end)

    async def _fly(self, flight: Flight, course: Course, first: Step | None) -> None:
        try:
            with flight.scope:
                await self._carry(flight, course, first)
            if flight.scope.cancelled_caught:
                self._fail(flight, NotHere(f"nobody waits for {flight.digest} any more"))
        except MirrorError as error:
            self._fail(flight, error)
        except BaseException:
            self._fail(flight, Unreachable("this node is stopping, or has a bug"))
            raise
        finally:
            self._forget(flight)

    async def _carry(self, flight: Flight, course: Course, first: Step | None) -> None:
        """Fetch, keep, and linger for those who follow."""
        try:
            await self._fetch(flight, course, first)
            assert flight.incoming is not None
            if not await flight.incoming.is_right():
                raise self._wrong(flight)
            flight.is_right = True
            self._parts.router.advertise({key_of(flight.digest): Offer()})
            self._parts.router.resign(key_of(flight.digest))
            flight.changed_pieces()
            await self._keep(flight, flight.incoming)
        finally:
            if first is not None and first.stream is not None:
                first.stream.close()
            if flight.incoming is not None:
                with trio.CancelScope(shield=True):
                    await flight.incoming.__aexit__(None, None, None)

    async def _keep(self, flight: Flight, incoming: Incoming) -> None:
        if not flight.is_from_registry:
            await self._linger(flight)
            if self._is_held(flight.digest):
                self._metrics.flight_ended("unneeded")
                return
        try:
            await incoming.keep()
        except StoreFull:
            self._metrics.flight_ended("unkept")
            await self._linger(flight)  # whoever comes soon has it from here
        else:
            self._metrics.flight_ended("kept")
            await self._linger(flight, seconds=0.0)

    async def _linger(self, flight: Flight, seconds: float = LINGER_S) -> None:
        """Wait until nobody reads it, or follows it, and none has read it for some seconds."""
        while (
            flight.readers
            or flight.follows_now(trio.current_time())
            or (trio.current_time() < flight.alone_since + seconds)
        ):
            if not seconds and not flight.follows_now(trio.current_time()):
                return  # readers have it open
            await trio.sleep(min(1.0, seconds or 1.0))

    def _wrong(self, flight: Flight) -> MirrorError:
        """Ban whoever had a part in it, and say what is wrong."""
        now = trio.current_time()
        for node_id in {*flight.used, *flight.claimed_by.values()}:
            self._parts.scores.ban(node_id, flight.digest, now, BAN_S)
        if flight.used or not flight.is_from_registry:
            self._metrics.wrong_digests.inc()
            return PeerMisbehaved(f"{flight.digest}: the bytes that came have another digest")
        self._metrics.upstream_wrong_digests.inc()
        return UpstreamRefused(f"{flight.digest}: the registry's bytes have another digest", status=502)

    async def _fetch(self, flight: Flight, course: Course, first: Step | None) -> None:
        swarm = Swarm(flight, self._parts, self._metrics)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(swarm.run)
                nursery.start_soon(self._open_as_told, flight, swarm)
                nursery.start_soon(catch_up, flight)
                nursery.start_soon(hash_pieces, flight)
                await self._steer(flight, swarm, course, first)
                while flight.written < flight.size:
                    await flight.wait()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise only_error(group) from None

    async def _steer(self, flight: Flight, swarm: Swarm, course: Course, first: Step | None) -> None:
        """Take one step after another until every piece is here."""
        errors, stuck, step = 0, 0, first
        while not (flight.opened.is_set() and flight.have.is_full):
            before = flight.arrived
            try:
                step = step or await course.next(flight, swarm.company)
                swarm.meet(step.providers)
                if step.stream is not None:
                    await self._stream(flight, step.stream, swarm)
                await swarm.starve(STARVED_S)
            except StoreFull:
                raise
            except MirrorError:
                errors = 1 if flight.arrived > before else errors + 1
                if swarm.is_alone or errors >= ERRORS_MAX:
                    raise
                await swarm.starve(STARVED_S)
            step, stuck = None, 0 if flight.arrived > before else stuck + 1
            if stuck == STUCK_MAX:  # peers that say that they have it, and give nothing
                swarm.leave()
                stuck = 0

    async def _open_as_told(self, flight: Flight, swarm: Swarm) -> None:
        await swarm.told.wait()
        assert swarm.size is not None
        await self._open(flight, swarm.size)

    async def _open(self, flight: Flight, size: int) -> None:
        """Make room, once. Raises `StoreFull`, and `Unreachable` when sources do not agree on the length."""
        if pieces_of(size, self.sizes.of(size)) > PIECES_MAX:
            raise Unreachable(f"{flight.digest} has more pieces than can be told: {size} bytes")
        if not flight.opened.is_set():
            incoming = await self._room.receive(flight.digest, size, None, flight.name)
            if flight.opened.is_set():  # somebody else was quicker
                await incoming.__aexit__(None, None, None)
            else:
                flight.open(size, incoming)
                self._say(flight)
        if flight.size != size:
            raise Unreachable(f"{flight.digest} has {flight.size} bytes, and {size} elsewhere")

    def _say(self, flight: Flight) -> None:
        """Tell whoever looks for it that parts of it are here."""
        offer = Offer(complete=False, leading=flight.leads)
        self._parts.router.advertise({key_of(flight.digest): offer})

    async def _stream(self, flight: Flight, stream: Stream, swarm: Swarm) -> None:
        """Write what a stream brings, except what is here already or peers have."""

        def is_wanted(index: int) -> bool:
            return index not in flight.have and index not in flight.fetching and not swarm.has_elsewhere(index)

        flight.lead()
        flight.streams_from = stream.used
        flight.is_from_registry = flight.is_from_registry or stream.is_registry
        flight.author = None
        if flight.opened.is_set():
            self._say(flight)
        try:
            index: int | None = 0
            if flight.opened.is_set():
                index = next(filter(is_wanted, range(flight.have.count)), None)
            while index is not None:
                async with stream.open_at(flight.begins_at(index) if index else flight.written) as download:
                    await self._open(flight, download.size)
                    if index < flight.have.count:
                        await pour(flight, download, index, is_wanted)
                index = next(filter(is_wanted, range(flight.have.count)), None)
        except BaseException:
            flight.leads = False
            flight.changed_pieces()
            raise
        finally:
            stream.close()  # it was not opened where peers have, or are asked for, all that is missing
            for node_id in stream.used():
                flight.used.setdefault(node_id, 0)

    def _fail(self, flight: Flight, error: MirrorError) -> None:
        if flight.failed is None:
            flight.failed = error
            self._metrics.flight_ended("failed")
        flight.opened.set()
        flight.changed_pieces()

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.digest) is flight:
            del self._flights[flight.digest]
        self._parts.router.resign(key_of(flight.digest))
        if not self._is_held(flight.digest):
            self._parts.router.withdraw([key_of(flight.digest)])

    async def _report(self) -> None:
        """Say of each flight that leads how far it is."""
        while True:
            await trio.sleep(REPORT_S)
            for flight in self.all():
                if flight.leads and not flight.is_right:
                    self._parts.router.report(key_of(flight.digest), flight.arrived)

    async def _end_the_lonely(self) -> None:
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for flight in self.all():
                is_lonely = not flight.readers and now >= flight.alone_since + LINGER_S
                is_followed = flight.leads and bool(flight.follows_now(now))
                if is_lonely and not is_followed and not flight.is_right and 2 * flight.arrived <= flight.size:
                    flight.scope.cancel()
