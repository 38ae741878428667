"""Content from the registries themselves, fetched once for all who ask, and kept where there is a cache.

Laws:
- an answer is given when the registry has answered and the length is known, within `first_byte_s`; else the asker is
  sent on, and what was begun goes on for the next one;
- what a tag names, and manifests, are asked for as `questions` has it; a blob comes as `passing` has it, or `flights`,
  which open it here;
- a registry that refused a repository (401, 403) is not asked for it again for a while: containerd goes there by
  itself, with a pull secret of its own, and must not wait for us each time.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import trio

from p2pmirror.errors import NotHere, Unreachable, UpstreamRefused
from p2pmirror.oci import Descriptor, Digest
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.intake import Intake, MeteredDownload
from p2pmirror.resolve.manifests import Manifests
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.passing import Passage
from p2pmirror.resolve.questions import QuestionOptions, Questions
from p2pmirror.resolve.refusals import Refusals
from p2pmirror.resolve.want import Arriving, Content, Listing, Trail, Want
from p2pmirror.store.cache.protocol import Cache
from p2pmirror.upstream.protocol import Download, Upstream
from p2pmirror.wire.http import Sink
from p2pmirror.wire.ranges import parse_range

_Value = TypeVar("_Value")


class Through:
    """Registries that are fetched from through this node."""

    def __init__(
        self,
        upstream: Upstream,
        cache: Cache | None,
        options: QuestionOptions,
        metrics: ResolveMetrics,
        hashing: Hashing,
        *,
        manifests: Manifests,
        intake: Intake | None = None,
    ) -> None:
        """Fetch from `upstream` into `cache`; without one, blobs are passed on, and `manifests` kept for a moment."""
        self._intake = intake or Intake()
        self.upstream = upstream
        self.options = options
        self.manifests = manifests
        self._hashing = hashing
        self._metrics = metrics
        self._passing: dict[Passage, float] = {}  # since when, by trio's clock
        self._refusals = Refusals()
        self.questions = Questions(upstream, cache, options, metrics, manifests=manifests, refusals=self._refusals)

    def serves(self, want: Want) -> bool:
        """Whether the registry of a want may be asked for it: never for a peer, who asks for what is here."""
        return want.from_peer is None and self.upstream.is_through(want.registry)

    def passages(self) -> list[tuple[Passage, float]]:
        """Return what is passed on without being kept, and since when by trio's clock."""
        return list(self._passing.items())

    async def told(self, want: Want, digest: Digest, trail: Trail) -> Arriving:
        """Ask for a blob's length alone. Raises `NotHere`, `UpstreamRefused`, `Unreachable`."""
        size = await self._size(want, digest)
        trail.source = "upstream"
        return Arriving(Content(digest, size, None), 0, size, _nothing, _close_nothing)

    async def passed(self, want: Want, digest: Digest, trail: Trail) -> Arriving:
        """Fetch a blob for this reader alone. Raises as `told`, and `Unsatisfiable` for a range beyond its end."""
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
        """Open a blob at its registry. Raises as `told`; a registry that refuses is not asked again for a while."""
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

    async def _size(self, want: Want, digest: Digest) -> int:
        self._refusals.check(want, trio.current_time())
        return await self.questions.in_time(
            want, partial(self.upstream.blob_size, want.registry, want.repository, digest)
        )


def span_of(want: Want, size: int) -> tuple[int, int]:
    """Return which bytes of a blob are wanted. Raises `Unsatisfiable`."""
    span = None if want.byte_range is None else parse_range(want.byte_range, size)
    return (0, size) if span is None else (span.offset, span.offset + span.count)


async def _nothing(_sink: Sink) -> None:
    """Pump nothing: the answer was for a HEAD."""


def _close_nothing() -> None:
    """Close nothing: what is passed on is opened by its pump."""
