"""Blobs on their way to this node: one flight a digest, which any number of readers follow, and peers too.

Laws:
- a flight belongs to no reader: it goes on when the first one leaves, and ends by itself when nobody has followed it
  for `LINGER_S` and less than half of it is there;
- where it comes from is `steering`'s; what peers lied about fails, for all who have read of it, and begins anew without
  the liars, for those who come back;
- when it has no room to arrive in (none is left, a disk broke) its readers go on without it, each by itself; when
  nobody is left to fetch from they end short of their length;
- what came, and was not found wrong, is left to the next flight of the same digest, also after a restart; when that one
  ends wrong, the old bytes may be to blame, and nobody else is;
- what came from peers is kept only when nobody has taken it over for good while it lingered: a runtime has it by then,
  and will not discard it.

DESIGN.md section 4, "Flights and pieces".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import trio

from p2pmirror.errors import MirrorError, NotHere, StoreFull, Unreachable, UpstreamRefused
from p2pmirror.oci import Digest
from p2pmirror.peers.scores import BAN_S
from p2pmirror.resolve.flight import Flight, PieceSizes
from p2pmirror.resolve.following import Following
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.neighbour import SwarmParts
from p2pmirror.resolve.steering import SIZE_BAN_S, Course, Refuted, Steering, Step
from p2pmirror.routing.protocol import Offer, key_of
from p2pmirror.store.cache.protocol import Incoming, Receives
from p2pmirror.wire.identity import NodeId

_log = logging.getLogger(__name__)

LINGER_S: Final = 30.0  # without readers; containerd comes back for a layer within seconds
LOOK_S: Final = 5.0  # how often that is looked at
REPORT_S: Final = 0.4  # between two words of a leader to whoever granted it the lead
ANEW_MAX: Final = 3  # times that it begins anew after peers lied: who did is banned, so each costs other liars


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
        is_kept: Callable[[Digest], Awaitable[bool]] | None = None,
    ) -> None:
        """Receive into `room`.

        `is_held` says whether the node's own store has a blob, `is_kept` whether for good; None: what it has it keeps.
        """
        self.sizes = sizes or PieceSizes()
        self._room = room
        self._parts = parts
        self._metrics = metrics
        self._is_held = is_held
        self._is_kept = is_kept
        self._flights: dict[Digest, Flight] = {}
        self._nursery: trio.Nursery | None = None
        metrics.flights.set_function(lambda: len(self._flights))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let blobs arrive until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_the_lonely)
            self._nursery = nursery
            try:
                task_status.started()
                await self._report()
            finally:
                self._nursery = None  # before it is closed to new ones

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
        if flight is None and self._nursery is not None:
            flight = self._flights[digest] = self._new(digest, name)
            self._nursery.start_soon(self._fly, flight, course, first)
        elif first is not None and first.stream is not None:
            first.stream.close()
        if flight is None:
            raise Unreachable("this node is starting or stopping")
        return flight

    async def follow(self, flight: Flight, start: int, end: int | None) -> Following:
        """Return a reader of an open flight. Raises `Unreachable`. Cancellation: nothing is left open."""
        incoming = flight.incoming
        if incoming is None:
            raise flight.failed or Unreachable("the flight is not open")
        return Following(flight, await incoming.reader(), start, flight.size if end is None else end)

    def _new(self, digest: Digest, name: str) -> Flight:
        now = trio.current_time()
        return Flight(digest, name, began=now, sizes=self.sizes, alone_since=now)

    def _next(self, flight: Flight) -> Flight:
        """Return a flight in place of one that was refuted, which knows what that one learnt."""
        following = self._new(flight.digest, flight.name)
        is_certain = flight.has_all and not flight.resumed
        following.refuted = flight.refuted | (set(flight.claimed_by.values()) if is_certain else set())
        following.too_large = flight.too_large
        return following

    async def _fly(self, flight: Flight, course: Course, first: Step | None) -> None:
        following: Flight | None = flight
        for left in reversed(range(1 + ANEW_MAX)):
            if following is not None:
                following = await self._fly_once(following, course, first, may_begin_anew=left > 0)
                first = None

    async def _fly_once(
        self, flight: Flight, course: Course, first: Step | None, *, may_begin_anew: bool
    ) -> Flight | None:
        """Let one flight come to its end; return the next one, in its place already, where it was refuted."""
        following = None
        try:
            with flight.scope:
                await self._carry(flight, course, first)
            if flight.scope.cancelled_caught:
                self._fail(flight, NotHere(f"nobody waits for {flight.digest} any more"))
        except Refuted as error:
            if may_begin_anew:
                following = self._flights[flight.digest] = self._next(flight)
            self._fail(flight, error)
        except MirrorError as error:
            self._fail(flight, error)
        except Exception:  # noqa: BLE001  # a bug: it ends one flight, and no other
            _log.exception("the flight of %s ended by a fault of this program", flight.digest)
            self._fail(flight, Unreachable("this node has a fault"))
        except BaseException:
            self._fail(flight, Unreachable("this node is stopping"))
            raise
        finally:
            self._forget(flight)
        return following

    async def _carry(self, flight: Flight, course: Course, first: Step | None) -> None:
        """Fetch, keep, and linger for those who follow."""
        is_left = False
        try:
            try:
                await Steering(flight, course, self._room, self._parts, self._metrics).run(first)
            except BaseException as error:
                is_left = _is_of_nobody(error)
                raise
            assert flight.incoming is not None
            if not await flight.incoming.is_right():
                raise self._wrong(flight)
            flight.is_right = True
            flight.ended.set()
            self._ban(flight, flight.doubters, "it told a length that the blob does not have", SIZE_BAN_S)
            self._ban(flight, flight.apart, "it sent a piece that is none of the blob", BAN_S)
            self._parts.router.advertise({key_of(flight.digest): Offer()})
            self._resign(flight)
            flight.changed_pieces()
            await self._keep(flight, flight.incoming)
        finally:
            if first is not None and first.stream is not None:
                first.stream.close()
            if flight.incoming is not None:
                with trio.CancelScope(shield=True):
                    await (flight.incoming.leave() if is_left else flight.incoming.__aexit__(None, None, None))

    async def _keep(self, flight: Flight, incoming: Incoming) -> None:
        if not flight.is_from_registry:
            await self._linger(flight)
            if self._is_held(flight.digest) and (self._is_kept is None or await self._is_kept(flight.digest)):
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
        if flight.resumed:
            return Refuted(f"{flight.digest}: what was gone on with has another digest")
        text = f"{flight.digest}: the bytes that came have another digest"
        culprits = {*flight.streamed, *flight.claimed_by.values()}
        self._ban(flight, culprits, text, BAN_S)
        if not culprits and flight.size_by is not None:
            self._ban(flight, [flight.size_by], text, SIZE_BAN_S)
        if flight.used or not flight.is_from_registry:
            self._metrics.wrong_digests.inc()
            return Refuted(text)
        self._metrics.upstream_wrong_digests.inc()
        return UpstreamRefused(f"{flight.digest}: the registry's bytes have another digest", status=502)

    def _ban(self, flight: Flight, node_ids: Iterable[NodeId], why: str, seconds: float) -> None:
        for node_id in node_ids:
            self._parts.scores.ban(node_id, flight.digest, trio.current_time(), why, seconds)

    def _fail(self, flight: Flight, error: MirrorError) -> None:
        if flight.failed is None:
            flight.failed = error
            self._metrics.flight_ended("failed")
        flight.opened.set()
        flight.ended.set()
        flight.changed_pieces()

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.digest) is not flight:
            return  # it begins anew
        del self._flights[flight.digest]
        self._resign(flight)
        if not self._is_held(flight.digest):
            self._parts.router.withdraw([key_of(flight.digest)])

    def _resign(self, flight: Flight) -> None:
        self._parts.router.resign(key_of(flight.digest))
        if flight.border is not None:
            self._parts.router.resign(flight.border)

    async def _report(self) -> None:
        """Say of each flight that leads how far it is."""
        while True:
            await trio.sleep(REPORT_S)
            for flight in self.all():
                if flight.leads and not flight.is_right:
                    if flight.border is not None:
                        self._parts.router.report(flight.border, flight.progress)
                    if flight.border is None or flight.is_from_registry:
                        self._parts.router.report(key_of(flight.digest), flight.progress)

    async def _end_the_lonely(self) -> None:
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for flight in self.all():
                is_lonely = not flight.readers and now >= flight.alone_since + LINGER_S
                is_followed = flight.leads and bool(flight.follows_now(now))
                if is_lonely and not is_followed and not flight.is_right and 2 * flight.arrived <= flight.size:
                    flight.scope.cancel()


def _is_of_nobody(error: BaseException) -> bool:
    """Whether nothing is known to be wrong with what has come: it ended for want of readers, of sources, or of time."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled | NotHere | Unreachable | UpstreamRefused)
