"""The store in memory keeps every law of stores."""

from collections.abc import AsyncIterator

import pytest
import trio

from p2pmirror.store.memory import MemoryStore
from tests.store.conformance import StoreConformance
from tests.store.images import Image


class MemoryWorld:
    settle_s = 1.0

    def __init__(self) -> None:
        self.store = MemoryStore()
        self._images: list[Image] = []

    async def put(self, image: Image) -> None:
        self._images = [each for each in self._images if each.tags != image.tags] + [image]
        self._keep()
        self.store.put(image.content, dict.fromkeys(image.tags, image.root.digest), since=trio.current_time())

    async def remove(self, image: Image) -> None:
        self._images.remove(image)
        self.store.drop(tags=image.tags)
        self._keep()

    def _keep(self) -> None:
        kept = {digest for each in self._images for digest in each.content}
        held = [info.digest for info in self.store.inventory.blobs()]
        self.store.drop(digest for digest in held if digest not in kept)


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    async with trio.open_nursery() as nursery:
        world = MemoryWorld()
        await nursery.start(world.store.run)
        yield world
        nursery.cancel_scope.cancel()


class TestMemoryStore(StoreConformance):
    """See the suite."""
