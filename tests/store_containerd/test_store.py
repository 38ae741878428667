"""The containerd store against real containerds: the laws of stores, and what only containerd can do to it."""

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from p2pmirror.errors import NotHere
from p2pmirror.oci import Digest, TagName, mediatype
from p2pmirror.store.containerd import ContainerdStore, Options
from p2pmirror.store.hostfiles import HostFiles
from tests.store.conformance import StoreConformance
from tests.store.images import Image, make_image
from tests.store_containerd.daemon import Daemon
from tests.store_containerd.layout import write_layout_tar

pytestmark = pytest.mark.lab

NAME = "registry.example/app:v1"
TAG = TagName.parse(NAME)


class ContainerdWorld:
    """A running store on a running containerd."""

    settle_s = 8.0

    def __init__(self, daemon: Daemon, store: ContainerdStore, directory: Path) -> None:
        self.daemon = daemon
        self.store = store
        self.tar = directory / "image.tar"
        self._images: list[Image] = []

    async def put(self, image: Image, *words: str) -> None:
        tar = write_layout_tar(self.tar, image)
        await self.daemon.ctr("images", "import", "--all-platforms", "--no-unpack", *words, tar)

    async def remove(self, image: Image) -> None:
        await self.daemon.ctr("images", "rm", "--sync", *map(str, image.tags))

    @staticmethod
    async def until(holds: Callable[[], object], limit_s: float = 15.0) -> float:
        began = trio.current_time()
        with trio.fail_after(limit_s):
            while not holds():  # noqa: ASYNC110 (what is waited for does not always change the version)
                await trio.sleep(0.01)
        return trio.current_time() - began


class TidyWorld(ContainerdWorld):
    """One whose containerd is made to collect at once what an import leaves behind (the tar's own index)."""

    async def put(self, image: Image, *words: str) -> None:
        self._images = [each for each in self._images if each.tags != image.tags] + [image]
        await super().put(image)
        await self.daemon.ctr("images", "tag", "--force", str(image.tags[0]), "passing")
        await self.daemon.ctr("images", "rm", "--sync", "passing")
        await self._settle()

    async def remove(self, image: Image) -> None:
        self._images.remove(image)
        await super().remove(image)

    async def _settle(self) -> None:
        kept = {digest for each in self._images for digest in each.content}
        await self.until(lambda: {info.digest for info in self.store.inventory.blobs()} <= kept)


@asynccontextmanager
async def running(
    daemon: Daemon, tmp_path: Path, content_path: Path | None = None, kind: type[ContainerdWorld] = ContainerdWorld
) -> AsyncIterator[ContainerdWorld]:
    store = ContainerdStore(Options(daemon.socket, daemon.namespace, content_path), HostFiles())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield kind(daemon, store, tmp_path)
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["directory", "grpc"])
async def world(request, daemon: Daemon, tmp_path: Path) -> AsyncIterator[ContainerdWorld]:
    content_path = tmp_path / "not-mounted" if request.param == "grpc" else None
    async with running(daemon, tmp_path, content_path, TidyWorld) as world:
        yield world


@pytest.fixture
async def local(daemon: Daemon, tmp_path: Path) -> AsyncIterator[ContainerdWorld]:
    async with running(daemon, tmp_path) as world:
        await world.until(lambda: world.store.inventory.walked)
        yield world


class TestContainerdStore(StoreConformance):
    """See the suite."""


async def test_a_tag_appears_within_a_second(local: ContainerdWorld):
    """An imported image, without any source label, is offered with all its blobs a second after the import at most."""
    image = make_image(NAME)
    await local.put(image)
    inventory = local.store.inventory
    took_s = await local.until(lambda: inventory.tag(TAG) and all(inventory.blob(digest) for digest in image.content))
    assert took_s < 1.0


async def test_a_removed_tag_is_withdrawn_at_once(local: ContainerdWorld):
    """A tag goes within a second of its removal, also when its content stays under CRI's alias."""
    image = make_image(NAME)
    await local.put(image)
    await local.until(lambda: local.store.inventory.tag(TAG))
    await local.daemon.ctr("images", "tag", NAME, "sha256:" + "a" * 64)
    await local.daemon.ctr("images", "rm", "--sync", NAME)
    assert await local.until(lambda: not local.store.inventory.tag(TAG)) < 1.0
    await local.until(lambda: local.store.inventory.blob(image.root.digest).names == frozenset())
    assert all(local.store.inventory.blob(digest) for digest in image.content)
    await local.daemon.ctr("images", "rm", "--sync", "sha256:" + "a" * 64)
    assert await local.until(lambda: not list(local.store.inventory.blobs())) < 10.0


