"""What the front asks of whoever decides where bytes come from."""

from dataclasses import dataclass
from typing import Protocol

from p2pmirror.oci import Descriptor, Digest
from p2pmirror.resolve.want import Found, Trail, Want
from p2pmirror.wire.identity import NodeId


@dataclass(frozen=True, slots=True)
class Transfer:
    """A response that is being relayed right now, for the status page."""

    digest: Digest
    name: str
    size: int
    sent_bytes: int
    peer: NodeId | None  # whose bytes are coming
    resumes: int
    seconds: float  # since it began


class Resolver(Protocol):
    """Finds content: on this node, else at a peer."""

    async def find(self, want: Want, trail: Trail) -> Found:
        """Return an answer whose source has answered and whose length is known; writes what happened into `trail`.

        Raises `NotHere` when nobody can help, within 1 s; `oci.Invalid` never: the want was checked by the front.
        Cancellation closes what had been opened.
        """
        ...

    def tags(self, registry: str, repository: str) -> list[str]:
        """Return the tags of a repository that are held here and may be served, sorted; empty when there are none."""
        ...

    def referrers(self, registry: str, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """Return the held manifests that refer to `subject`, sorted by digest."""
        ...

    def transfers(self) -> list[Transfer]:
        """Return what is being relayed right now, oldest first."""
        ...
