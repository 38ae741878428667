"""A directory in OCI image layout keeps the laws of stores, whatever is done to it, by others and by crashes."""

import json
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock as Clock

from p2pmirror.errors import BadRequest, NotHere, StoreFull, Unreachable
from p2pmirror.oci import Descriptor, Digest, TagName, mediatype
from p2pmirror.store.files import Files, NotWritable
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles, PowerOff
from p2pmirror.store.ocilayout import LayoutOptions, LayoutWriter, OciLayoutStore, WrongContent
from p2pmirror.store.ocilayout.index import EMPTY_INDEX, MARKER, blob_path
from tests.groups import leave_out
from tests.store.conformance import StoreConformance
from tests.store.images import Image, as_json, make_image

FAST = LayoutOptions(index_poll_s=0.01, blobs_poll_s=0.03)
DIRECTORY = Path("/layout")


async def write(writer: LayoutWriter, image: Image) -> None:
    for digest, (data, _) in image.content.items():
        async with writer.blob(digest, len(data)) as sink:
            for start in range(0, len(data), 50_000):
                await sink.write(data[start : start + 50_000])
    for tag in image.tags:
        await writer.tag(tag, image.root)


class LayoutWorld:
    """A store over a directory, and a writer beside it; content that nothing needs any more is removed by hand."""

    settle_s = 3.0

    def __init__(self, directory: Path, files: Files) -> None:
        self.store = OciLayoutStore(directory, files, FAST)
        self.writer = LayoutWriter(directory, files)
        self._directory = directory
        self._files = files
        self._images: list[Image] = []

    async def put(self, image: Image) -> None:
        self._images = [each for each in self._images if each.tags != image.tags] + [image]
        await write(self.writer, image)

    async def remove(self, image: Image) -> None:
        self._images.remove(image)
        for tag in image.tags:
            await self.writer.untag(tag)
        kept = {digest for each in self._images for digest in each.content}
        for digest in image.content:
            if digest not in kept:
                await self._files.unlink(blob_path(self._directory, digest))


class TestOnHostFiles(StoreConformance):
    """See the suite."""

    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[LayoutWorld]:
        async with trio.open_nursery() as nursery:
            world = LayoutWorld(tmp_path / "layout", HostFiles())
            await world.writer.prepare()
            await nursery.start(world.store.run)
            yield world
            nursery.cancel_scope.cancel()


