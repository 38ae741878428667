"""What the front asks of whoever decides where bytes come from."""

from dataclasses import dataclass
from typing import Protocol

from p2pmirror.oci import Descriptor, Digest
from p2pmirror.peers.piecemap import PieceMap
from p2pmirror.resolve.sharing import Piece
from p2pmirror.resolve.want import Found, Listing, Trail, Want
from p2pmirror.wire.identity import NodeId


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose bytes are in a transfer, and how many: a peer's, or a registry's, by its name."""

    peer: NodeId | None
    count: int
    registry: str = ""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A response that is being relayed, or a blob that is arriving, right now: for the status page."""

    digest: Digest
    name: str
    size: int
    sent_bytes: int
    peer: NodeId | None  # whose bytes are coming; None: the registry's
    resumes: int
    seconds: float  # since it began
    registry: str = ""  # the name of the registry whose bytes are coming; empty: a peer's
    origins: tuple[Origin, ...] = ()  # all whose bytes have come, most of them first
    readers: int = 1  # who is being sent it here
    followers: int = 0  # nodes that take it from here while it arrives


class Resolver(Protocol):
    """Finds content: on this node, else at a peer."""

    async def find(self, want: Want, trail: Trail) -> Found:
        """Return an answer whose source has answered and whose length is known; writes what happened into `trail`.

        Raises `NotHere` when nobody can help, within 1 s; `oci.Invalid` never: the want was checked by the front.
        Cancellation closes what had been opened.
        """
        ...

    async def tags(self, listing: Listing, trail: Trail) -> list[str]:
        """Return the tags of a repository, sorted: as its registry has them, else those held here; empty for none."""
        ...

    async def referrers(self, listing: Listing, subject: Digest, trail: Trail) -> tuple[Descriptor, ...]:
        """Return the manifests that refer to `subject`, sorted by digest: as its registry has them, else those held.

        Raises `NotHere` when neither the registry answers nor the subject or a referrer is held here.
        """
        ...

    async def flight_map(
        self, digest: Digest, asker: NodeId, *, since: int, wait_s: float, want: Want | None = None
    ) -> PieceMap:
        """Return what there is of a blob that is arriving, once that differs from `since`, or after `wait_s`.

        A node that is a seed begins to fetch what is not here, as `want` says; None: not for this image. Raises
        `NotHere` when it is not arriving (any more).
        """
        ...

    async def flight_piece(
        self, digest: Digest, asker: NodeId, *, first: int, lacks: bytes, wait_s: float, zone: str = ""
    ) -> Piece | None:
        """Return a piece for a peer of a zone, who lacks these from `first` on.

        None when there is none within `wait_s`. Raises `NotHere` when it is not arriving here, or not for others. What
        is returned is to be ended.
        """
        ...

    def transfers(self) -> list[Transfer]:
        """Return what is being relayed or is arriving right now, oldest first."""
        ...
