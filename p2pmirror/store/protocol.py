"""What every store offers: an inventory of what is held, and open files to serve it from.

Laws, which the conformance suite in `tests/store` holds every store to:
- the inventory names only content whose bytes are in hand, whole, with the size that it says;
- a blob that was opened stays readable until it is closed, whatever happens to the store meanwhile;
- a media type comes from the descriptor that names the content, never from a look at the bytes;
- the inventory has one writer, the store's own `run`; readers compare versions and never miss a change.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

import trio

from p2pmirror.oci import Descriptor, Digest, TagName
from p2pmirror.wire.network import File


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """One held blob or manifest.

    `media_type` is None when nothing that is held refers to it. `names` are the `registry/repository` names of the
    images that lead to it, as far as they are known: filters look at them before the blob is advertised.
    """

    digest: Digest
    size: int
    media_type: str | None = None
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TagInfo:
    """What a tag names here. `confirmed`: an upstream registry said so; otherwise it is a local name (`ctr tag`)."""

    name: TagName
    digest: Digest
    media_type: str
    size: int
    since: float  # trio's clock, seconds: when this node learnt it
    confirmed: bool = False


@dataclass(slots=True)
class Blob:
    """An open blob; closing it lets go of the file. Use it as a context manager, or hand its file on and forget it."""

    info: BlobInfo
    file: File
    source: Literal["store", "cache"] = "store"  # whether it is a runtime's content, or what this node fetched itself

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


class Inventory(Protocol):
    """What a store holds right now, to be read without waiting."""

    @property
    def version(self) -> int:
        """Grows with every change."""
        ...

    @property
    def walked(self) -> bool:
        """Whether the store has been walked once, so that what is not listed is not held."""
        ...

    def blob(self, digest: Digest) -> BlobInfo | None:
        """Return what is known of a held blob."""
        ...

    def tag(self, name: TagName) -> TagInfo | None:
        """Return what a tag names here."""
        ...

    def blobs(self) -> Iterable[BlobInfo]:
        """Every held blob. Do not await while iterating."""
        ...

    def tags(self) -> Iterable[TagInfo]:
        """Every held tag. Do not await while iterating."""
        ...

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Held manifests whose `subject` is this digest, with artifact type and annotations, sorted by digest."""
        ...

    async def changed(self, since: int) -> int:
        """Wait until `version` differs from `since`; return it. Cancellation leaves nothing behind."""
        ...


class Store(Protocol):
    """Content on this node."""

    @property
    def inventory(self) -> Inventory:
        """What is held."""
        ...

    @property
    def waiting_for(self) -> str | None:
        """Why the store cannot serve yet or any more, in plain words; None when all is well."""
        ...

    async def open(self, digest: Digest) -> Blob:
        """Open a blob or manifest, also one that came after the last walk. Raises `NotHere`, `Unreachable`."""
        ...

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the inventory true until cancelled; `started()` is called before the first walk has ended."""
        ...
