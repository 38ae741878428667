"""Blobs on their way from a registry: one flight a digest, which any number of readers follow.

Laws:
- a flight belongs to no reader: it goes on when the first one leaves, and ends by itself when nobody has followed it
  for `LINGER_S` and less than half of it is there;
- its bytes are read up to what has been written, and the last 64 KiB of the blob only once the digest of all of it is
  right: no reader is ever given a clean end to wrong content;
- when it cannot be kept (no room, a disk that broke) its readers go on without it, each by itself; when the registry
  fails they end short of their length.

DESIGN.md section 4, "Flights and pieces".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import trio

from p2pmirror.errors import MirrorError, NotHere, StoreFull, Unreachable, UpstreamRefused, only_error
from p2pmirror.oci import Digest
from p2pmirror.resolve.backlog import Backlog
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.store.cache.protocol import Cache, Incoming
from p2pmirror.upstream.protocol import Download
from p2pmirror.wire.http import Sink
from p2pmirror.wire.network import File

TAIL_BYTES = 64 * 1024  # withheld until the digest is known: small beside any layer that is worth keeping
LINGER_S = 30.0  # without readers; containerd comes back for a layer within seconds
LOOK_S = 5.0  # how often that is looked at

Open = Callable[[], AbstractAsyncContextManager[Download]]
"""Opens the blob at its registry, from its first byte."""


@dataclass(eq=False)
class Flight:
    """One blob that arrives; `size` is known, and `incoming` there, once it is `opened` and has not `failed`."""

    digest: Digest
    name: str  # registry/repository of the image for which it was asked first
    began: float  # trio's clock
    size: int = 0
    is_right: bool = False  # whether all of it is there and has the right digest
    failed: MirrorError | None = None
    opened: trio.Event = field(default_factory=trio.Event)
    incoming: Incoming | None = None
    readers: int = 0
    alone_since: float = 0.0  # since when nobody follows it, while `readers` is 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _changed: trio.Event = field(default_factory=trio.Event)

    @property
    def written(self) -> int:
        """How many bytes are there."""
        return 0 if self.incoming is None else self.incoming.written

    @property
    def readable(self) -> int:
        """How many bytes may be given out."""
        return self.size if self.is_right else max(0, min(self.written, self.size - TAIL_BYTES))

    def changed(self) -> None:
        """Wake all readers."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self) -> None:
        """Wait for the next change. Cancellation leaves nothing behind."""
        await self._changed.wait()


class Following:
    """One reader of a flight: bytes `start` to `end` of the blob. Made once the flight is open; `close` it once."""

    def __init__(self, flight: Flight, file: File, start: int, end: int) -> None:
        """Own `file`."""
        self.position = start
        self._flight = flight
        self._file = file
        self._end = end
        self._closed = False
        flight.readers += 1

    @property
    def file(self) -> File:
        """What has been written, for whoever goes on without the flight."""
        return self._file

    async def pump(self, sink: Sink) -> None:
        """Send the bytes as they come. Raises what ended the flight when it ends too early, at `position`."""
        flight = self._flight
        while self.position < self._end:
            count = min(flight.readable, self._end) - self.position
            if count > 0:
                await sink.send_file(self._file, self.position, count)
                self.position += count
            elif flight.failed is not None:
                raise flight.failed
            else:
                await flight.wait()

    def close(self) -> None:
        """Leave the flight; twice does no harm."""
        if not self._closed:
            self._closed = True
            self._file.close()
            self._flight.readers -= 1
            self._flight.alone_since = trio.current_time()


class Flights:
    """All flights of this node."""

    def __init__(self, cache: Cache, metrics: ResolveMetrics) -> None:
        """Keep what arrives in `cache`."""
        self._cache = cache
        self._metrics = metrics
        self._flights: dict[Digest, Flight] = {}
        self._nursery: trio.Nursery | None = None
        metrics.flights.set_function(lambda: len(self._flights))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let blobs arrive until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await self._end_the_lonely()
        finally:
            self._nursery = None

    def all(self) -> list[Flight]:
        """Return those under way, oldest first."""
        return list(self._flights.values())

    def get(self, digest: Digest) -> Flight | None:
        """Return the flight of a digest, if one is under way and may still succeed."""
        return self._flights.get(digest)

    def begin(self, digest: Digest, name: str, fetch: Open) -> Flight:
        """Return the flight of a digest: the one under way, or a new one that `fetch` opens.

        Raises `Unreachable` while the node starts or stops.
        """
        flight = self._flights.get(digest)
        if flight is None:
            if self._nursery is None:
                raise Unreachable("this node is starting or stopping")
            now = trio.current_time()
            flight = self._flights[digest] = Flight(digest, name, began=now, alone_since=now)
            self._nursery.start_soon(self._fly, flight, fetch)
        return flight

    async def follow(self, flight: Flight, start: int, end: int | None) -> Following:
        """Return a reader of an open flight. Raises `Unreachable`. Cancellation: nothing is left open."""
        incoming = flight.incoming
        if incoming is None:
            raise flight.failed or Unreachable("the flight is not open")
        return Following(flight, await incoming.reader(), start, flight.size if end is None else end)

    async def _fly(self, flight: Flight, fetch: Open) -> None:
        try:
            with flight.scope:
                await self._fetch(flight, fetch)
            if flight.scope.cancelled_caught:
                self._fail(flight, NotHere(f"nobody waits for {flight.digest} any more"))
        except MirrorError as error:
            self._fail(flight, error)
        except BaseException:
            self._fail(flight, Unreachable("this node is stopping, or has a bug"))
            raise
        finally:
            self._forget(flight)

    async def _fetch(self, flight: Flight, fetch: Open) -> None:
        async with fetch() as download:
            flight.size = download.size
            incoming = await self._cache.receive(flight.digest, download.size, None, flight.name)
            async with incoming:
                flight.incoming = incoming
                flight.opened.set()
                await self._receive(flight, download, incoming)
                if not await incoming.is_right():
                    self._metrics.upstream_wrong_digests.inc()
                    raise UpstreamRefused(f"{flight.digest}: the registry's bytes have another digest", status=502)
                flight.is_right = True
                flight.changed()
                await self._keep(incoming)

    async def _keep(self, incoming: Incoming) -> None:
        try:
            await incoming.keep()
        except StoreFull:
            self._metrics.flight_ended("unkept")  # its readers have it open, and nobody else will
        else:
            self._metrics.flight_ended("kept")

    async def _receive(self, flight: Flight, download: Download, incoming: Incoming) -> None:
        """Write what arrives, in steps, while more arrives."""
        backlog = Backlog()

        async def take() -> None:
            while data := await download.receive():
                await backlog.put(data)
            backlog.end()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take)
                while data := await backlog.step():
                    await incoming.write(data)
                    flight.changed()
        except BaseExceptionGroup as group:
            raise only_error(group) from None

    def _fail(self, flight: Flight, error: MirrorError) -> None:
        if flight.failed is None:
            flight.failed = error
            self._metrics.flight_ended("failed")
        flight.opened.set()
        flight.changed()

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.digest) is flight:
            del self._flights[flight.digest]

    async def _end_the_lonely(self) -> None:
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for flight in self.all():
                is_lonely = not flight.readers and now >= flight.alone_since + LINGER_S
                if is_lonely and (not flight.opened.is_set() or 2 * flight.written < flight.size):
                    flight.scope.cancel()