class TestOnMemoryFiles(StoreConformance):
    """See the suite."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[LayoutWorld]:
        async with trio.open_nursery() as nursery:
            world = LayoutWorld(DIRECTORY, MemoryFiles())
            await world.writer.prepare()
            await nursery.start(world.store.run)
            yield world
            nursery.cancel_scope.cancel()


# --- a layout that others wrote, in memory and on virtual time ---


class Layout:
    """A layout in memory whose files the test writes itself, and a store that reads it."""

    def __init__(self) -> None:
        self.files = MemoryFiles()
        self.store = OciLayoutStore(DIRECTORY, self.files, LayoutOptions(blobs_poll_s=3.0))
        self.held = self.store.inventory

    def put_blobs(self, image: Image) -> None:
        for digest, (data, _) in image.content.items():
            self.files.put(blob_path(DIRECTORY, digest), data)

    def put_index(self, *entries: dict[str, object]) -> None:
        self.files.put(DIRECTORY / "oci-layout", MARKER)
        self.files.put(DIRECTORY / "index.json", json.dumps({"schemaVersion": 2, "manifests": list(entries)}).encode())

    def put_image(self, image: Image) -> None:
        self.put_blobs(image)
        self.put_index(as_json(image.root, **{"org.opencontainers.image.ref.name": str(image.tags[0])}))

    def listed(self) -> set[Digest]:
        return {info.digest for info in self.held.blobs()}


@pytest.fixture
async def layout() -> AsyncIterator[Layout]:
    async with trio.open_nursery() as nursery:
        layout = Layout()
        await nursery.start(layout.store.run)
        yield layout
        nursery.cancel_scope.cancel()


async def test_absent_directory_is_waited_for(layout: Layout, autojump_clock: Clock) -> None:
    """A directory that is not there yet is said to be waited for, and read when it comes."""
    await trio.sleep(2)
    assert "no /layout/oci-layout" in (layout.store.waiting_for or "")
    assert not layout.held.walked
    image = make_image()
    layout.put_image(image)
    await trio.sleep(4)
    assert layout.listed() == set(image.content)
    assert layout.held.walked
    assert layout.store.waiting_for is None


async def test_new_tag_shows_within_a_second(layout: Layout, autojump_clock: Clock) -> None:
    """A new image is listed, tag and all, at the next look at the index."""
    layout.put_index()
    await trio.sleep(10.5)
    image = make_image()
    layout.put_image(image)
    await trio.sleep(1.1)
    assert layout.held.tag(image.tags[0])
    assert layout.listed() == set(image.content)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"schemaVersion":2,"manifests":[{"digest":"sha256:../../etc/passwd"}]}',
        b"[" * 90_000,
    ],
)
@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
async def test_broken_index_keeps_the_last_good_state(
    layout: Layout, autojump_clock: Clock, caplog: pytest.LogCaptureFixture, broken: bytes, name: str
) -> None:
    """A broken index or marker changes nothing but `waiting_for`, is logged once, and forgotten when mended."""
    image = make_image()
    layout.put_image(image)
    await trio.sleep(5)
    good = layout.files.get(DIRECTORY / name)
    assert good is not None
    caplog.clear()
    layout.files.put(DIRECTORY / name, broken)
    await trio.sleep(20)
    assert layout.listed() == set(image.content)
    assert layout.held.tag(image.tags[0])
    assert str(DIRECTORY) in (layout.store.waiting_for or "")
    assert len(caplog.records) == 1
    layout.files.put(DIRECTORY / name, good)
    await trio.sleep(2)
    assert layout.store.waiting_for is None


async def test_directory_that_vanishes(layout: Layout, autojump_clock: Clock) -> None:
    """When the directory goes, nothing is listed any more, and `waiting_for` says why; it may come back."""
    image = make_image()
    layout.put_image(image)
    await trio.sleep(5)
    layout.files.remove(DIRECTORY)
    await trio.sleep(5)
    assert not layout.listed()
    assert not list(layout.held.tags())
    assert layout.store.waiting_for
    layout.put_image(image)
    await trio.sleep(5)
    assert layout.listed() == set(image.content)


@pytest.mark.parametrize("wrong", [b"", b"too short", None])
async def test_wrong_content_is_not_listed(
    layout: Layout, autojump_clock: Clock, caplog: pytest.LogCaptureFixture, wrong: bytes | None
) -> None:
    """A blob with other content, short or of its size, is not listed nor opened, and logged once; the rest is there."""
    image = make_image()
    layer = image.layers[1]
    size = len(image.content[layer][0])
    layout.put_image(image)
    layout.files.put(blob_path(DIRECTORY, layer), bytes(size) if wrong is None else wrong)
    await trio.sleep(30)
    assert layout.listed() == set(image.content) - {layer}
    assert layout.held.walked
    with pytest.raises(NotHere):
        await layout.store.open(layer)
    assert sum(str(layer) in record.message and record.levelno == logging.WARNING for record in caplog.records) <= 2
    layout.files.put(blob_path(DIRECTORY, layer), image.content[layer][0])
    await trio.sleep(4)
    assert layout.listed() == set(image.content)


async def test_root_that_lies_about_its_manifest(layout: Layout, autojump_clock: Clock) -> None:
    """A root with wrong content is not listed, nor its tag, nor what it would lead to."""
    image = make_image()
    layout.put_image(image)
    layout.files.put(blob_path(DIRECTORY, image.root.digest), bytes(image.root.size))
    await trio.sleep(5)
    assert not layout.listed()
    assert not list(layout.held.tags())
    assert layout.held.walked


async def test_content_that_changes_in_place_is_withdrawn(layout: Layout, autojump_clock: Clock) -> None:
    """A listed blob whose file is replaced by other content is withdrawn within seconds, and does not open at once."""
    image = make_image()
    layout.put_image(image)
    await trio.sleep(5)
    layer = image.layers[0]
    layout.files.put(blob_path(DIRECTORY, layer), bytes(len(image.content[layer][0])))
    with pytest.raises(NotHere):
        await layout.store.open(layer)
    await trio.sleep(4)
    assert layout.listed() == set(image.content) - {layer}


async def test_missing_blobs_come_later(layout: Layout, autojump_clock: Clock) -> None:
    """An index that leads to absent content lists what is there; the rest is listed when it comes, below it too."""
    image = make_image()
    layout.put_image(image)
    manifest = next(d for d, (_, mt) in image.content.items() if mt == mediatype.OCI_MANIFEST)
    layout.files.remove(blob_path(DIRECTORY, manifest))
    layout.files.remove(blob_path(DIRECTORY, image.layers[0]))
    await trio.sleep(5)
    assert layout.listed() < set(image.content)
    assert layout.held.walked
    layout.put_blobs(image)
    await trio.sleep(7)
    assert layout.listed() == set(image.content)


async def test_removed_blob_is_withdrawn(layout: Layout, autojump_clock: Clock) -> None:
    """A blob that is removed is withdrawn within seconds; a removed root takes its tag with it."""
    image = make_image()
    layout.put_image(image)
    await trio.sleep(5)
    layout.files.remove(blob_path(DIRECTORY, image.layers[0]))
    await trio.sleep(4)
    assert layout.listed() == set(image.content) - {image.layers[0]}
    layout.files.remove(blob_path(DIRECTORY, image.root.digest))
    await trio.sleep(4)
    assert not list(layout.held.tags())


async def test_unreferenced_blobs(layout: Layout, autojump_clock: Clock) -> None:
    """Content that the index does not lead to is not listed; who asks for it by digest gets it, verified."""
    layout.put_index()
    data = b"on its own"
    layout.files.put(blob_path(DIRECTORY, Digest.of(data)), data)
    await trio.sleep(5)
    assert not layout.listed()
    with await layout.store.open(Digest.of(data)) as blob:
        assert (blob.info.media_type, await blob.file.read_at(0, 100)) == (None, data)


async def test_unreadable_blob_is_tried_again(
    layout: Layout, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What may not be read is not listed, logged once, and listed when it may: a manifest with all below it."""
    image = make_image()
    layout.put_image(image)
    paths = {blob_path(DIRECTORY, image.root.digest), blob_path(DIRECTORY, image.layers[0])}
    layout.files.unreadable |= paths
    await trio.sleep(30)
    assert not layout.listed()
    assert layout.held.walked
    with pytest.raises(Unreachable):
        await layout.store.open(image.root.digest)
    assert sum("permission denied" in record.message for record in caplog.records) == 1
    layout.files.unreadable.clear()
    await trio.sleep(40)
    assert layout.listed() == set(image.content)
    assert layout.held.tag(image.tags[0])


