"""The laws of `store.protocol`, as tests that every store passes.

A store's test module makes a class of its own from `StoreConformance` and gives it `world`, an async fixture that
yields a `World`: a store whose `run` is running, and ways to change its content as the outside world would.
`settle_s` says how long a change may take to show. Nothing else of the store is used.
"""

from collections.abc import Callable
from typing import Protocol

import pytest
import trio

from p2pmirror.errors import NotHere
from p2pmirror.oci import Digest
from p2pmirror.store.protocol import Blob, Store
from tests.cancellation import cancel_at_every_checkpoint
from tests.store.images import SIGNATURE, Image, make_image, make_signature

ABSENT = Digest.of(b"nobody has this")


class World(Protocol):
    """A running store and the hand that changes what is in it."""

    store: Store
    settle_s: float

    async def put(self, image: Image) -> None:
        """Bring in all content of an image, and its tags."""

    async def remove(self, image: Image) -> None:
        """Take away its tags and all content that nothing else in the store needs."""


class StoreConformance:
    """Subclass it beside an async fixture `world`."""

    async def test_walked_and_empty(self, world: World) -> None:
        """A store without content has been walked once and lists nothing, and is waiting for nothing."""
        await until(world, lambda: world.store.inventory.walked)
        assert not list(world.store.inventory.blobs())
        assert not list(world.store.inventory.tags())
        assert world.store.waiting_for is None

    async def test_content_is_listed(self, world: World) -> None:
        """All content of an image is listed with its real size, its descriptor's media type and the image's name."""
        image = make_image()
        await put(world, image)
        listed = {info.digest: info for info in world.store.inventory.blobs()}
        assert set(listed) == set(image.content)
        for digest, (data, media_type) in image.content.items():
            assert listed[digest] == world.store.inventory.blob(digest)
            assert (listed[digest].size, listed[digest].media_type) == (len(data), media_type)
            assert listed[digest].names == image.names

    async def test_tag_is_listed(self, world: World) -> None:
        """A tag names its root, with media type and size, learnt at a moment that has been."""
        image = make_image()
        await put(world, image)
        (info,) = world.store.inventory.tags()
        assert info == world.store.inventory.tag(image.tags[0])
        assert (info.name, info.digest, info.media_type, info.size) == (
            image.tags[0],
            image.root.digest,
            image.root.media_type,
            image.root.size,
        )
        assert info.since <= trio.current_time()

    async def test_listed_content_opens(self, world: World) -> None:
        """Whatever is listed opens, and its bytes are those of its digest, whole and in parts."""
        image = make_image()
        await put(world, image)
        for digest, (data, media_type) in image.content.items():
            with await world.store.open(digest) as blob:
                assert (blob.info.digest, blob.info.size, blob.info.media_type) == (digest, len(data), media_type)
                assert blob.file.size == len(data)
                assert await blob.file.read_at(0, len(data)) == data
                assert await blob.file.read_at(10, 20) == data[10:30]
                assert await blob.file.read_at(len(data) - 5, 100) == data[-5:]
                assert await blob.file.read_at(len(data), 1) == b""

    async def test_absent_is_not_here(self, world: World) -> None:
        """What is not held raises NotHere and is not listed, before and after content came."""
        for _ in range(2):
            with pytest.raises(NotHere):
                await world.store.open(ABSENT)
            assert world.store.inventory.blob(ABSENT) is None
            await put(world, make_image())

    async def test_removal_shows(self, world: World) -> None:
        """After an image is removed neither its tag nor its content is listed, and its content does not open."""
        image, other = make_image(seed=1), make_image("registry.example/other:v1", seed=2)
        await put(world, image)
        await put(world, other)
        await remove(world, image)
        assert {info.digest for info in world.store.inventory.blobs()} == set(other.content)
        assert [info.name for info in world.store.inventory.tags()] == list(other.tags)
        with pytest.raises(NotHere):
            await world.store.open(image.layers[0])

    async def test_open_outlives_removal(self, world: World) -> None:
        """A blob that was opened is readable to its last byte after it was removed."""
        image = make_image()
        await put(world, image)
        opened: list[tuple[Blob, bytes]] = [
            (await world.store.open(digest), data) for digest, (data, _) in image.content.items()
        ]
        await remove(world, image)
        for blob, data in opened:
            with blob:
                assert await blob.file.read_at(0, len(data)) == data

    async def test_close_twice(self, world: World) -> None:
        """Closing an open blob twice does no harm."""
        image = make_image()
        await put(world, image)
        blob = await world.store.open(image.root.digest)
        blob.file.close()
        blob.file.close()

    async def test_shared_content_stays(self, world: World) -> None:
        """Content that two images share has both names, and stays with the other's name when one is removed."""
        first, second = make_image("registry.example/a:1"), make_image("registry.example/b:1")
        await put(world, first)
        await put(world, second)
        await until(world, lambda: self._names(world, first) == first.names | second.names)
        await world.remove(first)
        await until(world, lambda: self._names(world, first) == second.names)
        assert {info.digest for info in world.store.inventory.blobs()} == set(second.content)

    async def test_tag_moves(self, world: World) -> None:
        """A tag that is given to another image names that image."""
        old, new = make_image(seed=1), make_image(seed=2)
        await put(world, old)
        await put(world, new)
        tag = world.store.inventory.tag(new.tags[0])
        assert tag is not None
        assert tag.digest == new.root.digest

    async def test_version_grows(self, world: World) -> None:
        """The version grows with every change, and stays where it is when nothing changes."""
        await until(world, lambda: world.store.inventory.walked)
        before = world.store.inventory.version
        image = make_image()
        await put(world, image)
        between = world.store.inventory.version
        assert between > before
        await trio.sleep(world.settle_s / 4)
        assert world.store.inventory.version == between
        await remove(world, image)
        assert world.store.inventory.version > between

    async def test_changed_loses_nothing(self, world: World) -> None:
        """A reader who only waits for `changed` sees every state that lasted, also one who was busy meanwhile."""
        image = make_image()
        await until(world, lambda: world.store.inventory.walked)
        seen = world.store.inventory.version
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.put, image)
            with trio.fail_after(world.settle_s):
                while world.store.inventory.tag(image.tags[0]) is None:
                    seen = await world.store.inventory.changed(seen)
                    assert seen == world.store.inventory.version
        with trio.fail_after(1):
            assert await world.store.inventory.changed(-1) == world.store.inventory.version

    async def test_changed_can_be_cancelled(self, world: World) -> None:
        """Cancelling a wait for changes leaves other waits and later ones intact."""
        await until(world, lambda: world.store.inventory.walked)
        version = world.store.inventory.version
        woken = []

        async def watch() -> None:
            woken.append(await world.store.inventory.changed(version))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            with trio.move_on_after(0.05):
                await world.store.inventory.changed(version)
            assert not woken
            await put(world, make_image())
        assert woken

    async def test_referrers(self, world: World) -> None:
        """Held manifests with a subject are listed under it, sorted, with type and annotations, until removed."""
        image = make_image()
        first, second = (make_signature(image.root, seed=n, tag=f"registry.example/app:s{n}") for n in (1, 2))
        for each in (image, first, second):
            await put(world, each)
        await until(world, lambda: len(world.store.inventory.referrers(image.root.digest)) == 2)
        listed = world.store.inventory.referrers(image.root.digest)
        assert [each.digest for each in listed] == sorted((first.root.digest, second.root.digest))
        assert {(each.artifact_type, each.annotations["made"], each.size) for each in listed} == {
            (SIGNATURE, "here", first.root.size)
        }
        assert world.store.inventory.referrers(first.root.digest) == ()
        await remove(world, first)
        await until(world, lambda: len(world.store.inventory.referrers(image.root.digest)) == 1)

    async def test_cancelled_open_leaves_all_well(self, world: World) -> None:
        """Opening and reading, cancelled at any checkpoint, leave the store as it was: the next one succeeds."""
        image = make_image()
        await put(world, image)
        digest = image.layers[0]

        async def use() -> None:
            with await world.store.open(digest) as blob:
                await blob.file.read_at(0, 10)

        async def check() -> None:
            with await world.store.open(digest) as blob:
                assert await blob.file.read_at(0, blob.file.size) == image.content[digest][0]

        assert await cancel_at_every_checkpoint(use, check) > 0

    @staticmethod
    def _names(world: World, image: Image) -> frozenset[str]:
        info = world.store.inventory.blob(image.layers[0])
        return info.names if info is not None else frozenset()


async def put(world: World, image: Image) -> None:
    """Put an image and wait until all of it is listed."""
    await world.put(image)
    await until(world, lambda: _is_listed(world.store, image))


async def remove(world: World, image: Image) -> None:
    """Remove an image that shares nothing and wait until nothing of it is listed."""
    await world.remove(image)
    inventory = world.store.inventory
    await until(
        world,
        lambda: (
            not any(inventory.blob(digest) for digest in image.content)
            and not any(inventory.tag(tag) for tag in image.tags)
        ),
    )


async def until(world: World, holds: Callable[[], bool]) -> None:
    """Wait, at most as long as the store may take, until something holds of its inventory."""
    with trio.fail_after(world.settle_s):
        while not holds():  # noqa: ASYNC110 (names that do not change the version are waited for too)
            await trio.sleep(0.01)


def _is_listed(store: Store, image: Image) -> bool:
    tags = [store.inventory.tag(tag) for tag in image.tags]
    return all(store.inventory.blob(digest) for digest in image.content) and all(
        tag is not None and tag.digest == image.root.digest for tag in tags
    )
