"""Content from the registries themselves, fetched once for all who ask, and kept where there is a cache.

Laws:
- an answer is given when the registry has answered and the length is known, within `first_byte_s`; else the asker is
  sent on, and what was begun goes on for the next one;
- a manifest is handed out with its bytes verified; a blob as `passing` has it, or `flights`, which open it here;
- a registry that refused a repository (401, 403) is not asked for it again for a while: containerd goes there by
  itself, with a pull secret of its own, and must not wait for us each time.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from p2pmirror.errors import NotHere, StoreFull, Unreachable, UpstreamRefused
from p2pmirror.oci import Descriptor, Digest, TagName
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.intake import Intake, MeteredDownload
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.passing import Passage
from p2pmirror.resolve.refusals import Refusals
from p2pmirror.resolve.shared import Shared
from p2pmirror.resolve.want import Arriving, Content, InHand, Listing, Trail, Want
from p2pmirror.store.cache.protocol import Cache
from p2pmirror.upstream.protocol import Document, Download, Upstream
from p2pmirror.wire.http import Sink
from p2pmirror.wire.ranges import parse_range

_Value = TypeVar("_Value")


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
        *,
        intake: Intake | None = None,
    ) -> None:
        """Fetch from `upstream` into `cache`; without one, everything is passed on and nothing kept."""
        self._intake = intake or Intake()
        self.upstream = upstream
        self.options = options
        self._cache = cache
        self._hashing = hashing
        self._metrics = metrics
        self._passing: dict[Passage, float] = {}  # since when, by trio's clock
        self._documents: Shared[Digest, Document] = Shared()
        self._tags: Shared[TagName, Descriptor] = Shared()
        self._refusals = Refusals()

    def serves(self, want: Want) -> bool:
        """Whether the registry of a want may be asked for it: never for a peer, who asks for what is here."""
        return want.from_peer is None and self.upstream.is_through(want.registry)

    def passages(self) -> list[tuple[Passage, float]]:
        """Return what is passed on without being kept, and since when by trio's clock."""
        return list(self._passing.items())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch what is asked for until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._documents.run)
            await nursery.start(self._tags.run)
            task_status.started()
            await trio.sleep_forever()

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
        size = await self._size(want, digest)
        trail.source = "upstream"
        return Arriving(Content(digest, size, None), 0, size, _nothing, _close_nothing)

    async def passed(self, want: Want, digest: Digest, trail: Trail) -> Arriving:
        """Fetch a blob for this reader alone. Raises as `document`, and `Unsatisfiable` for a range beyond its end."""
        size = await self._size(want, digest)
        trail.source = "upstream"
        passage = self.passage(want, digest, size)
        pump = partial(self.pass_on, passage, passage.pump)
        return Arriving(Content(digest, size, None), passage.start, passage.end, pump, _close_nothing)

    def passage(self, want: Want, digest: Digest, size: int) -> Passage:
        """Return the way of a blob, or a range of it, from its registry to one reader."""
        start, end = span_of(want, size)
        name = f"{want.registry}/{want.repository}"
        return Passage(digest, name, size, start, end, partial(self.open, want, digest), self._hashing, self._metrics)

    async def pass_on(self, passage: Passage, pump: Callable[[Sink], Awaitable[None]], sink: Sink) -> None:
        """Pump, and let the passage be seen meanwhile."""
        self._passing[passage] = trio.current_time()
        try:
            await pump(sink)
        finally:
            del self._passing[passage]

    @asynccontextmanager
    async def open(self, want: Want, digest: Digest, start: int) -> AsyncIterator[Download]:
        """Open a blob at its registry. Raises as `document`; a registry that refuses is not asked again for a while."""
        self._refusals.check(want, trio.current_time())
        try:
            async with self.upstream.blob(want.registry, want.repository, digest, start=start) as download:
                yield MeteredDownload(download, self._intake.meter())
        except (NotHere, UpstreamRefused) as error:
            self._refusals.note(want, error, trio.current_time())
            raise

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


def span_of(want: Want, size: int) -> tuple[int, int]:
    """Return which bytes of a blob are wanted. Raises `Unsatisfiable`."""
    span = None if want.byte_range is None else parse_range(want.byte_range, size)
    return (0, size) if span is None else (span.offset, span.offset + span.count)


async def _nothing(_sink: Sink) -> None:
    """Pump nothing: the answer was for a HEAD."""


def _close_nothing() -> None:
    """Close nothing: what is passed on is opened by its pump."""
