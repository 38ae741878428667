"""Decides where the bytes of an answer come from: this node's store, else a peer, else the registry itself.

Laws: what is held is answered without asking anybody; a peer that asks is answered from what is held, or not at all;
an answer is given only when its source has answered and its length is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Descriptor, Digest, Invalid, media_type_of
from p2pmirror.peers.piecemap import PieceMap
from p2pmirror.peers.protocol import Follow
from p2pmirror.resolve.blobs import BlobParts, Blobs
from p2pmirror.resolve.confirmed import Confirmed
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.flights import Flights
from p2pmirror.resolve.giving import Giving
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.manifests import Manifests
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.protocol import Transfer
from p2pmirror.resolve.race import RaceOptions, Sources
from p2pmirror.resolve.sharing import Piece, next_piece, piece_map
from p2pmirror.resolve.tags import TagOptions, Tags
from p2pmirror.resolve.through import Through
from p2pmirror.resolve.turns import Turns
from p2pmirror.resolve.want import Arriving, Content, Found, Held, Listing, Trail, Want
from p2pmirror.store.protocol import Blob, Store
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.watched_file import WatchedFile


@dataclass(frozen=True, slots=True)
class ResolveOptions:
    """Settings of this room; `seed`: what peers want is fetched for them."""

    race: RaceOptions = field(default_factory=RaceOptions)
    tags: TagOptions = field(default_factory=TagOptions)
    seed: bool = False


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
        flights: Flights | None = None,
        confirmed: Confirmed | None = None,
    ) -> None:
        """Answer from `store`, else from `sources`, else by `through`, whose registries' words are `confirmed`."""
        self._own = sources.router.node_id
        self._seed = options.seed
        self._store = store
        self._metrics = metrics
        self._manifests = Manifests(sources) if through is None else through.manifests
        self._through = through
        self._flights = flights
        self._giving = Giving()
        self._turns = Turns()
        first_byte_s = 2.0 if through is None else through.options.first_byte_s
        self._blobs = Blobs(BlobParts(store, sources, through, flights, first_byte_s), metrics, hashing)
        self._tags = Tags(
            store.inventory, sources.router, options.tags, through=through, confirmed=confirmed, metrics=metrics
        )

    async def find(self, want: Want, trail: Trail) -> Found:
        """Find content; see `protocol.Resolver`."""
        if not isinstance(want.reference, Digest) and want.from_peer is not None and want.waits_s:
            return await self._for_waiting(want, trail)
        digest = want.reference if isinstance(want.reference, Digest) else await self._tags.resolve(want, trail)
        try:
            blob = await self._store.open(digest)
        except (NotHere, Unreachable):
            if want.from_peer is not None:
                return await self._for_peer(want, digest, trail)
        else:
            trail.source = blob.source
            return await _held(want, self._given(want, blob))
        return await (self._document if want.kind == "manifest" else self._blobs.find)(want, digest, trail)

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
        return self._blobs.transfers()

    async def flight_map(
        self, digest: Digest, asker: NodeId, *, since: int, wait_s: float, want: Want | None = None
    ) -> PieceMap:
        """Tell a peer what there is of a flight; see `protocol.Resolver`."""
        if want is not None and self._seed and self._store.inventory.blob(digest) is None:
            self._blobs.lead(want, digest)
        return await piece_map(self._flight(digest), self._own, asker, since=since, wait_s=wait_s)

    async def flight_piece(
        self, digest: Digest, asker: NodeId, *, first: int, lacks: bytes, wait_s: float, zone: str = ""
    ) -> Piece | None:
        """Give a peer a piece of a flight; see `protocol.Resolver`."""
        flight = self._flight(digest)
        return await next_piece(flight, self._turns, asker, first=first, lacks=lacks, wait_s=wait_s, zone=zone)

    def _flight(self, digest: Digest) -> Flight:
        flight = None if self._flights is None else self._flights.get(digest)
        if flight is None:
            raise NotHere(f"{digest} is not arriving here")
        return flight

    async def _for_waiting(self, want: Want, trail: Trail) -> Found:
        """Answer a peer that waits for what a tag names: that alone, and only while it is being asked here."""
        if self._through is None or not want.head:
            raise NotHere(f"{want.tag_name} is not being asked here")
        content = await self._through.questions.awaited_tag(want, trail, begins=self._seed)
        return Arriving(content, 0, content.size, _nothing, _close_nothing)

    async def _for_peer(self, want: Want, digest: Digest, trail: Trail) -> Found:
        """Answer a peer out of what is arriving here, or came a moment ago. Raises `NotHere`."""
        if want.kind == "manifest":
            recent = self._manifests.recent(digest, trio.current_time())
            if recent is not None:
                trail.source = "cache"
                return recent
            if self._through is not None and want.waits_s:
                return await self._through.questions.awaited_document(want, digest, trail, begins=self._seed)
        flight = self._flights.get(digest) if self._flights is not None and want.kind == "blob" else None
        if flight is None:
            raise NotHere(f"{digest} is not held here")
        found = self._blobs.for_peer(want, flight, trail)
        peer = self._only_to(want, found.content.size)
        return found if peer is None else replace(found, close=self._given_to(peer, digest))

    async def _document(self, want: Want, digest: Digest, trail: Trail) -> Found:
        """Find a manifest elsewhere."""
        through = self._through if self._through is not None and self._through.serves(want) else None
        began = trio.current_time()
        recent = self._manifests.recent(digest, began)
        if recent is not None:
            trail.source = "cache"
            return recent
        try:
            found = await self._manifests.fetch(want, digest, trail)
        except NotHere:
            self._metrics.missed.observe(trio.current_time() - began)
            if through is None:
                raise
        else:
            self._metrics.found.observe(trio.current_time() - began)
            return found
        return self._manifests.keep(await through.questions.document(want, digest, trail))

    def _given(self, want: Want, blob: Blob) -> Blob:
        """Return a held blob for whoever asks; a large one for one peer at a time. Raises `Follow`."""
        peer = self._only_to(want, blob.info.size)
        if peer is not None:
            try:
                blob.file = WatchedFile(blob.file, self._given_to(peer, blob.info.digest))
            except BaseException:
                blob.file.close()
                raise
        return blob

    def _given_to(self, peer: NodeId, digest: Digest) -> Callable[[], None]:
        """Return what is to be called once a large blob has gone to a peer. Raises `Follow`: it is to take pieces.

        What others take pieces of, or took with this node, is with them too, and would go out beside what they ask for.
        """
        flight = None if self._flights is None else self._flights.get(digest)
        if flight is not None and flight.goes_in_pieces_to(peer, trio.current_time()):
            raise Follow(f"{digest} is being given in pieces", self._own)
        return self._giving.begin(digest, peer)

    def _only_to(self, want: Want, size: int) -> NodeId | None:
        """Return the peer to whom alone a large blob goes now, since others can follow him; None: it is none."""
        is_large = self._flights is not None and size >= self._flights.sizes.whole_below_bytes
        return want.from_peer if want.follows and is_large and not want.head else None


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


async def _nothing(_sink: object) -> None:
    """Pump nothing: the answer was for a HEAD."""


def _close_nothing() -> None:
    """Close nothing: there is nothing open."""
