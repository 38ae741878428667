"""What registries are asked for the whole cluster, by one of its nodes: what a tag names, and manifests by digest.

Laws:
- an answer is given within `first_byte_s`; after another node was followed in vain within half as long again;
- a manifest is handed out with its bytes verified, and kept before its question ends, so that whoever asks then has it;
- what another node says that a tag names is believed, as what its registry says, where tags are shared;
- a peer that waits causes no question, but at a seed, which it was sent to because a seed is to ask.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import trio

from p2pmirror.errors import NotHere, PeerMisbehaved, StoreFull, Unreachable, UpstreamRefused
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Descriptor, Digest, Invalid, TagName, manifest_path, mediatype
from p2pmirror.peers.protocol import Answer, Question, RegistrySaid
from p2pmirror.resolve.manifests import Manifests
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.once import Inquiry, Once, Told
from p2pmirror.resolve.refusals import Refusals
from p2pmirror.resolve.want import Content, InHand, Trail, Want
from p2pmirror.routing.protocol import Provider, key_of, question_key_of
from p2pmirror.store.cache.protocol import Cache
from p2pmirror.upstream.protocol import Upstream

SHARE_LEFT: Final = 0.5  # of `first_byte_s`, for this node's own question after others were followed in vain

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """`first_byte_s`: how long a registry may take to answer (setting `first_byte_timeout`).

    `share_tags`: what a registry says to one node that a tag names counts for all that ask at the same moment.
    """

    first_byte_s: float = 2.0
    share_tags: bool = True


class Questions:
    """Asks registries, or the nodes that are asking them."""

    def __init__(
        self,
        upstream: Upstream,
        cache: Cache | None,
        options: QuestionOptions,
        metrics: ResolveMetrics,
        *,
        manifests: Manifests,
        refusals: Refusals,
    ) -> None:
        """Ask `upstream`; keep manifests in `cache`, and for a moment in `manifests`."""
        self._upstream = upstream
        self._cache = cache
        self._options = options
        self._manifests = manifests
        self._refusals = refusals
        router, patience_s = manifests.sources.router, options.first_byte_s
        count = metrics.question
        self._documents: Once[InHand] = Once(
            router, patience_s=patience_s, is_kept=True, count=partial(count, "manifest")
        )
        self._tags: Once[Descriptor] = Once(router, patience_s=patience_s, is_kept=False, count=partial(count, "tag"))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._documents.run)
            await nursery.start(self._tags.run)
            task_status.started()
            await trio.sleep_forever()

    async def tag(self, want: Want, trail: Trail) -> Descriptor:
        """Return what a tag names now. Raises as `document`."""
        inquiry = self._about_tag(want, want.tag_name)
        return (await self._once(want, self._tags, inquiry, trail, is_shared=self._options.share_tags)).value

    async def document(self, want: Want, digest: Digest, trail: Trail) -> InHand:
        """Return a manifest. Raises `NotHere`, `UpstreamRefused`, `Unreachable`.

        Cancellation: what was begun goes on.
        """
        told = await self._once(want, self._documents, self._about_document(want, digest), trail)
        trail.source = "upstream" if told.by is None else "peer"
        trail.peers.extend([] if told.by is None else [told.by])
        return told.value

    async def awaited_tag(self, want: Want, trail: Trail, *, begins: bool) -> Content:
        """Tell a peer what this node is told that a tag names, as soon as it is; `begins`: it is asked for that.

        Raises as `Once.awaited`.
        """
        said = await self._awaited(want, self._tags, self._about_tag(want, want.tag_name), begins=begins)
        trail.source = "flight"
        return Content(said.digest, said.size, said.media_type)

    async def awaited_document(self, want: Want, digest: Digest, trail: Trail, *, begins: bool) -> InHand:
        """Give a peer the manifest that this node is fetching, as soon as it is here; see `awaited_tag`."""
        found = await self._awaited(want, self._documents, self._about_document(want, digest), begins=begins)
        trail.source = "flight"
        return found

    async def in_time(self, want: Want, ask: Callable[[], Awaitable[_Value]], limit_s: float | None = None) -> _Value:
        """Ask within `limit_s` (`first_byte_s`); raises `Unreachable` when it takes longer.

        Only who has waited for longer than his share at the end says that the registry keeps its askers waiting.
        """
        first_byte_s = self._options.first_byte_s
        limit_s = first_byte_s if limit_s is None else limit_s
        try:
            with trio.fail_after(limit_s):
                return await self._noted(want, ask)
        except trio.TooSlowError:
            if limit_s > SHARE_LEFT * first_byte_s:
                self._upstream.late(want.registry)
            raise Unreachable(f"{want.registry} does not answer within {limit_s:.1f} s") from None

    async def _once(
        self, want: Want, once: Once[_Value], inquiry: Inquiry[_Value], trail: Trail, *, is_shared: bool = True
    ) -> Told[_Value]:
        """Have a question asked, by this node or another."""
        began, first_byte_s = trio.current_time(), self._options.first_byte_s
        self._refusals.check(want, began)
        trail.attempts += 1
        settled = partial(once.settled, inquiry)
        found = await self._noted(want, settled) if is_shared else once.alone(inquiry)
        if isinstance(found, Told):
            return found
        left_s = max(began + first_byte_s - trio.current_time(), SHARE_LEFT * first_byte_s)
        return Told(await self.in_time(want, found.outcome, left_s), None)

    async def _awaited(self, want: Want, once: Once[_Value], inquiry: Inquiry[_Value], *, begins: bool) -> _Value:
        if begins and self._upstream.is_through(want.registry):
            try:
                self._refusals.check(want, trio.current_time())
            except NotHere as error:
                raise RegistrySaid(str(error), 404) from None
            except UpstreamRefused as error:
                raise RegistrySaid(str(error), error.status) from None
            once.begin(inquiry)
        return await once.awaited(inquiry.subject, want.waits_s)

    async def _noted(self, want: Want, ask: Callable[[], Awaitable[_Value]]) -> _Value:
        """Ask, and remember a refusal."""
        try:
            return await ask()
        except (NotHere, UpstreamRefused) as error:
            self._refusals.note(want, error, trio.current_time())
            raise

    def _about_tag(self, want: Want, name: TagName) -> Inquiry[Descriptor]:
        ask = partial(self._upstream.resolve, name.registry, name.repository, name.tag)
        return Inquiry(name, question_key_of(name), partial(self._noted, want, ask), partial(self._tag_of_peer, name))

    def _about_document(self, want: Want, digest: Digest) -> Inquiry[InHand]:
        """Another repository is another question: it may be refused where this one is not."""
        subject = (want.registry, want.repository, digest)
        ask = partial(self._noted, want, partial(self._fetch, want, digest))
        return Inquiry(subject, key_of(digest), ask, partial(self._manifests.of_peer, want, digest))

    async def _fetch(self, want: Want, digest: Digest) -> InHand:
        document = await self._upstream.document(want.registry, want.repository, digest)
        if self._cache is not None:
            try:
                name = f"{want.registry}/{want.repository}"
                await self._cache.keep_document(digest, document.media_type, document.data, name)
            except StoreFull:
                pass  # it is handed out all the same
        return self._manifests.keep(InHand(Content(digest, len(document.data), document.media_type), document.data))

    async def _tag_of_peer(self, name: TagName, provider: Provider, wait_s: float) -> Descriptor:
        """Ask a node what it is told that a tag names; see `once.Inquiry`."""
        path = manifest_path(name.repository, name.tag)
        question = Question(path, name.registry, "HEAD", waits_s=wait_s)
        answer = await self._manifests.sources.waited_for(provider, question)
        answer.close()
        return _described(answer)


def _described(answer: Answer) -> Descriptor:
    """Return what a node says that a tag names. Raises `PeerMisbehaved` when that is no manifest."""
    try:
        digest = Digest.parse(answer.digest or "")
    except Invalid as error:
        raise PeerMisbehaved(f"a tag that names no digest: {error}") from None
    media_type = answer.media_type or ""
    if not mediatype.describes(media_type) or not 0 < answer.size <= DOCUMENT_BYTES_MAX:
        raise PeerMisbehaved("a tag that names no manifest")
    return Descriptor(media_type, digest, answer.size)
