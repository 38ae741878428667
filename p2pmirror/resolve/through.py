"""Content from the registries themselves, asked for once for all who ask, and kept where there is a cache.

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

from p2pmirror.errors import NotHere, PeerMisbehaved, StoreFull, Unreachable, UpstreamRefused
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Descriptor, Digest, Invalid, manifest_path, mediatype
from p2pmirror.peers.protocol import Answer, Question
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.intake import Intake, MeteredDownload
from p2pmirror.resolve.manifests import Manifests
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.once import Inquiry, Once, Told
from p2pmirror.resolve.passing import Passage
from p2pmirror.resolve.refusals import Refusals
from p2pmirror.resolve.want import Arriving, Content, InHand, Listing, Trail, Want
from p2pmirror.routing.protocol import Provider, key_of, question_key_of
from p2pmirror.store.cache.protocol import Cache
from p2pmirror.upstream.protocol import Download, Upstream
from p2pmirror.wire.http import Sink
from p2pmirror.wire.ranges import parse_range

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class ThroughOptions:
    """`first_byte_s`: how long a registry may take to answer (setting `first_byte_timeout`).

    `share_tags`: what a registry says to one node that a tag names counts for all that ask at the same moment.
    """

    first_byte_s: float = 2.0
    share_tags: bool = True


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
        manifests: Manifests,
        intake: Intake | None = None,
    ) -> None:
        """Fetch from `upstream` into `cache`; without one, blobs are passed on, and `manifests` kept for a moment."""
        self._intake = intake or Intake()
        self.upstream = upstream
        self.options = options
        self.manifests = manifests
        self._cache = cache
        self._hashing = hashing
        self._metrics = metrics
        self._passing: dict[Passage, float] = {}  # since when, by trio's clock
        router, first_byte_s = manifests.sources.router, options.first_byte_s
        count = metrics.question
        self._documents: Once[InHand] = Once(
            router, patience_s=first_byte_s, is_kept=True, count=partial(count, "manifest")
        )
        self._tags: Once[Descriptor] = Once(router, patience_s=first_byte_s, is_kept=False, count=partial(count, "tag"))
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
        inquiry = Inquiry(
            want.tag_name,
            question_key_of(want.tag_name),
            partial(self.upstream.resolve, want.registry, want.repository, want.tag_name.tag),
            partial(self._tag_of_peer, want),
        )
        told = await self._once(want, self._tags, inquiry, trail, is_shared=self.options.share_tags)
        return told.value

    async def document(self, want: Want, digest: Digest, trail: Trail) -> InHand:
        """Fetch a manifest and keep it. Raises `NotHere`, `UpstreamRefused`, `Unreachable`."""
        inquiry = Inquiry(
            _document_subject(want, digest),
            key_of(digest),
            partial(self._fetch_document, want, digest),
            partial(self.manifests.of_peer, want, digest),
        )
        told = await self._once(want, self._documents, inquiry, trail)
        trail.source = "upstream" if told.by is None else "peer"
        trail.peers.extend([] if told.by is None else [told.by])
        return told.value

    async def awaited_tag(self, want: Want, trail: Trail) -> Arriving:
        """Tell a peer what this node is told that a tag names, as soon as it is. Raises as `Once.awaited`."""
        said = await self._tags.awaited(want.tag_name, want.waits_s)
        trail.source = "flight"
        content = Content(said.digest, said.size, said.media_type)
        return Arriving(content, 0, said.size, _nothing, _close_nothing)

    async def awaited_document(self, want: Want, digest: Digest, trail: Trail) -> InHand:
        """Give a peer the manifest that this node is fetching, as soon as it is here. Raises as `Once.awaited`."""
        found = await self._documents.awaited(_document_subject(want, digest), want.waits_s)
        trail.source = "flight"
        return found

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

    async def _once(
        self, want: Want, once: Once[_Value], inquiry: Inquiry[_Value], trail: Trail, *, is_shared: bool = True
    ) -> Told[_Value]:
        """Have a question asked, by this node or another."""
        began = trio.current_time()
        self._refusals.check(want, began)
        trail.attempts += 1
        try:
            found = await once.settled(inquiry) if is_shared else once.alone(inquiry)
        except (NotHere, UpstreamRefused) as error:
            self._refusals.note(want, error, trio.current_time())
            raise
        if isinstance(found, Told):
            return found
        first_byte_s = self.options.first_byte_s
        left_s = max(began + first_byte_s - trio.current_time(), first_byte_s / 2)
        return Told(await self._in_time(want, found.outcome, left_s), None)

    async def _tag_of_peer(self, want: Want, provider: Provider, wait_s: float) -> Descriptor:
        """Ask a node what it is told that a tag names; see `once.Inquiry`."""
        question = Question(manifest_path(want.repository, want.tag_name.tag), want.registry, "HEAD", waits_s=wait_s)
        answer = await self.manifests.sources.waited_for(provider, question)
        answer.close()
        return _told_descriptor(answer)

    async def _fetch_document(self, want: Want, digest: Digest) -> InHand:
        document = await self.upstream.document(want.registry, want.repository, digest)
        if self._cache is not None:
            try:
                name = f"{want.registry}/{want.repository}"
                await self._cache.keep_document(digest, document.media_type, document.data, name)
            except StoreFull:
                pass  # it is handed out all the same
        return self.manifests.keep(InHand(Content(digest, len(document.data), document.media_type), document.data))

    async def _size(self, want: Want, digest: Digest) -> int:
        self._refusals.check(want, trio.current_time())
        return await self._in_time(want, partial(self.upstream.blob_size, want.registry, want.repository, digest))

    async def _in_time(self, want: Want, ask: Callable[[], Awaitable[_Value]], limit_s: float | None = None) -> _Value:
        """Ask within `limit_s` (`first_byte_s`); raises `Unreachable` when it takes longer.

        Only who has waited for longer than half of `first_byte_s` says that the registry keeps its askers waiting.
        """
        first_byte_s = self.options.first_byte_s
        limit_s = first_byte_s if limit_s is None else limit_s
        try:
            with trio.fail_after(limit_s):
                return await ask()
        except trio.TooSlowError:
            if limit_s > first_byte_s / 2:
                self.upstream.late(want.registry)
            raise Unreachable(f"{want.registry} does not answer within {limit_s:.1f} s") from None
        except (NotHere, UpstreamRefused) as error:
            self._refusals.note(want, error, trio.current_time())
            raise


def _document_subject(want: Want, digest: Digest) -> tuple[str, str, Digest]:
    """Return what is the same for all who share a registry's answer: another repository may refuse the same digest."""
    return want.registry, want.repository, digest


def _told_descriptor(answer: Answer) -> Descriptor:
    """Return what a node says that a tag names. Raises `PeerMisbehaved` when that is no manifest."""
    try:
        digest = Digest.parse(answer.digest or "")
    except Invalid as error:
        raise PeerMisbehaved(f"a tag that names no digest: {error}") from None
    media_type = answer.media_type or ""
    if not mediatype.describes(media_type) or not 0 < answer.size <= DOCUMENT_BYTES_MAX:
        raise PeerMisbehaved("a tag that names no manifest")
    return Descriptor(media_type, digest, answer.size)


def span_of(want: Want, size: int) -> tuple[int, int]:
    """Return which bytes of a blob are wanted. Raises `Unsatisfiable`."""
    span = None if want.byte_range is None else parse_range(want.byte_range, size)
    return (0, size) if span is None else (span.offset, span.offset + span.count)


async def _nothing(_sink: Sink) -> None:
    """Pump nothing: the answer was for a HEAD."""


def _close_nothing() -> None:
    """Close nothing: what is passed on is opened by its pump."""
