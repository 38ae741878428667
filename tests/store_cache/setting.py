"""What the tests of the cache share: a cache in memory, a clock of the day that the test sets, and short ways in."""

from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2pmirror.oci import Digest, TagName, mediatype
from p2pmirror.store.cache import CacheHooks, CacheOptions, CacheStore
from p2pmirror.store.files import Files
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.store.protocol import TagInfo
from tests.store.images import Image

DIRECTORY = Path("/cache")
NAME = "registry.example/app"
START_S = 1_800_000_000.0  # the time of day at which the tests begin


@dataclass
class Day:
    """The time of day: it passes with trio's clock, and the test can set it."""

    set_s: float = START_S
    at: float = field(default_factory=trio.current_time)

    def __call__(self) -> float:
        return self.set_s + trio.current_time() - self.at

    def set_forward(self, seconds: float) -> None:
        self.set_s += seconds


def options(**changes: object) -> CacheOptions:
    """Return options for a small cache on a small disk."""
    return CacheOptions(**{"free_bytes_min": 0, "age_s_min": 0.0, **changes})  # type: ignore[arg-type]


def store_on(
    files: Files, directory: Path = DIRECTORY, *, hooks: CacheHooks | None = None, **changes: object
) -> CacheStore:
    """Make a store; it has not looked at its directory."""
    return CacheStore(directory, files, options(**changes), hooks)


async def looked(files: Files, **more: object) -> CacheStore:
    """Make a store that has looked at its directory once."""
    store = store_on(files, **more)  # type: ignore[arg-type]
    await store.look()
    return store


async def keep(
    store: CacheStore, data: bytes, name: str = NAME, media_type: str | None = mediatype.OCI_LAYER
) -> Digest:
    """Receive one blob in three parts and keep it."""
    digest = Digest.of(data)
    async with await store.receive(digest, len(data), media_type, name) as incoming:
        step = len(data) // 3 + 1
        for start in range(0, len(data), step):
            await incoming.write(data[start : start + step])
        assert await incoming.is_right()
        await incoming.keep()
    return digest


async def keep_image(store: CacheStore, image: Image) -> None:
    """Keep all of an image as a pull does, the layers first, and remember its tags."""
    (name,) = image.names or {NAME}
    documents = [digest for digest, (_, media_type) in image.content.items() if mediatype.describes(media_type)]
    for digest, (data, media_type) in image.content.items():
        if digest not in documents:
            await keep(store, data, name, media_type)
    for digest in documents:
        data, media_type = image.content[digest]
        await store.keep_document(digest, media_type, data, name)
    for tag in image.tags:
        await store.remember_tag(tag_info(tag, image))


def tag_info(name: TagName, image: Image, *, confirmed: bool = True) -> TagInfo:
    """Return what the tag stands for, confirmed now."""
    root = image.root
    return TagInfo(name, root.digest, root.media_type, root.size, trio.current_time(), confirmed)


def listed(store: CacheStore) -> set[Digest]:
    """Return the digests that are listed."""
    return {info.digest for info in store.inventory.blobs()}


async def content(store: CacheStore, digest: Digest) -> bytes:
    """Read a blob through the store."""
    with await store.open(digest) as blob:
        return await blob.file.read_at(0, blob.file.size)


def rests(files: MemoryFiles) -> list[str]:
    """Return the names of files that are being written or were left by a writer."""
    return sorted(path.name for path in files.entries if path.name.startswith(".incoming"))
