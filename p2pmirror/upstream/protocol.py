"""What it means to ask a real registry: one question each, and a blob whose bytes are read as they come.

Laws:
- a registry is asked at the address that its settings give, never at one that a request names;
- what comes back is what the registry says, of the size that it says; nobody has checked a digest yet, but for a
  document asked for by its digest;
- `NotHere` is the registry's own 404; another refusal is `UpstreamRefused`; silence and cuts are `Unreachable`.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from p2pmirror.oci import Descriptor, Digest


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index: its bytes, verified against `digest`, and its media type, checked against them."""

    digest: Digest
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """How this node stands with one registry: for the status page. `is_asked`: since the agent started."""

    name: str
    mode: Literal["through", "peers"]
    is_asked: bool = False
    is_reachable: bool = True  # whether the last question had an answer of its own; True before the first
    rests_s: float = 0.0  # for how long nothing will be asked, because it failed or wishes so
    quota_left: int | None = None  # pulls, as it said last; None: it does not say


class Download(Protocol):
    """A blob that is being read from a registry; it goes on by itself, from the next byte, when a connection breaks."""

    @property
    def size(self) -> int:
        """Length of the whole blob in bytes, wherever the download starts."""
        ...

    async def receive(self) -> bytes:
        """Return the next bytes, b"" after the last. Raises `Unreachable`, `UpstreamRefused` when it cannot go on.

        Never more than the announced length: a body that ends early or goes on is `Unreachable`.
        """
        ...


class Upstream(Protocol):
    """All registries that this node may fetch from. Names are canonical (`docker.io`, `library/nginx`).

    Each method raises `NotHere` (404, or a registry that is not fetched from), `UpstreamRefused` (any other status of
    400 and above; 502 for an answer that is none), `Unreachable` (no connection, no answer in time, cut off).
    Cancellation drops the connection. The caller sets deadlines.
    """

    def is_through(self, registry: str) -> bool:
        """Whether the registry is fetched through this node, and not only from peers."""
        ...

    def is_reachable(self, registry: str) -> bool:
        """Whether the last question to the registry had an answer of its own; True before the first."""
        ...

    def late(self, registry: str) -> None:
        """Take in that an asker has given up waiting, so that the next ones need not wait for as long."""
        ...

    async def resolve(self, registry: str, repository: str, tag: str) -> Descriptor:
        """Ask what a tag names now: by HEAD, which costs no quota."""
        ...

    async def document(self, registry: str, repository: str, digest: Digest) -> Document:
        """Fetch a manifest or an index by its digest."""
        ...

    async def blob_size(self, registry: str, repository: str, digest: Digest) -> int:
        """Ask how long a blob is."""
        ...

    def blob(
        self, registry: str, repository: str, digest: Digest, *, start: int = 0
    ) -> AbstractAsyncContextManager[Download]:
        """Open a blob from byte `start` on; entered once its length is known."""
        ...

    async def tags(self, registry: str, repository: str) -> list[str]:
        """Return all tags of a repository, page after page, up to a limit."""
        ...

    async def referrers(self, registry: str, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to a manifest; by the referrers tag where the registry has no such endpoint."""
        ...
