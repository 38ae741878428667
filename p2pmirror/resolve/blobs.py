"""Blobs that are not on this node: from peers or a registry, through a flight where there is room for one.

Laws:
- a small blob from a peer is read and verified before the answer begins; a large one arrives in a flight, which other
  readers and other nodes share, or is relayed to its one reader where nothing can be kept, or only its end is wanted;
- an answer is given once the length is known: within `first_byte_s`, or within `HELD_S` when a live leader has said
  that it is fetching the blob.

DESIGN.md section 4, "Flights and pieces".
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from p2pmirror.errors import NotHere, StoreFull, Unreachable
from p2pmirror.oci import Digest, blob_path
from p2pmirror.peers.protocol import Answer, Question
from p2pmirror.resolve.course import BlobCourse
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.flights import Flights
from p2pmirror.resolve.following import Following
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.protocol import Transfer
from p2pmirror.resolve.race import OnlyParts, Sources, Won
from p2pmirror.resolve.relay import Relay
from p2pmirror.resolve.small import SMALL_BYTES_MAX, read_small
from p2pmirror.resolve.steering import Refuted, Step
from p2pmirror.resolve.through import Through, span_of
from p2pmirror.resolve.transfers import of_flight, of_passage, of_relay
from p2pmirror.resolve.want import Arriving, Content, Found, Held, InHand, Trail, Want
from p2pmirror.store.protocol import Store
from p2pmirror.wire.http import Sink
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.ranges import parse_range

HELD_S: Final = 10.0  # for the first byte, while a leader is at it; containerd waits 30 s
PEERS_LOGGED_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class BlobParts:
    """The rooms that blobs come from; `through` None: no registry is asked; `flights` None: there is no room."""

    store: Store
    sources: Sources
    through: Through | None
    flights: Flights | None
    first_byte_s: float = 2.0


@dataclass(frozen=True, slots=True)
class _Ask:
    """One request; `through` None: no registry may be asked for it."""

    want: Want
    digest: Digest
    through: Through | None
    trail: Trail


class Blobs:
    """Finds blobs elsewhere."""

    def __init__(self, parts: BlobParts, metrics: ResolveMetrics, hashing: Hashing) -> None:
        """Nothing is under way."""
        self._store = parts.store
        self._sources = parts.sources
        self._through = parts.through
        self._flights = parts.flights
        self._first_byte_s = parts.first_byte_s
        self._metrics = metrics
        self._hashing = hashing
        self._relays: dict[Relay, Want] = {}

    async def find(self, want: Want, digest: Digest, trail: Trail) -> Found:
        """Find a blob that is not held; see `protocol.Resolver.find`."""
        through = self._through if self._through is not None and self._through.serves(want) else None
        ask = _Ask(want, digest, through, trail)
        flight = None if self._flights is None else self._flights.get(digest)
        if want.head:
            return await self._told_by_anybody(ask, flight)
        if flight is not None:
            return await self._follow(flight, ask, is_new=False)
        course = self._course(ask)
        began = trio.current_time()
        try:
            found = await self._from_holder(ask, course)
        except NotHere as error:
            self._metrics.missed.observe(trio.current_time() - began)
            course.parts = error.providers if isinstance(error, OnlyParts) else ()
            return await self._without_holder(ask, course)
        self._metrics.found.observe(trio.current_time() - began)
        return await self._fly(ask, course, found) if isinstance(found, Step) else found

    def lead(self, want: Want, digest: Digest) -> None:
        """Have a blob arrive for those who follow it, where it may be asked of its registry and has room."""
        if self._flights is not None and self._through is not None and self._through.serves(want):
            course = self._course(_Ask(want, digest, self._through, Trail()))
            self._flights.begin(digest, f"{want.registry}/{want.repository}", course)

    def for_peer(self, want: Want, flight: Flight, trail: Trail) -> Arriving:
        """Return what a peer may have of a flight. Raises `NotHere` when that is not whole yet."""
        start, end = span_of(want, flight.size) if flight.size else (0, 0)
        if want.head or not (flight.covers(start, end) and (flight.is_right or end - start < flight.size)):
            raise NotHere(f"{flight.digest} is not here yet")
        trail.source = "flight"

        async def pump(sink: Sink) -> None:
            assert flight.incoming is not None
            file = await flight.incoming.reader()
            try:
                await sink.send_file(file, start, end - start)
            finally:
                file.close()

        return Arriving(Content(flight.digest, flight.size, None), start, end, pump, _close_nothing)

    def transfers(self) -> list[Transfer]:
        """List what arrives, what is passed on and what is relayed."""
        now = trio.current_time()
        flights = [] if self._flights is None else self._flights.all()
        passages = [] if self._through is None else self._through.passages()
        return [
            *(of_flight(each, now) for each in flights if not each.is_right),
            *(of_passage(each, began, now) for each, began in passages),
            *(of_relay(relay, want, now) for relay, want in self._relays.items()),
        ]

    # the length alone

    async def _told_by_anybody(self, ask: _Ask, flight: Flight | None) -> Arriving:
        if flight is not None and flight.incoming is not None:
            ask.trail.source = "flight"
            return Arriving(Content(ask.digest, flight.size, None), 0, flight.size, _nothing, _close_nothing)
        try:
            return await self._told(ask.want, ask.digest, ask.trail)
        except NotHere:
            if ask.through is None:
                raise
        return await ask.through.told(ask.want, ask.digest, ask.trail)

    async def _told(self, want: Want, digest: Digest, trail: Trail) -> Arriving:
        """Return what a peer says of a blob, without bytes."""
        question = Question(blob_path(want.repository, digest), want.registry, "HEAD")
        won = await self._sources.first(digest, question, trail)
        content = _content(digest, won.answer)
        won.answer.close()
        trail.source = "peer"
        trail.peers.append(won.provider.node_id)
        return Arriving(content, 0, content.size, _nothing, _close_nothing)

    # from a peer that has all of it

    def _course(self, ask: _Ask) -> BlobCourse:
        from_registry = None if ask.through is None else partial(ask.through.open, ask.want, ask.digest)
        return BlobCourse(
            ask.want, ask.digest, self._sources, self._metrics, trail=ask.trail, from_registry=from_registry
        )

    async def _from_holder(self, ask: _Ask, course: BlobCourse) -> Found | Step:
        """Open the blob at a peer, from the byte that the client wants; a small one is read and verified at once."""
        want, digest, trail = ask.want, ask.digest, ask.trail
        span = None
        if want.byte_range is not None:
            told = await self._told(want, digest, Trail())
            span = parse_range(want.byte_range, told.content.size)
        start = 0 if span is None else span.offset
        flies = self._flights is not None and start == 0
        question = replace(course.question, offset=start, follows=flies)
        won = await self._sources.first(digest, question, trail)
        trail.source = "peer"
        if start == 0 and won.answer.size <= SMALL_BYTES_MAX:
            read = await read_small(won, digest, question, sources=self._sources, trail=trail, metrics=self._metrics)
            if isinstance(read, InHand):
                return read
            won = read
        return await course.across(won) if flies else self._relayed(ask, question, won, start)

    async def _without_holder(self, ask: _Ask, course: BlobCourse) -> Found:
        """Find a blob of which no peer has all. Raises `NotHere`."""
        if self._flights is not None and (ask.through is not None or course.parts):
            return await self._fly(ask, course, None)
        if ask.through is None:
            raise NotHere(f"no peer has all of {ask.digest}")
        return await ask.through.passed(ask.want, ask.digest, ask.trail)

    def _relayed(self, ask: _Ask, question: Question, won: Won, start: int) -> Arriving:
        """Relay what a peer has begun to send from byte `start` on."""
        try:
            end = _end(ask.want, start, won.answer)
        except BaseException:
            won.answer.close()
            raise
        content = _content(ask.digest, won.answer)
        return self._relay(ask.want, question, won, start=start, end=end, content=content, trail=ask.trail)

    def _relay(
        self, want: Want, question: Question, won: Won, *, start: int, end: int, content: Content, trail: Trail
    ) -> Arriving:
        async def reopen(offset: int, without: AbstractSet[NodeId]) -> Won:
            def check(answer: Answer) -> None:
                if answer.size != content.size:  # one of two is wrong, and only the digest will say which
                    raise NotHere(f"{content.digest} has {content.size} bytes, and a peer says {answer.size}")

            return await self._sources.first(
                content.digest, replace(question, offset=offset), trail, check=check, without=without
            )

        relay = Relay(
            content,
            start,
            end,
            won,
            reopen=reopen,
            sources=self._sources,
            trail=trail,
            metrics=self._metrics,
            hashing=self._hashing,
        )
        self._relays[relay] = want

        def close() -> None:
            relay.close()
            self._relays.pop(relay, None)

        return Arriving(content, start, end, relay.pump, close)

    # through a flight

    async def _fly(self, ask: _Ask, course: BlobCourse, first: Step | None) -> Found:
        assert self._flights is not None
        name = f"{ask.want.registry}/{ask.want.repository}"
        is_new = self._flights.get(ask.digest) is None
        flight = self._flights.begin(ask.digest, name, course, first)
        return await self._follow(flight, ask, is_new=is_new)

    async def _follow(self, flight: Flight, ask: _Ask, *, is_new: bool) -> Found:
        assert self._flights is not None
        await self._opened(flight, ask)
        ask.trail.source = "flight" if not is_new else "upstream" if flight.is_from_registry else "peer"
        if isinstance(flight.failed, StoreFull):
            return await self._without_room(flight, ask)
        again = self._flights.get(ask.digest) if isinstance(flight.failed, Refuted) else None
        if again is not None:
            return await self._follow(again, ask, is_new=is_new)
        if flight.failed is not None:
            raise flight.failed
        start, end = span_of(ask.want, flight.size)
        try:
            following = await self._flights.follow(flight, start, end)
        except Unreachable:
            if flight.failed is not None:
                raise
            return await self._landed(flight, ask)
        pump = partial(self._pump, following, flight, ask)
        return Arriving(Content(flight.digest, flight.size, None), start, end, pump, following.close)

    async def _opened(self, flight: Flight, ask: _Ask) -> None:
        """Wait until a flight's length is known; where that is 0, whether it is right. Raises `Unreachable`."""
        with trio.move_on_after(self._first_byte_s):
            await flight.opened.wait()
        if not flight.opened.is_set() and flight.is_acknowledged:
            with trio.move_on_after(HELD_S - self._first_byte_s):
                await flight.opened.wait()
        if not flight.opened.is_set():
            if ask.through is not None and flight.leads:
                ask.through.upstream.late(ask.want.registry)
            raise Unreachable(f"nothing of {flight.digest} has come in time")
        while not flight.size and not flight.is_right and flight.failed is None:
            await flight.wait()  # the head is all of the answer; there is nothing to wait for but a hash

    async def _landed(self, flight: Flight, ask: _Ask) -> Found:
        """Open what a flight brought that ended before it could be followed."""
        try:
            blob = await self._store.open(flight.digest)
        except (NotHere, Unreachable):  # it could not be kept
            return await self._without_room(flight, ask)
        return Held(Content(flight.digest, blob.info.size, blob.info.media_type), blob.file)

    async def _without_room(self, flight: Flight, ask: _Ask) -> Found:
        """Have a blob passed on for this reader alone.

        Peers may only have said that it is larger than there is room: others are asked before them. Raises `NotHere`.
        """
        if ask.through is not None:
            try:
                return await ask.through.passed(ask.want, flight.digest, ask.trail)
            except NotHere:
                if not flight.streamed:
                    raise
        start, _ = span_of(ask.want, flight.size) if flight.size else (0, 0)
        question = Question(blob_path(ask.want.repository, flight.digest), ask.want.registry, offset=start)
        try:
            won = await self._sources.first(flight.digest, question, ask.trail, without=flight.streamed)
        except NotHere:
            if not flight.streamed:
                raise
            won = await self._sources.first(flight.digest, question, ask.trail)
        ask.trail.source = "peer"
        return self._relayed(ask, question, won, start)

    async def _pump(self, following: Following, flight: Flight, ask: _Ask, sink: Sink) -> None:
        """Follow a flight, and go on without it when it can no longer be kept."""
        try:
            await following.pump(sink)
        except StoreFull:
            if ask.through is None:
                raise
            passage = ask.through.passage(ask.want, flight.digest, flight.size)
            go_on = partial(passage.go_on, position=following.position, written=following.file)
            await ask.through.pass_on(passage, go_on, sink)
        finally:
            ask.trail.peers.extend(list(flight.used)[:PEERS_LOGGED_MAX])


def _end(want: Want, start: int, answer: Answer) -> int:
    """Return where the wanted part ends; raises `NotHere` when peers do not agree on where it begins."""
    span = None if want.byte_range is None else parse_range(want.byte_range, answer.size)
    if span is None:
        return answer.size
    if span.offset != start:
        raise NotHere("peers do not agree on the length")
    return span.offset + span.count


def _content(digest: Digest, answer: Answer) -> Content:
    return Content(digest, answer.size, answer.media_type)


async def _nothing(_sink: object) -> None:
    """Pump nothing: the answer was for a HEAD."""


def _close_nothing() -> None:
    """Close nothing: what is sent is opened by its pump."""
