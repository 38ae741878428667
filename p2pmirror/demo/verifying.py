"""Looking at what was pulled once more: every byte, read back from the disk and hashed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import trio

from p2pmirror.demo.failed import DemoFailed
from p2pmirror.demo.place import Place
from p2pmirror.oci import Descriptor


async def verify(nodes: Iterable[Place], descriptors: Iterable[Descriptor]) -> None:
    """Raise `DemoFailed` unless each of the nodes has all of the content, byte for byte, on its disk."""
    wanted = list(descriptors)
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(trio.to_thread.run_sync, _verify, node, wanted)


def _verify(node: Place, descriptors: list[Descriptor]) -> None:
    for descriptor in descriptors:
        digest = descriptor.digest
        path = node.layout / "blobs" / digest.algorithm / digest.hex
        if complaint := _complaint(path, descriptor):
            raise DemoFailed(f"node {node.number}: {digest} {complaint}")


def _complaint(path: Path, descriptor: Descriptor) -> str | None:
    try:
        with path.open("rb") as file:
            hasher = hashlib.file_digest(file, descriptor.digest.algorithm)
            size = file.tell()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if size != descriptor.size or not descriptor.digest.matches(hasher):
        return f"has wrong content ({size} bytes of {descriptor.size})"
    return None