async def test_unreadable_index(layout: Layout, autojump_clock: Clock) -> None:
    """An index that may not be read is said to be, keeps what was listed, and is read when it may be."""
    image = make_image()
    layout.put_image(image)
    await trio.sleep(5)
    layout.files.unreadable.add(DIRECTORY / "index.json")
    layout.put_index()
    await trio.sleep(5)
    assert "permission denied" in (layout.store.waiting_for or "")
    assert layout.listed() == set(image.content)
    layout.files.unreadable.clear()
    await trio.sleep(2)
    assert layout.store.waiting_for is None
    assert not layout.listed()


async def test_names_of_images(layout: Layout, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Full names are tags; containerd's annotation counts too; a bare tag is skipped with one warning."""
    image, bare = make_image(seed=1), make_image(seed=2)
    layout.put_blobs(image)
    layout.put_blobs(bare)
    layout.put_index(
        as_json(
            image.root,
            **{"io.containerd.image.name": "docker.io/library/nginx:1", "org.opencontainers.image.ref.name": "1"},
        ),
        as_json(bare.root, **{"org.opencontainers.image.ref.name": "v1"}),
    )
    await trio.sleep(5)
    layout.put_index(*json.loads(layout.files.get(DIRECTORY / "index.json") or b"")["manifests"])
    await trio.sleep(5)
    assert [str(info.name) for info in layout.held.tags()] == ["docker.io/library/nginx:1"]
    assert layout.listed() == {*image.content, *bare.content}
    assert sum("'v1'" in record.message for record in caplog.records) == 1


async def test_looks_do_not_wait_for_hashing(layout: Layout, autojump_clock: Clock) -> None:
    """While a layer is being hashed, manifests and tags are listed and removals show; it is not walked until then."""
    image = make_image(with_index=False)
    layout.put_image(image)
    hashing = trio.Event()
    slow = image.layers[0]
    open_file = layout.files.open

    async def open_slowly(path: Path):  # type: ignore[no-untyped-def]
        file = await open_file(path)
        if path == blob_path(DIRECTORY, slow):
            whole = file.hash

            async def hash_slowly(algorithm: str = "sha256") -> Digest:
                await hashing.wait()
                return await whole(algorithm)

            file.hash = hash_slowly  # type: ignore[method-assign]
        return file

    layout.files.open = open_slowly  # type: ignore[method-assign]
    await trio.sleep(10)
    assert layout.listed() == set(image.content) - {slow}
    assert layout.held.tag(image.tags[0])
    assert not layout.held.walked
    assert "1 blobs" in (layout.store.waiting_for or "")
    layout.files.remove(blob_path(DIRECTORY, image.layers[1]))
    await trio.sleep(4)
    assert layout.listed() == set(image.content) - set(image.layers)
    hashing.set()
    await trio.sleep(0.1)
    assert slow in layout.listed()
    assert layout.held.walked


async def test_each_blob_is_hashed_once(layout: Layout, autojump_clock: Clock) -> None:
    """A blob is hashed once for each state of its file, however often the index changes and it is opened."""
    image = make_image()
    layout.put_image(image)
    hashed: list[Path] = []
    open_file = layout.files.open

    async def open_and_count(path: Path):  # type: ignore[no-untyped-def]
        file = await open_file(path)
        whole = file.hash

        async def count(algorithm: str = "sha256") -> Digest:
            hashed.append(path)
            await trio.sleep(0.5)
            return await whole(algorithm)

        file.hash = count  # type: ignore[method-assign]
        return file

    layout.files.open = open_and_count  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        for _ in range(5):

            async def open_one() -> None:
                with await layout.store.open(image.layers[0]):
                    pass

            nursery.start_soon(open_one)
    for _ in range(3):
        await trio.sleep(10)
        layout.put_index(*json.loads(layout.files.get(DIRECTORY / "index.json") or b"")["manifests"])
    assert sorted(hashed) == sorted(blob_path(DIRECTORY, digest) for digest in image.content)


# --- writing ---


async def test_wrong_content_is_not_written() -> None:
    """Content that is too short, too long or other than its digest raises and leaves nothing behind."""
    files = MemoryFiles()
    writer = LayoutWriter(DIRECTORY, files)
    digest = Digest.of(b"right")
    for wrong in (b"", b"righ", b"wrong", b"right!"):
        with pytest.raises(WrongContent):
            async with writer.blob(digest, 5) as sink:
                await sink.write(wrong)
    assert files.get(blob_path(DIRECTORY, digest)) is None
    assert await files.names(DIRECTORY) == ["index.json", "index.json.lock", "oci-layout"]


async def test_cancelled_write_leaves_nothing() -> None:
    """A writer that is cancelled in the middle of a blob leaves nothing behind."""
    files = MemoryFiles()
    writer = LayoutWriter(DIRECTORY, files)
    with trio.CancelScope() as scope:
        async with writer.blob(Digest.of(b"right"), 5) as sink:
            await sink.write(b"ri")
            scope.cancel()
            await sink.write(b"ght")
    assert scope.cancelled_caught
    assert await files.names(DIRECTORY) == ["index.json", "index.json.lock", "oci-layout"]


async def test_edits_keep_what_others_wrote() -> None:
    """Tagging and untagging keep other entries and unknown fields; a tag stands for one thing; retagging replaces."""
    files = MemoryFiles()
    writer = LayoutWriter(DIRECTORY, files)
    image, other = make_image(seed=1), make_image("registry.example/other:v1", seed=2)
    foreign = as_json(other.root, **{"org.opencontainers.image.ref.name": "v1", "keep": "this"})
    both = {
        "io.containerd.image.name": "registry.example/x:1",
        "org.opencontainers.image.ref.name": str(image.tags[0]),
    }
    files.put(DIRECTORY / "oci-layout", MARKER)
    files.put(
        DIRECTORY / "index.json",
        json.dumps({"schemaVersion": 2, "extra": [1], "manifests": [foreign, as_json(other.root, **both)]}).encode(),
    )
    await write(writer, image)
    await write(writer, image)
    index = json.loads(files.get(DIRECTORY / "index.json") or b"")
    assert index["extra"] == [1]
    assert index["manifests"][0] == foreign
    assert index["manifests"][1]["annotations"] == {"io.containerd.image.name": "registry.example/x:1"}
    assert [entry["digest"] for entry in index["manifests"][2:]] == [str(image.root.digest)]
    await writer.untag(image.tags[0])
    await writer.untag(TagName.parse("registry.example/x:1"))
    assert json.loads(files.get(DIRECTORY / "index.json") or b"")["manifests"] == [foreign]


async def test_tags_that_can_not_be() -> None:
    """A tag of absent content, or with a registry that readers would not know for one, is refused."""
    writer = LayoutWriter(DIRECTORY, MemoryFiles())
    with pytest.raises(NotHere):
        await writer.tag(TagName.parse("registry.example/a:1"), make_image().root)
    with pytest.raises(BadRequest):
        await writer.tag(TagName("registry", "a", "1"), make_image().root)


async def test_broken_layouts_are_not_written() -> None:
    """A layout of another version is not written to, and a broken index stays as it is."""
    files = MemoryFiles()
    files.put(DIRECTORY / "oci-layout", b'{"imageLayoutVersion":"9"}')
    with pytest.raises(NotWritable, match="not a layout"):
        await LayoutWriter(DIRECTORY, files).prepare()
    files.put(DIRECTORY / "oci-layout", MARKER)
    files.put(DIRECTORY / "index.json", b"{broken")
    with pytest.raises(NotWritable, match="stays as it is"):
        await write(LayoutWriter(DIRECTORY, files), make_image())
    assert files.get(DIRECTORY / "index.json") == b"{broken"


async def test_full_disk() -> None:
    """A full disk raises StoreFull and leaves the layout as it was; later writes succeed when there is room."""
    files = MemoryFiles(bytes_free=2000)
    writer = LayoutWriter(DIRECTORY, files)
    await writer.prepare()
    with pytest.raises(StoreFull):
        await write(writer, make_image(layer_bytes=(3000,)))
    assert files.get(DIRECTORY / "index.json") == EMPTY_INDEX
    files.bytes_free = 100_000
    await write(writer, make_image(layer_bytes=(3000,)))


async def test_writers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """Many writers, each with its own open files, tag at the same time, also the same content: every tag is there."""
    images = [make_image(f"registry.example/app:v{n}", seed=n // 2, layer_bytes=(500,)) for n in range(8)]
    directory = tmp_path / "layout"
    async with trio.open_nursery() as nursery:
        for image in images:
            nursery.start_soon(write, LayoutWriter(directory, HostFiles()), image)
    index = json.loads((directory / "index.json").read_bytes())
    names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
    assert sorted(names) == sorted(str(image.tags[0]) for image in images)
    assert not [path.name for path in directory.iterdir() if path.name.startswith(".incoming")]


async def steps_of_writing(image: Image, old: Image) -> int:
    """Count the operations that writing an image beside an old one takes."""
    files = await old_layout(old)
    files.power_off_after(1_000_000)
    await write(LayoutWriter(DIRECTORY, files), image)
    assert files._steps_left is not None
    return 1_000_000 - files._steps_left


async def old_layout(old: Image) -> MemoryFiles:
    files = MemoryFiles()
    await write(LayoutWriter(DIRECTORY, files), old)
    return files


@pytest.mark.parametrize("seed", range(3))
async def test_crash_at_every_step(autojump_clock: Clock, seed: int) -> None:
    """Wherever the power fails, the old image stays, nothing unverified is listed, the next writer finishes.

    The new tag is there wholly or not at all, and after the next writer no file that nobody reads is left.
    """
    old, new = (
        make_image("registry.example/old:1", seed=1, layer_bytes=(40,)),
        make_image(seed=2, layer_bytes=(40, 900)),
    )
    chance = Random(seed)
    steps = await steps_of_writing(new, old)
    assert steps > 40
    for step in range(steps):
        files = await old_layout(old)
        files.power_off_after(step)
        with pytest.raises(PowerOff):
            await write(LayoutWriter(DIRECTORY, files), new)
        files.crash(chance)
        await check_listed(files, old, new, finished=False)
        await write(LayoutWriter(DIRECTORY, files), new)
        await check_listed(files, old, new, finished=True)
        assert not [name for name in await files.names(DIRECTORY) if name.startswith(".")]


async def check_listed(files: MemoryFiles, old: Image, new: Image, *, finished: bool) -> None:
    store = OciLayoutStore(DIRECTORY, files)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await trio.sleep(0.5)
        assert store.inventory.walked
        contents = {**old.content, **new.content}
        for info in store.inventory.blobs():
            with await store.open(info.digest) as blob:
                assert await blob.file.read_at(0, info.size) == contents[info.digest][0]
        listed = {info.digest for info in store.inventory.blobs()}
        assert set(old.content) <= listed
        assert store.inventory.tag(old.tags[0])
        if finished or store.inventory.tag(new.tags[0]):
            assert listed == set(contents)
        nursery.cancel_scope.cancel()


async def test_skopeo_reads_what_we_write(tmp_path: Path) -> None:
    """A layout that we wrote is one to skopeo too: it finds the image under its full name."""
    if shutil.which("skopeo") is None:
        leave_out("skopeo", "is not installed")
    image = make_image(layer_bytes=(100,))
    await write(LayoutWriter(tmp_path / "layout", HostFiles()), image)
    done = await trio.run_process(
        ["skopeo", "inspect", "--raw", f"oci:{tmp_path / 'layout'}:{image.tags[0]}"], capture_stdout=True
    )
    assert Digest.of(done.stdout) == image.root.digest


def test_descriptor_annotations_are_kept() -> None:
    """What a descriptor says beyond type, digest and size is written into the index."""
    from p2pmirror.oci import Platform
    from p2pmirror.store.ocilayout.index import read_roots, with_tag

    root = Descriptor(
        mediatype.OCI_MANIFEST,
        Digest.of(b""),
        5,
        Platform("linux", "arm64", "v8"),
        artifact_type="a/b",
        annotations={"x": "y"},
        urls=("https://example.com/",),
    )
    tag = TagName.parse("registry.example/a:1")
    (read,) = read_roots(with_tag(EMPTY_INDEX, tag, root)).entries
    assert read.tags == (tag,)
    assert (read.descriptor.platform, read.descriptor.artifact_type, read.descriptor.urls) == (
        root.platform,
        root.artifact_type,
        root.urls,
    )
    assert read.descriptor.annotations["x"] == "y"