async def test_names_that_are_no_tags(local: ContainerdWorld, caplog):
    """A name by digest gives names and no tag; an odd one gives neither, and one warning however often it is walked."""
    image = make_image(NAME)
    await local.put(image)
    await local.until(lambda: local.store.inventory.tag(TAG))
    by_digest = f"registry.example/other@{image.root.digest}"
    with caplog.at_level(logging.WARNING):
        for name in (by_digest, "import-2024-01-01", "sha256:" + "b" * 64):
            await local.daemon.ctr("images", "tag", NAME, name)
        both = image.names | {"registry.example/other"}
        await local.until(lambda: local.store.inventory.blob(image.layers[0]).names == both)
        await trio.sleep(1)
        await local.daemon.ctr("images", "tag", NAME, "registry.example/third:1")
        await local.until(lambda: local.store.inventory.tag(TagName.parse("registry.example/third:1")))
        await trio.sleep(1)
    assert {str(info.name) for info in local.store.inventory.tags()} == {NAME, "registry.example/third:1"}
    assert [record.getMessage().count("import-2024-01-01") for record in caplog.records] == [1]


async def test_only_what_exists_is_listed(local: ContainerdWorld):
    """A tag whose other platforms are missing is offered, and of its content exactly what is there."""
    image = make_image(NAME)
    lost = next(digest for digest, (_, media_type) in image.content.items() if media_type == mediatype.OCI_CONFIG)
    await local.put(image)
    await local.until(lambda: local.store.inventory.tag(TAG) and local.store.inventory.blob(lost))
    await local.daemon.ctr("content", "rm", str(lost))
    await local.until(lambda: not local.store.inventory.blob(lost))
    assert local.store.inventory.tag(TAG)
    assert {info.digest for info in local.store.inventory.blobs()} >= set(image.content) - {lost}
    with pytest.raises(NotHere):
        await local.store.open(lost)


async def test_what_containerd_will_discard_is_not_kept(local: ContainerdWorld):
    """A layer that no manifest holds on to goes with containerd's next collection; away, it is believed to keep it."""
    image = make_image(NAME, with_index=False)
    first, second = image.layers
    await local.put(image)
    await local.until(lambda: all(local.store.inventory.blob(each) for each in image.content))
    assert [await local.store.keeps(each) for each in (first, second, Digest.of(b"absent"))] == [True, True, False]
    await local.daemon.ctr("content", "label", str(image.root.digest), "containerd.io/gc.ref.content.l.0=")
    assert [await local.store.keeps(each) for each in (first, second)] == [False, True]
    local.daemon.kill()
    await local.until(lambda: local.store.waiting_for)
    assert await local.store.keeps(first)


async def test_containerd_is_killed_and_comes_back(local: ContainerdWorld):
    """While containerd is away the store says so and serves on; when it is back the store follows it again."""
    image, other = make_image(NAME), make_image("registry.example/other:v1", seed=2)
    await local.put(image)
    await local.until(lambda: local.store.inventory.tag(TAG))
    local.daemon.kill()
    await local.until(lambda: local.store.waiting_for)
    with await local.store.open(image.layers[0]) as blob:
        assert await blob.file.read_at(0, 10) == image.content[image.layers[0]][0][:10]
    with pytest.raises(NotHere):
        await local.store.open(Digest.of(b"absent"))
    await local.daemon.start()
    assert await local.until(lambda: local.store.waiting_for is None) < 5.0
    assert local.store.inventory.tag(TAG)
    await local.put(other)
    assert await local.until(lambda: local.store.inventory.tag(other.tags[0])) < 1.0


async def test_containerd_comes_late(stopped_daemon: Daemon, tmp_path: Path):
    """Without containerd the store waits and says for what; it goes on by itself when containerd has come."""
    async with running(stopped_daemon, tmp_path) as world:
        await trio.sleep(0.5)
        assert str(stopped_daemon.socket) in world.store.waiting_for
        assert not world.store.inventory.walked
        await stopped_daemon.start()
        assert await world.until(lambda: world.store.inventory.walked) < 5.0
        assert world.store.waiting_for is None
        image = make_image(NAME)
        await world.put(image)
        assert await world.until(lambda: world.store.inventory.tag(TAG)) < 1.0


