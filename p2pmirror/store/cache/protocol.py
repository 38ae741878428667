"""What whoever fetches needs of a cache: somewhere to put what comes, read it while it grows, and keep it when right.

Laws:
- nothing is kept, listed or opened as a blob before all of its bytes were hashed and had the right digest;
- what is being received may be read up to `written` by anybody who holds a reader, also after it was kept, discarded
  or wiped by somebody else;
- whoever cannot write (full, read-only, wiped away) raises `StoreFull`, and its caller goes on without keeping;
- what an earlier try has left counts for nothing until it was hashed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from p2pmirror.oci import Digest, Hasher, TagName
from p2pmirror.store.protocol import Store, TagInfo
from p2pmirror.wire.network import File


@dataclass(frozen=True, slots=True)
class Left:
    """What an earlier try has left in a file, as it says itself.

    `prefixes`: the ends of beginnings that are there, `pieces`: where single ones begin; both in order.
    """

    prefixes: tuple[int, ...] = ()
    pieces: tuple[int, ...] = ()


class Incoming(Protocol):
    """One blob that is being received, from its first byte to its last. `async with`: discarded unless it was kept."""

    @property
    def size(self) -> int:
        """How long it will be."""
        ...

    @property
    def written(self) -> int:
        """How many bytes are in the file and may be read."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write and hash the next bytes. Raises `StoreFull`; ValueError beyond `size`."""
        ...

    async def put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes out of their turn: they are `written` once `catch_up` has passed them.

        Raises `StoreFull`; ValueError beyond `size`, and before `written`.
        """
        ...

    async def catch_up(self, end: int) -> None:
        """Hash what was put between `written` and `end`, which is then `written`. Raises `StoreFull`, `Unreachable`."""
        ...

    @property
    def left(self) -> Left:
        """What an earlier try has left, and nobody has hashed again."""
        ...

    async def prove_to(self, end: int) -> bool:
        """Hash what was left between `written` and this end of a prefix, which is then `written` if it is right.

        Raises `Unreachable`. Nobody writes there meanwhile.
        """
        ...

    async def prove_piece(self, offset: int) -> bytes | None:
        """Hash a piece that was left, and return its sha256; None when it is wrong. Raises `Unreachable`."""
        ...

    async def note(self, offset: int, found: bytes) -> None:
        """Note the sha256 of a piece that was put, for a later try. Cancelled, it may or may not be noted."""
        ...

    async def leave(self) -> None:
        """Close it and leave it to a later try, where there is anything to go on with; else it is discarded."""
        ...

    async def feed(self, hasher: Hasher, offset: int, count: int) -> None:
        """Read a part back and feed it to `hasher`, which is not the blob's. Raises `Unreachable`."""
        ...

    async def reader(self) -> File:
        """Open it for reading: `size` is the whole length, of which the first `written` bytes are there."""
        ...

    async def is_right(self) -> bool:
        """Whether all bytes are there and have the digest that they were announced with."""
        ...

    async def keep(self) -> None:
        """Put it on the disk and list it. Raises `StoreFull`; ValueError unless it `is_right`."""
        ...


class Receives(Protocol):
    """Somewhere for a blob to arrive."""

    async def receive(
        self, digest: Digest, size: int, media_type: str | None, name: str, *, piece_bytes: int = 0
    ) -> Incoming:
        """Reserve room for a blob that is about to come, for the image `registry/repository` of this `name`.

        `piece_bytes`: it goes on with what an earlier try has left, and may itself be left to a later one, in pieces
        of this length. Raises `StoreFull` when there is no room even after all that may go has gone.
        """
        ...

    async def resumes_at(self, digest: Digest, piece_bytes_of: Callable[[int], int]) -> int:
        """Return the first byte that an earlier try has not left, as it says itself; the last one where it has all.

        `piece_bytes_of` says how long the pieces of a blob of a size are; what was cut in another way does not count.
        """
        ...


class Cache(Store, Receives, Protocol):
    """A store that can be written to."""

    async def keep_document(self, digest: Digest, media_type: str, data: bytes, name: str) -> None:
        """Keep a manifest or an index. Raises `StoreFull`; ValueError when `data` has another digest."""
        ...

    async def remember_tag(self, tag: TagInfo) -> None:
        """Remember what a tag names, also after a restart. Raises `StoreFull`."""
        ...

    async def forget_tag(self, name: TagName) -> None:
        """Forget a tag: its registry says that it is gone. What it named stays until it is evicted."""
        ...
