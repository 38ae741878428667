"""Bringing the images of an archive into a cache.

Laws: all of an archive or nothing; what was there before stays as it was; content is hashed once more on its way in.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from p2pmirror.errors import StoreFull
from p2pmirror.oci import Descriptor, Digest, TagName
from p2pmirror.operations.archive import Archive, BadArchive, Member, Progress
from p2pmirror.operations.images import ArchivedImage, images_in, named
from p2pmirror.operations.layouts import LayoutDirectory
from p2pmirror.operations.tars import TarArchive
from p2pmirror.store.cache import CacheStore
from p2pmirror.store.protocol import TagInfo

UNDO_S: Final = 10.0  # to remove what was added before something went wrong


@dataclass(frozen=True, slots=True)
class Added:
    """What an archive brought: its images, and how much of it was new."""

    images: tuple[ArchivedImage, ...]
    new: frozenset[Digest]
    new_bytes: int


def open_archive(path: Path) -> Archive:
    """Open a tar file or a layout directory. Raises `BadArchive`."""
    return LayoutDirectory(path) if path.is_dir() else TarArchive(path)


async def add(
    store: CacheStore, path: Path, *, name: TagName | None, pin: bool, reading: Progress, writing: Progress
) -> Added:
    """Bring an archive into a cache that was looked at. Raises `BadArchive`, `StoreFull`; nothing was kept then.

    `name` replaces the names of its only image; `pin` keeps its images until they are unpinned.
    """
    archive = await trio.to_thread.run_sync(open_archive, path)
    try:
        members = await trio.to_thread.run_sync(archive.scan, reading, abandon_on_cancel=True)
        images = await trio.to_thread.run_sync(images_in, archive, members)
        if name is not None:
            images = named(images, name)
        held = {entry.digest for entry in store.entries}
        tags = [tag for image in images for tag in image.tags]
        unknown = [tag for tag in tags if store.remembered(tag) is None]
        blobs = {descriptor.digest: (descriptor, member) for image in images for descriptor, member in image.blobs}
        missing = {digest: each for digest, each in blobs.items() if digest not in held}
        needed = sum(descriptor.size for descriptor, _ in missing.values())
        if needed > store.bytes_max:
            raise StoreFull(f"{path} needs {needed} bytes more, and the cache may have {store.bytes_max} in all")
        try:
            await _keep(store, archive, images, missing.values(), writing)
            for tag in tags if pin else ():
                await store.pin(str(tag))
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + UNDO_S):
                await store.remove([entry.digest for entry in store.entries if entry.digest not in held])
                for tag in unknown:
                    await store.forget_tag(tag)
            raise
    finally:
        archive.close()
    new = frozenset(entry.digest for entry in store.entries) - held
    return Added(tuple(images), new, needed)


async def _keep(
    store: CacheStore,
    archive: Archive,
    images: list[ArchivedImage],
    blobs: Iterable[tuple[Descriptor, Member]],
    progress: Progress,
) -> None:
    """Keep blobs first, then what names them, then the tags."""
    for descriptor, member in blobs:
        await _keep_blob(store, archive, descriptor, member, progress)
    for image in images:
        for name in sorted({f"{tag.registry}/{tag.repository}" for tag in image.tags}) or [""]:
            for descriptor, data in image.documents:
                await store.keep_document(descriptor.digest, descriptor.media_type, data, name)
    for image in images:
        root = image.root
        for tag in image.tags:
            await store.remember_tag(TagInfo(tag, root.digest, root.media_type, root.size, trio.current_time()))


async def _keep_blob(
    store: CacheStore, archive: Archive, descriptor: Descriptor, member: Member, progress: Progress
) -> None:
    chunks = archive.read(member)
    async with await store.receive(descriptor.digest, descriptor.size, descriptor.media_type, "") as incoming:
        while (chunk := await trio.to_thread.run_sync(next, chunks, None)) is not None:
            await incoming.write(chunk)
            progress(len(chunk))
        if not await incoming.is_right():
            raise BadArchive(f"{member.name!r} was changed while it was read")
        await incoming.keep()
