"""Decides where the bytes of an answer come from: this node's store, else a peer, else the registry itself.

Laws: what is held is answered without asking anybody; a peer that asks is answered from what is held, or not at all;
an answer is given only when its source has answered and its length is known.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Descriptor, Digest, Invalid, blob_path, media_type_of
from p2pmirror.peers.protocol import Answer, Question
from p2pmirror.resolve.confirmed import Confirmed
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.manifests import Manifests
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.protocol import Transfer
from p2pmirror.resolve.race import RaceOptions, Sources, Won
from p2pmirror.resolve.relay import Relay
from p2pmirror.resolve.small import SMALL_BYTES_MAX, read_small
from p2pmirror.resolve.tags import TagOptions, Tags
from p2pmirror.resolve.through import Through
from p2pmirror.resolve.want import Arriving, Content, Found, Held, InHand, Listing, Trail, Want
from p2pmirror.store.protocol import Blob, Store
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.ranges import parse_range


@dataclass(frozen=True, slots=True)
class ResolveOptions:
    """Settings of this room."""

    race: RaceOptions = field(default_factory=RaceOptions)
    tags: TagOptions = field(default_factory=TagOptions)


class MirrorResolver:
    """The `Resolver` of a node; see the protocol."""

    def __init__(
        self,
        store: Store,
        sources: Sources,
        options: ResolveOptions,
        metrics: ResolveMetrics,
        hashing: Hashing,
        *,
        through: Through | None = None,
        confirmed: Confirmed | None = None,
    ) -> None:
        """Answer from `store`, else from `sources`, else by `through`, whose registries' words are `confirmed`."""
        self._store = store
        self._sources = sources
        self._metrics = metrics
        self._hashing = hashing
        self._manifests = Manifests(sources)
        self._through = through
        self._tags = Tags(
            store.inventory, sources.router, options.tags, through=through, confirmed=confirmed, metrics=metrics
        )
        self._relays: dict[Relay, Want] = {}

    async def find(self, want: Want, trail: Trail) -> Found:
        """Find content; see `protocol.Resolver`."""
        digest = want.reference if isinstance(want.reference, Digest) else await self._tags.resolve(want, trail)
        try:
            blob = await self._store.open(digest)
        except (NotHere, Unreachable):
            if want.from_peer is not None:
                raise NotHere(f"{digest} is not held here") from None
        else:
            trail.source = blob.source
            return await _held(want, blob)
        through = self._through if self._through is not None and self._through.serves(want) else None
        if through is not None and want.kind == "blob" and not want.head and through.is_arriving(digest):
            return await through.blob(want, digest, trail)
        began = trio.current_time()
        try:
            found = await self._from_peers(want, digest, trail)
        except NotHere:
            self._metrics.missed.observe(trio.current_time() - began)
            if through is None:
                raise
        else:
            self._metrics.found.observe(trio.current_time() - began)
            return found
        return await self._from_registry(through, want, digest, trail)

    async def tags(self, listing: Listing, trail: Trail) -> list[str]:
        """List tags; see `protocol.Resolver`."""
        if self._through is not None and (listed := await self._through.tags(listing)) is not None:
            trail.source = "upstream"
            return listed
        trail.source = "store"
        names = (each.name for each in self._store.inventory.tags())
        ours = (listing.registry, listing.repository)
        return sorted(name.tag for name in names if (name.registry, name.repository) == ours)

    async def referrers(self, listing: Listing, subject: Digest, trail: Trail) -> tuple[Descriptor, ...]:
        """List referrers; those held are of whatever repository, as content of the subject; see `protocol.Resolver`."""
        if self._through is not None and (listed := await self._through.referrers(listing, subject)) is not None:
            trail.source = "upstream"
            return listed
        trail.source = "store"
        held = self._store.inventory.referrers(subject)
        if not held:
            (await self._store.open(subject)).file.close()  # an empty list says that there are none: who holds it knows
        return held

    def transfers(self) -> list[Transfer]:
        """List what is being relayed or arrives; see `protocol.Resolver`."""
        now = trio.current_time()
        fetched = [] if self._through is None else self._through.transfers(now)
        return fetched + [
            Transfer(
                digest=relay.content.digest,
                name=want.name,
                size=relay.content.size,
                sent_bytes=relay.position,
                peer=relay.peer,
                resumes=relay.trail.resumes,
                seconds=now - relay.began,
            )
            for relay, want in self._relays.items()
        ]

    async def _from_registry(self, through: Through, want: Want, digest: Digest, trail: Trail) -> Found:
        if want.kind == "manifest":
            return self._manifests.keep(await through.document(want, digest, trail))
        return await (through.told if want.head else through.blob)(want, digest, trail)

    async def _from_peers(self, want: Want, digest: Digest, trail: Trail) -> Found:
        if want.kind == "manifest":
            recent = self._manifests.recent(digest, trio.current_time())
            if recent is not None:
                trail.source = "cache"
                return recent
            return await self._manifests.fetch(want, digest, trail)
        if want.head:
            return await self._told(want, digest, trail)
        return await self._blob(want, digest, trail)

    async def _told(self, want: Want, digest: Digest, trail: Trail) -> Arriving:
        """Return what a peer says of a blob, without bytes."""
        question = Question(blob_path(want.repository, digest), want.registry, "HEAD")
        won = await self._sources.first(digest, question, trail)
        content = _content(digest, won.answer)
        won.answer.close()
        trail.source = "peer"
        trail.peers.append(won.provider.node_id)
        return Arriving(content, 0, content.size, _nothing, _close_nothing)

    async def _blob(self, want: Want, digest: Digest, trail: Trail) -> InHand | Arriving:
        """Open the blob at a peer, from the byte that the client wants; a small one is read and verified at once."""
        span = None
        if want.byte_range is not None:
            told = await self._told(want, digest, Trail())
            span = parse_range(want.byte_range, told.content.size)
        start = 0 if span is None else span.offset
        question = Question(blob_path(want.repository, digest), want.registry, offset=start)
        won = await self._sources.first(digest, question, trail)
        trail.source = "peer"
        if start == 0 and won.answer.size <= SMALL_BYTES_MAX:
            read = await read_small(won, digest, question, sources=self._sources, trail=trail, metrics=self._metrics)
            if isinstance(read, InHand):
                return read
            won = read
        try:
            end = _end(want, start, won.answer)
        except BaseException:
            won.answer.close()
            raise
        return self._relay(want, question, won, start=start, end=end, content=_content(digest, won.answer), trail=trail)

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


def _end(want: Want, start: int, answer: Answer) -> int:
    """Return where the wanted part ends; raises `NotHere` when peers do not agree on where it begins."""
    span = None if want.byte_range is None else parse_range(want.byte_range, answer.size)
    if span is None:
        return answer.size
    if span.offset != start:
        raise NotHere("peers do not agree on the length")
    return span.offset + span.count


async def _held(want: Want, blob: Blob) -> Held:
    """Return an open blob as an answer; a manifest that nothing names is read for the type that it declares."""
    media_type = blob.info.media_type
    if media_type is None and want.kind == "manifest" and blob.info.size <= DOCUMENT_BYTES_MAX:
        try:
            media_type = media_type_of(await blob.file.read_at(0, blob.info.size), None)
        except Invalid:
            media_type = None
        except BaseException:
            blob.file.close()
            raise
    return Held(Content(blob.info.digest, blob.info.size, media_type), blob.file)


def _content(digest: Digest, answer: Answer) -> Content:
    return Content(digest, answer.size, answer.media_type)


async def _nothing(_sink: object) -> None:
    """Pump nothing: the answer was for a HEAD."""


def _close_nothing() -> None:
    """Close nothing: the answer was for a HEAD."""
