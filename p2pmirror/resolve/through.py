"""Content from the registries themselves, fetched once for all who ask, and kept where there is a cache.

Laws:
- an answer is given when the registry has answered and the length is known, within `first_byte_s`; else the asker is
  sent on, and what was begun goes on for the next one;
- a manifest is handed out with its bytes verified; a blob as `flights` and `passing` have it;
- a registry that refused a repository (401, 403) is not asked for it again for a while: containerd goes there by
  itself, with a pull secret of its own, and must not wait for us each time.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from p2pmirror.errors import NotHere, StoreFull, Unreachable, UpstreamRefused
from p2pmirror.oci import Descriptor, Digest, TagName
from p2pmirror.resolve.flights import Flight, Flights, Following
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.passing import Passage
from p2pmirror.resolve.protocol import Transfer
from p2pmirror.resolve.refusals import Refusals
from p2pmirror.resolve.shared import Shared
from p2pmirror.resolve.want import Arriving, Content, Found, Held, InHand, Listing, Trail, Want
from p2pmirror.store.cache.protocol import Cache
from p2pmirror.upstream.protocol import Document, Download, Upstream
from p2pmirror.wire.http import Sink
from p2pmirror.wire.ranges import parse_range

_Value = TypeVar("_Value")

_Fetch = Callable[[int], AbstractAsyncContextManager[Download]]


@dataclass(frozen=True, slots=True)
class ThroughOptions:
    """`first_byte_s`: how long a registry may take to answer (setting `first_byte_timeout`)."""

    first_byte_s: float = 2.0


class Through:
    """Registries that are fetched from through this node."""

    def __init__(
        self,
        upstream: Upstream,
        cache: Cache | None,
        options: ThroughOptions,
        metrics: ResolveMetrics,
        hashing: Hashing,
    ) -> None:
        """Fetch from `upstream` into `cache`; without one, everything is passed on and nothing kept."""
        self.upstream = upstream
        self.options = options
        self._cache = cache
        self._hashing = hashing
        self._metrics = metrics
        self._flights = None if cache is None else Flights(cache, metrics)
        self._passing: dict[Passage, float] = {}  # since when, by trio's clock
        self._documents: Shared[Digest, Document] = Shared()
        self._tags: Shared[TagName, Descriptor] = Shared()
        self._refusals = Refusals()

    def serves(self, want: Want) -> bool:
        """Whether the registry of a want may be asked for it: never for a peer, who asks for what is here."""
        return want.from_peer is None and self.upstream.is_through(want.registry)

    def flights(self) -> list[Flight]:
        """Return the blobs that are arriving, oldest first."""
        return [] if self._flights is None else self._flights.all()

    def transfers(self, now: float) -> list[Transfer]:
        """Return what is coming from registries: blobs that arrive, then what is passed on without being kept."""
        coming: list[tuple[Flight | Passage, int, float]] = [
            *((each, each.written, each.began) for each in self.flights()),
            *((each, each.position - each.start, began) for each, began in self._passing.items()),
        ]
        return [
            Transfer(
                each.digest, each.name, each.size, count, None, 0, now - began, registry=each.name.partition("/")[0]
            )
            for each, count, began in coming
        ]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch what is asked for until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._documents.run)
            await nursery.start(self._tags.run)
            if self._flights is not None:
                await nursery.start(self._flights.run)
            task_status.started()

    def is_arriving(self, digest: Digest) -> bool:
        """Whether a blob is on its way already."""
        return self._flights is not None and self._flights.get(digest) is not None

    async def tag(self, want: Want, trail: Trail) -> Descriptor:
        """Ask what a tag names now, once for all who ask at the same time. Raises as `document`."""
        self._refusals.check(want, trio.current_time())
        trail.attempts += 1
        ask = partial(self.upstream.resolve, want.registry, want.repository, want.tag_name.tag)
        return await self._in_time(want, partial(self._tags.ask, want.tag_name, ask))

    async def document(self, want: Want, digest: Digest, trail: Trail) -> InHand:
        """Fetch a manifest and keep it. Raises `NotHere`, `UpstreamRefused`, `Unreachable`."""
        self._refusals.check(want, trio.current_time())
        trail.attempts += 1
        ask = partial(self._documents.ask, digest, partial(self._fetch_document, want, digest))
        document = await self._in_time(want, ask)
        trail.source = "upstream"
        return InHand(Content(digest, len(document.data), document.media_type), document.data)

    async def told(self, want: Want, digest: Digest, trail: Trail) -> Arriving:
        """Ask for a blob's length alone. Raises as `document`."""
        flight = None if self._flights is None else self._flights.get(digest)
        size = flight.size if flight is not None and flight.size else await self._size(want, digest)
        trail.source = "upstream"
        return Arriving(Content(digest, size, None), 0, size, _nothing, _close_nothing)

    async def blob(self, want: Want, digest: Digest, trail: Trail) -> Found:
        """Fetch a blob, or follow its flight. Raises as `document`, and `Unsatisfiable` for a range beyond its end."""
        fetch = partial(self._open, want, digest)
        if self._flights is None or self._cache is None:
            return self._passed(want, digest, await self._size(want, digest), fetch, trail)
        flight = self._flights.get(digest)
        if flight is None:
            self._refusals.check(want, trio.current_time())
            trail.attempts += 1
            flight = self._flights.begin(digest, f"{want.registry}/{want.repository}", partial(fetch, 0))
            trail.source = "upstream"
        else:
            trail.source = "flight"
        await self._in_time(want, flight.opened.wait)
        if isinstance(flight.failed, StoreFull):
            return self._passed(want, digest, flight.size, fetch, trail)
        if flight.failed is not None:
            self._refusals.note(want, flight.failed, trio.current_time())
            raise flight.failed
        if self._flights.get(digest) is flight:
            try:
                return await self._followed(self._flights, flight, want, fetch)
            except Unreachable:
                if flight.failed is not None:
                    raise
        try:
            return await self._landed(digest, self._cache)
        except (NotHere, Unreachable):  # it could not be kept
            return self._passed(want, digest, flight.size, fetch, trail)

    async def tags(self, listing: Listing) -> list[str] | None:
        """Ask which tags a repository has; None when nobody is to be asked, or does not answer. Raises `NotHere`."""
        return await self._listed(listing, partial(self.upstream.tags, listing.registry, listing.repository))

    async def referrers(self, listing: Listing, subject: Digest) -> tuple[Descriptor, ...] | None:
        """Ask what refers to a manifest; None when nobody is to be asked, or does not answer. Raises `NotHere`."""
        ask = partial(self.upstream.referrers, listing.registry, listing.repository, subject)
        return await self._listed(listing, ask)

    async def _listed(self, listing: Listing, ask: Callable[[], Awaitable[_Value]]) -> _Value | None:
        if listing.from_peer is not None or not self.upstream.is_through(listing.registry):
            return None
        with trio.move_on_after(self.options.first_byte_s):
            try:
                return await ask()
            except (UpstreamRefused, Unreachable):
                return None
        self.upstream.late(listing.registry)
        return None

    async def _landed(self, digest: Digest, cache: Cache) -> Held:
        """Open what a flight brought that ended before it could be followed. Raises `NotHere`, `Unreachable`."""
        blob = await cache.open(digest)
        return Held(Content(digest, blob.info.size, blob.info.media_type), blob.file)

    async def _followed(self, flights: Flights, flight: Flight, want: Want, fetch: _Fetch) -> Arriving:
        passage = self._passage(want, flight.digest, flight.size, fetch)
        following = await flights.follow(flight, passage.start, passage.end)
        pump = partial(self._follow, following, passage)
        return Arriving(Content(flight.digest, flight.size, None), passage.start, passage.end, pump, following.close)

    def _passed(self, want: Want, digest: Digest, size: int, fetch: _Fetch, trail: Trail) -> Arriving:
        trail.source = "upstream"
        passage = self._passage(want, digest, size, fetch)
        pump = partial(self._pass, passage, passage.pump)
        return Arriving(Content(digest, size, None), passage.start, passage.end, pump, _close_nothing)

    def _passage(self, want: Want, digest: Digest, size: int, fetch: _Fetch) -> Passage:
        start, end = _span(want, size)
        name = f"{want.registry}/{want.repository}"
        return Passage(digest, name, size, start, end, fetch, self._hashing, self._metrics)

    async def _pass(self, passage: Passage, pump: Callable[[Sink], Awaitable[None]], sink: Sink) -> None:
        """Pump, and let the passage be seen meanwhile."""
        self._passing[passage] = trio.current_time()
        try:
            await pump(sink)
        finally:
            del self._passing[passage]

    async def _follow(self, following: Following, passage: Passage, sink: Sink) -> None:
        """Follow a flight, and go on without it when it can no longer be kept."""
        try:
            await following.pump(sink)
        except StoreFull:
            go_on = partial(passage.go_on, position=following.position, written=following.file)
            await self._pass(passage, go_on, sink)

    async def _fetch_document(self, want: Want, digest: Digest) -> Document:
        document = await self.upstream.document(want.registry, want.repository, digest)
        if self._cache is not None:
            try:
                name = f"{want.registry}/{want.repository}"
                await self._cache.keep_document(digest, document.media_type, document.data, name)
            except StoreFull:
                pass  # it is handed out all the same
        return document

    async def _size(self, want: Want, digest: Digest) -> int:
        self._refusals.check(want, trio.current_time())
        return await self._in_time(want, partial(self.upstream.blob_size, want.registry, want.repository, digest))

    def _open(self, want: Want, digest: Digest, start: int) -> AbstractAsyncContextManager[Download]:
        return self.upstream.blob(want.registry, want.repository, digest, start=start)

    async def _in_time(self, want: Want, ask: Callable[[], Awaitable[_Value]]) -> _Value:
        """Ask within `first_byte_s`; raises `Unreachable` when it takes longer."""
        try:
            with trio.fail_after(self.options.first_byte_s):
                return await ask()
        except trio.TooSlowError:
            self.upstream.late(want.registry)
            raise Unreachable(f"{want.registry} does not answer within {self.options.first_byte_s:g} s") from None
        except (NotHere, UpstreamRefused) as error:
            self._refusals.note(want, error, trio.current_time())
            raise


def _span(want: Want, size: int) -> tuple[int, int]:
    span = None if want.byte_range is None else parse_range(want.byte_range, size)
    return (0, size) if span is None else (span.offset, span.offset + span.count)


async def _nothing(_sink: Sink) -> None:
    """Pump nothing: the answer was for a HEAD."""


def _close_nothing() -> None:
    """Close nothing: what is passed on is opened by its pump."""
