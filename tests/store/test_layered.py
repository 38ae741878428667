"""Several stores as one keep the laws of stores, and no part hides what another holds."""

from collections.abc import AsyncIterator

import pytest
import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.store.layered import LayeredStore
from p2pmirror.store.memory import MemoryStore
from p2pmirror.store.protocol import Blob, Store
from tests.store.conformance import StoreConformance
from tests.store.images import Image, make_image
from tests.store.test_memory import MemoryWorld


class LayeredWorld:
    """Every other image goes into the second store."""

    settle_s = 1.0

    def __init__(self) -> None:
        self._parts = (MemoryWorld(), MemoryWorld())
        self._at: dict[tuple[object, ...], MemoryWorld] = {}
        self.store: Store = LayeredStore([part.store for part in self._parts])

    async def put(self, image: Image) -> None:
        part = self._at.setdefault(image.tags, self._parts[len(self._at) % 2])
        await part.put(image)

    async def remove(self, image: Image) -> None:
        await self._at.pop(image.tags).remove(image)


class TestLayeredStore(StoreConformance):
    """See the suite."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[LayeredWorld]:
        async with trio.open_nursery() as nursery:
            world = LayeredWorld()
            await nursery.start(world.store.run)
            yield world
            nursery.cancel_scope.cancel()


class BrokenStore(MemoryStore):
    async def open(self, digest: Digest) -> Blob:
        raise Unreachable("containerd does not answer")


async def test_broken_part_hides_nothing() -> None:
    """What a broken store cannot give comes from another; what none has is Unreachable, since it may be there."""
    broken, sound = BrokenStore(), MemoryStore()
    layered = LayeredStore([broken, sound])
    digest = sound.put_blob(b"content")
    broken.put_blob(b"content")
    with await layered.open(digest) as blob:
        assert await blob.file.read_at(0, 10) == b"content"
    with pytest.raises(Unreachable):
        await layered.open(Digest.of(b"absent"))


async def test_unlisted_content_is_found() -> None:
    """Content that no inventory lists is asked of every store."""

    class Unlisted(MemoryStore):
        async def open(self, digest: Digest) -> Blob:
            return await hidden.open(digest)

    hidden = MemoryStore()
    digest = hidden.put_blob(b"x")
    with await LayeredStore([MemoryStore(), Unlisted()]).open(digest) as blob:
        assert blob.file.size == 1


async def test_without_stores() -> None:
    """No stores at all: walked, empty, waiting for nothing, and NotHere for everything."""
    layered = LayeredStore([])
    assert layered.inventory.walked
    assert layered.waiting_for is None
    with pytest.raises(NotHere):
        await layered.open(Digest.of(b""))


async def test_waiting_for_is_joined() -> None:
    """Every part's reason is told; walked only when all parts are."""
    first, second = MemoryStore(walked=False), MemoryStore()
    layered = LayeredStore([first, second])
    assert not layered.inventory.walked
    first.waiting_for, second.waiting_for = "a", "b"
    assert layered.waiting_for == "a; b"
    first.drop()
    assert layered.inventory.walked


async def test_what_parts_know_is_put_together() -> None:
    """A media type comes from the part that knows it, names from all; listed, asked for and opened alike."""
    first, second = MemoryStore(), MemoryStore()
    image = make_image()
    layer = image.layers[0]
    data, media_type = image.content[layer]
    first.put_blob(data)
    second.put(image.content, dict.fromkeys(image.tags, image.root.digest))
    layered = LayeredStore([first, second])
    info = layered.inventory.blob(layer)
    assert info is not None
    assert (info.media_type, info.names) == (media_type, image.names)
    assert info in list(layered.inventory.blobs())
    with await layered.open(layer) as blob:
        assert blob.info == info
