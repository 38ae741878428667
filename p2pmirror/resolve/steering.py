"""One flight on its way in: from a stream, from peers that have parts, or from both, until every piece is here.

Laws:
- its `Course` says where it comes from, and is asked again whenever nothing more comes, also of a registry;
- a length is believed of whoever tells it first, until somebody who knows better says otherwise, or until nothing comes
  and somebody else says otherwise: then the flight is `Refuted`, and may begin anew without him;
- peers that say much and give nothing are left;
- what an earlier try has left is not fetched again: a stream begins behind it, at the first byte that is not there.

DESIGN.md section 4, "Flights and pieces".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from p2pmirror.errors import MirrorError, NotHere, PeerMisbehaved, StoreFull, Unreachable, UpstreamRefused, only_error
from p2pmirror.peers.piecemap import PIECES_MAX, pieces_of
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.neighbour import SwarmParts
from p2pmirror.resolve.pouring import catch_up, hash_pieces, pour
from p2pmirror.resolve.resuming import resume
from p2pmirror.resolve.swarm import Swarm
from p2pmirror.routing.protocol import STANDSTILL_S, Key, Offer, Provider, key_of
from p2pmirror.store.cache.protocol import Receives
from p2pmirror.upstream.protocol import Download
from p2pmirror.wire.identity import NodeId

STARVED_S: Final = 2.0  # without a byte from peers: as long as a lease, so that somebody else may lead by then
STUCK_MAX: Final = 5  # steps without a byte, some 10 s: then peers are left, whatever they say
ERRORS_MAX: Final = 3  # courses that failed in a row while peers were there
SIZE_BAN_S: Final = 60.0  # for a wrong length: a pull and its retries; he may only have passed on what another told

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
    """What to do next: fetch from a stream, and from these peers at the same time.

    `border`: the lease under which this node alone of its zone fetches from others.
    """

    stream: Stream | None
    providers: tuple[Provider, ...] = ()
    border: Key | None = None


class Course(Protocol):
    """Decides where a flight goes on."""

    async def next(self, flight: Flight, company: AbstractSet[NodeId]) -> Step:
        """Return where more of the flight is, while peers of this `company` are being asked.

        Raises `NotHere`, `Unreachable`, `UpstreamRefused`: nowhere.
        """
        ...


class Refuted(PeerMisbehaved):
    """What peers told of a blob, its length or its bytes, is wrong: whoever asks for it once more may get it."""


class Steering:
    """Brings one flight in."""

    def __init__(
        self, flight: Flight, course: Course, room: Receives, parts: SwarmParts, metrics: ResolveMetrics
    ) -> None:
        """Know nobody yet."""
        self._flight = flight
        self._course = course
        self._room = room
        self._parts = parts
        self._swarm = Swarm(flight, parts, metrics)
        self._opening = trio.Lock()

    async def run(self, first: Step | None) -> None:
        """Return once all of it has been written. Raises `MirrorError`, among them `Refuted`."""
        flight, swarm = self._flight, self._swarm
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(swarm.run)
                nursery.start_soon(self._open_as_told)
                nursery.start_soon(self._take_in)
                nursery.start_soon(hash_pieces, flight)
                await self._steer(first)
                while flight.written < flight.size:
                    await flight.wait()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise only_error(group) from None

    async def _take_in(self) -> None:
        """Hash what was left, and then what comes."""
        await self._flight.opened.wait()
        await resume(self._flight)
        await catch_up(self._flight)

    async def _steer(self, step: Step | None) -> None:
        """Take one step after another until every piece is here."""
        flight, swarm = self._flight, self._swarm
        errors, stuck = 0, 0
        while not flight.has_all:
            if flight.unproven and next(flight.missing(), None) is None:
                await flight.wait_for_pieces()
                continue
            before = flight.arrived
            try:
                step = await self._take(step or await self._course.next(flight, swarm.company))
            except (StoreFull, Refuted):
                raise
            except MirrorError:
                step, errors = None, 1 if flight.arrived > before else errors + 1
                self._doubt_size(before)
                if swarm.is_alone or errors >= ERRORS_MAX:
                    raise
            if step is None:
                await swarm.starve(STARVED_S)
            if flight.arrived == before:
                swarm.doubt()
            self._doubt_size(before)
            stuck = 0 if flight.arrived > before else stuck + 1
            if stuck == STUCK_MAX:  # peers that say that they have it, and give nothing
                swarm.leave()
                stuck = 0

    async def _take(self, step: Step) -> Step | None:
        """Take a step; return the next one where that is known already."""
        if step.border is not None and self._flight.border is None:
            self._flight.border = step.border
            self._flight.lead()
            self._say()
        self._swarm.meet(step.providers)
        if step.stream is None:
            return None
        if not step.stream.is_registry:
            await self._stream(step.stream)
            return None
        return await self._stream_or_else(step.stream)

    def _doubt_size(self, before: int) -> None:
        """Give up a length that somebody told who is in doubt now, when nothing comes. Raises `Refuted`."""
        flight, scores, now = self._flight, self._parts.scores, trio.current_time()
        teller = flight.size_by
        if teller is None or flight.arrived > before:
            return
        is_banned = scores.banned(teller, flight.digest, now)
        if flight.doubters or (is_banned and not flight.arrived):
            error = Refuted(
                f"{flight.digest}: nothing comes, and a peer's word that it has {flight.size} bytes is doubted"
            )
            if teller not in flight.doubters:
                scores.ban(teller, flight.digest, now, str(error), SIZE_BAN_S)
            raise error

    async def _open_as_told(self) -> None:
        flight, swarm = self._flight, self._swarm
        await swarm.told.wait()
        assert swarm.size is not None
        size, teller = swarm.size, flight.size_by
        try:
            await self._open(size, teller)
        except StoreFull:
            if teller is None or flight.too_large == size:
                raise
            flight.too_large = size
            refuted = Refuted(f"{flight.digest} has {size} bytes, a peer says, for which there is no room")
            self._parts.scores.ban(teller, flight.digest, trio.current_time(), str(refuted), SIZE_BAN_S)
            raise refuted from None

    async def _open(self, size: int, by: NodeId | None) -> None:
        """Make room, once; `by` told the length, None: a registry.

        Raises `StoreFull`, and when sources do not agree on the length `Unreachable`, or `Refuted`.
        """
        flight = self._flight
        if pieces_of(size, flight.sizes.of(size)) > PIECES_MAX:
            raise StoreFull(f"{flight.digest} has more pieces than can be told: {size} bytes")
        async with self._opening:
            if not flight.opened.is_set():
                piece_bytes = flight.sizes.of(size)
                incoming = await self._room.receive(flight.digest, size, None, flight.name, piece_bytes=piece_bytes)
                flight.open(size, incoming, by)
                self._say()
        if flight.size != size:
            raise self._disputed(size, by)
        if by is None:
            flight.size_by = None  # nobody knows better

    def _disputed(self, size: int, by: NodeId | None) -> MirrorError:
        """Return what it means that somebody else tells another length."""
        flight = self._flight
        text = f"{flight.digest} has {flight.size} bytes, and {size} elsewhere"
        if by is not None:
            return flight.disputed(by, size)
        if flight.size_by is None:
            return Unreachable(text)
        self._parts.scores.ban(flight.size_by, flight.digest, trio.current_time(), text, SIZE_BAN_S)
        return Refuted(text)

    def _say(self) -> None:
        """Tell whoever looks for it that parts of it are here."""
        flight = self._flight
        offer = Offer(complete=False, leading=flight.leads)
        self._parts.router.advertise({key_of(flight.digest): offer})

    async def _stream_or_else(self, stream: Stream) -> Step | None:
        """Write what a registry's stream brings; return what to do instead when it stands still and others go on."""
        instead: Step | None = None

        async def look() -> None:
            nonlocal instead
            while instead is None:
                moved = self._flight.moved
                await trio.sleep(STANDSTILL_S)
                if self._flight.moved == moved:
                    instead = await self._elsewhere()
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await self._stream(stream)
                nursery.cancel_scope.cancel()
        except BaseException as error:
            if instead is not None and instead.stream is not None:
                instead.stream.close()
            if isinstance(error, BaseExceptionGroup):
                raise only_error(error) from None
            raise
        return instead

    async def _elsewhere(self) -> Step | None:
        """Return where else it comes from than from the registry, or None."""
        with suppress(MirrorError):
            step = await self._course.next(self._flight, self._swarm.company)
            if step.stream is None or not step.stream.is_registry:
                return step
        return None

    async def _stream(self, stream: Stream) -> None:
        """Write what a stream brings, except what is here already or peers have."""
        flight, swarm = self._flight, self._swarm

        def is_free(index: int) -> bool:
            return index not in flight.fetching and not swarm.has_elsewhere(index)

        def is_wanted(index: int) -> bool:
            if index in flight.have or index in flight.unproven or not is_free(index):
                return False
            return index <= min(filter(is_free, flight.disproved), default=index)  # readers wait for those first

        flight.lead()
        flight.streams_from = stream.used
        flight.is_from_registry = flight.is_from_registry or stream.is_registry
        flight.author = None
        self._say()
        try:
            if not flight.opened.is_set():
                flight.streaming = 0
                await self._stream_first(stream, is_wanted)
            while (index := next(filter(is_wanted, range(flight.have.count)), None)) is not None:
                flight.streaming = index  # from now on: while it is being opened nobody else begins this piece
                await self._stream_from(stream, flight.begins_at(index), is_wanted)
        except BaseException:
            flight.leads = flight.border is not None
            if flight.opened.is_set():
                self._say()
            flight.changed_pieces()
            raise
        finally:
            flight.streaming = None
            stream.close()  # it was not opened where peers have, or are asked for, all that is missing
            for node_id in stream.used():
                flight.used.setdefault(node_id, 0)
                flight.streamed.add(node_id)

    async def _stream_first(self, stream: Stream, is_wanted: Callable[[int], bool]) -> None:
        """Learn the length from a stream, which is opened where an earlier try has ended, as it says itself."""
        flight = self._flight
        start = await self._room.resumes_at(flight.digest, flight.sizes.of)
        try:
            await self._stream_from(stream, start, is_wanted)
        except (NotHere, UpstreamRefused) as error:
            is_too_far = not stream.is_registry or (isinstance(error, UpstreamRefused) and error.status == 416)
            if not start or flight.opened.is_set() or not is_too_far:
                raise
            await self._stream_from(stream, 0, is_wanted)

    async def _stream_from(self, stream: Stream, start: int, is_wanted: Callable[[int], bool]) -> None:
        """Write what comes from a piece on, unless it turns out that the piece is here, or does not begin there."""
        flight = self._flight
        is_chosen = flight.opened.is_set()
        async with stream.open_at(start) as download:
            await self._open(download.size, None if stream.is_registry else stream.used()[-1])
            index = start // flight.piece_bytes
            is_first = is_chosen or index == next(flight.missing(), None)
            is_free = index in flight.missing() and index not in flight.fetching
            if is_first and is_free and flight.begins_at(index) == start:
                flight.streaming = index
                await pour(flight, download, index, is_wanted)