async def test_large_blobs_over_grpc(daemon: Daemon, tmp_path: Path):
    """Without the directory a blob of several portions is read over gRPC: whole, in parts, and from the middle."""
    image = make_image(NAME, layer_bytes=(3_500_000,))
    data, _ = image.content[image.layers[0]]
    async with running(daemon, tmp_path, tmp_path / "not-mounted") as world:
        await world.put(image)
        await world.until(lambda: world.store.inventory.tag(TAG))
        with await world.store.open(image.layers[0]) as blob:
            assert blob.file.fileno() is None
            assert await blob.file.read_at(0, len(data)) == data
            assert await blob.file.read_at(1_000_000, 2_000_000) == data[1_000_000:3_000_000]
            assert await blob.file.read_at(len(data) - 7, 100) == data[-7:]
            assert await blob.file.read_at(len(data), 100) == b""


async def test_a_frozen_containerd_holds_up_no_miss(local: ContainerdWorld):
    """When containerd hangs, what is listed is served and what is not is NotHere at once."""
    image = make_image(NAME)
    await local.put(image)
    await local.until(lambda: local.store.inventory.blob(image.layers[0]) and local.store.inventory.tag(TAG))
    with local.daemon.frozen(), trio.fail_after(1):
        with await local.store.open(image.layers[0]) as blob:
            assert blob.file.size == len(image.content[image.layers[0]][0])
        with pytest.raises(NotHere):
            await local.store.open(Digest.of(b"absent"))
    await local.put(make_image("registry.example/after:v1", seed=3))
    await local.until(lambda: local.store.inventory.tag(TagName.parse("registry.example/after:v1")))


async def test_the_content_directory_vanishes(local: ContainerdWorld, caplog):
    """When the files are gone nothing is offered that is not there, and the store goes on."""
    image, other = make_image(NAME), make_image("registry.example/other:v1", seed=2)
    await local.put(image)
    await local.until(lambda: local.store.inventory.tag(TAG))
    blobs = local.daemon.content / "blobs"
    blobs.rename(blobs.with_name("elsewhere"))
    with pytest.raises(NotHere):
        await local.store.open(image.layers[0])
    await local.until(lambda: not list(local.store.inventory.blobs()) and not list(local.store.inventory.tags()))
    blobs.with_name("elsewhere").rename(blobs)
    await local.daemon.ctr("images", "tag", NAME, "registry.example/again:v1")
    await local.until(lambda: local.store.inventory.blob(image.layers[0]), 70)
    await local.put(other)
    await local.until(lambda: local.store.inventory.tag(other.tags[0]))


async def test_broken_content_is_passed_over(local: ContainerdWorld, caplog):
    """A manifest whose bytes are wrong is not offered as a tag; one warning; other images are followed on."""
    image, other = make_image(NAME), make_image("registry.example/other:v1", seed=2)
    await local.put(image)
    await local.until(lambda: local.store.inventory.tag(TAG))
    path = local.daemon.content / "blobs" / "sha256" / image.root.digest.hex
    path.chmod(0o644)
    path.write_bytes(bytes(image.root.size))
    async with running(local.daemon, local.tar.parent) as world:
        await world.until(lambda: world.store.inventory.walked)
        assert world.store.inventory.tag(TAG) is None
        await world.put(other)
        await world.until(lambda: world.store.inventory.tag(other.tags[0]))
        await trio.sleep(1)
        said = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
        assert len(said) == 1
        assert str(image.root.digest) in said[0]
        assert world.store.waiting_for is None


@pytest.mark.long
@pytest.mark.any_containerd
async def test_many_blobs_are_walked_soon(daemon: Daemon, tmp_path: Path):
    """2,000 blobs in 200 images are listed soon after the start; the bench has the figure."""
    names = [f"registry.example/app{number}:v1" for number in range(200)]
    images = [make_image(name, seed=seed, layer_bytes=(50,) * 8, with_index=False) for seed, name in enumerate(names)]
    tar = write_layout_tar(tmp_path / "image.tar", *images)
    await daemon.ctr("images", "import", "--all-platforms", "--no-unpack", tar)
    began_s = time.process_time()
    async with running(daemon, tmp_path) as world:
        await world.until(lambda: world.store.inventory.walked)
        took_s = time.process_time() - began_s
        assert len(list(world.store.inventory.blobs())) >= 2000
        assert len(list(world.store.inventory.tags())) == 200
        assert took_s < 5.0
