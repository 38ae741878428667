"""Archives of images come into a cache whole, under their names, or not at all."""

import gzip
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from p2pmirror.errors import StoreFull
from p2pmirror.oci import Manifest, TagName, mediatype, parse_manifest
from p2pmirror.operations.adding import Added, add
from p2pmirror.operations.archive import BadArchive
from p2pmirror.store.cache import CacheOptions, CacheStore
from p2pmirror.store.hostfiles import HostFiles
from tests.operations.archives import CONTAINERD_NAME, REF_NAME, directory, layer, layout, link, saved, tar
from tests.store.images import Image, make_image
from tests.store_cache.setting import content, listed

IMAGE = make_image(layer_bytes=(3000, 70_000))
TAG = IMAGE.tags[0]
NGINX = TagName("docker.io", "library/nginx", "1.27")


def nothing(count: int) -> None:
    """Show no progress."""


async def cache(tmp_path: Path, **options: int) -> CacheStore:
    store = CacheStore(tmp_path / "cache", HostFiles(), CacheOptions(free_bytes_min=0, **options))
    await store.look()
    return store


async def added(store: CacheStore, path: Path, name: TagName | None = None, *, pin: bool = False) -> Added:
    return await add(store, path, name=name, pin=pin, reading=nothing, writing=nothing)


async def has(store: CacheStore, image: Image) -> None:
    """Hold that the image is there as it was, by its tag, for this cache and for one that is opened later."""
    again = CacheStore(store._directory.places.root, HostFiles())
    await again.look()
    for each in (store, again):
        assert listed(each) >= set(image.content)
        for digest, (data, media_type) in image.content.items():
            assert await content(each, digest) == data
            info = each.inventory.blob(digest)
            assert info is not None
            assert (info.media_type, info.names) == (media_type, image.names)
        tag = each.inventory.tag(image.tags[0])
        assert tag is not None
        assert (tag.digest, tag.confirmed) == (image.root.digest, False)


# --- image layouts ---


@pytest.mark.parametrize("kind", ["directory", "tar", "gzip", "tar with ./"])
async def test_layouts(kind: str, tmp_path: Path) -> None:
    """An image layout, as a directory or a tar, is added with its tag, its types and its names; again adds nothing."""
    files = layout(IMAGE)
    if kind == "directory":
        path = directory(tmp_path / "layout", files)
    else:
        files = {f"./{name}": data for name, data in files.items()} if kind == "tar with ./" else files
        path = tar(tmp_path / "a.tar", files, packed=kind == "gzip")
    store = await cache(tmp_path)
    first = await added(store, path)
    assert (len(first.new), first.new_bytes > 70_000) == (len(IMAGE.content), True)
    await has(store, IMAGE)
    again = await added(store, path)
    assert (len(again.new), again.new_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("annotations", "name", "tags"),
    [
        ({CONTAINERD_NAME: "docker.io/library/nginx:1.27", REF_NAME: "1.27"}, None, (NGINX,)),
        ({REF_NAME: "v1"}, None, ()),
        ({REF_NAME: "v1"}, NGINX, (NGINX,)),
        ({REF_NAME: str(TAG)}, NGINX, (NGINX,)),
    ],
)
async def test_names_of_layouts(
    annotations: dict[str, str], name: TagName | None, tags: tuple[TagName, ...], tmp_path: Path
) -> None:
    """The name is containerd's, else the reference where it is one in full, else the one that the caller gives."""
    store = await cache(tmp_path)
    brought = await added(store, tar(tmp_path / "a.tar", layout(IMAGE, **annotations)), name)
    assert brought.images[0].tags == tags
    assert {tag.name for tag in store.inventory.tags()} == set(tags)
    assert listed(store) == set(IMAGE.content)


async def test_layout_of_one_platform(tmp_path: Path) -> None:
    """An index of which one platform alone was exported is added; its digest stays what the registry says."""
    files = layout(IMAGE)
    (gone,) = [
        digest
        for digest, (data, kind) in IMAGE.content.items()
        if kind == mediatype.OCI_MANIFEST and digest != IMAGE.root.digest
    ][1:]
    del files[f"blobs/sha256/{gone.hex}"]
    store = await cache(tmp_path)
    await added(store, tar(tmp_path / "a.tar", files))
    tag = store.inventory.tag(TAG)
    assert tag is not None
    assert tag.digest == IMAGE.root.digest
    assert gone not in listed(store)


# --- docker save ---


@pytest.mark.parametrize("packed", [False, True])
async def test_docker_save(packed: bool, tmp_path: Path) -> None:
    """What `docker save` wrote gets a manifest that names its config and its layers, under all of its tags."""
    files = saved(["nginx:1.27", "quay.io/org/app:v1"])
    store = await cache(tmp_path)
    brought = await added(store, tar(tmp_path / "a.tar", files, packed=packed))
    (image,) = brought.images
    assert image.tags == (NGINX, TagName("quay.io", "org/app", "v1"))
    for name in image.tags:
        tag = store.inventory.tag(name)
        assert tag is not None
        data = await content(store, tag.digest)
        manifest = parse_manifest(data, tag.media_type)
        assert isinstance(manifest, Manifest)
        assert manifest.config is not None
        assert json.loads(await content(store, manifest.config.digest))["os"] == "linux"
        assert [await content(store, each.digest) for each in manifest.layers] == [layer(1), layer(2)]
        assert {each.media_type for each in manifest.layers} == {mediatype.OCI_LAYER}
        for each in (manifest.config, *manifest.layers):
            info = store.inventory.blob(each.digest)
            assert info is not None
            assert info.names == {"docker.io/library/nginx", "quay.io/org/app"}
    other = await cache(tmp_path / "other")
    assert (await added(other, tmp_path / "a.tar")).images[0].root == image.root


async def test_docker_save_with_links_and_packed_layers(tmp_path: Path) -> None:
    """A layer that is a link to another one within the archive is that one; a gzipped layer stays gzipped."""
    files = saved(layers=[layer(1), layer(1)])
    del files["1/layer.tar"]
    store = await cache(tmp_path)
    await added(store, tar(tmp_path / "a.tar", files, link("1/layer.tar", "../0/layer.tar")))
    packed = saved(["quay.io/org/gz:1"])
    packed["0/layer.tar"] = gzip.compress(layer(1))
    brought = await added(store, tar(tmp_path / "b.tar", packed))
    types = [descriptor.media_type for descriptor, _ in brought.images[0].blobs]
    assert types == [mediatype.OCI_CONFIG, mediatype.OCI_LAYER_GZIP, mediatype.OCI_LAYER]


@pytest.mark.lab
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
async def test_what_skopeo_writes(kind: str, tmp_path: Path) -> None:
    """Archives of the real tool are added, and their layers are those of the image."""
    if shutil.which("skopeo") is None:
        from tests.groups import leave_out

        leave_out("lab", "needs skopeo")
    stem = saved(["registry.example/app:v1"])
    source = tar(tmp_path / "source.tar", stem)
    target = tmp_path / "target"
    name = "registry.example/app:v1"
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    arguments = ["skopeo", "--policy", str(policy), "copy", f"docker-archive:{source}", f"{kind}:{target}:{name}"]
    await trio.to_thread.run_sync(lambda: subprocess.run(arguments, check=True, capture_output=True))
    store = await cache(tmp_path)
    brought = await added(store, target)
    assert brought.images[0].tags == (TagName("registry.example", "app", "v1"),)
    layers = [await content(store, descriptor.digest) for descriptor, _ in brought.images[0].blobs[1:]]
    assert [gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each for each in layers] == [layer(1), layer(2)]


# --- what is refused ---

Change = Callable[[dict[str, bytes]], object]


def set_to(name: str, data: bytes) -> Change:
    return lambda files: files.__setitem__(name, data)


def first_blob(files: dict[str, bytes]) -> str:
    return next(name for name in files if name.startswith("blobs/"))


def shorten_a_blob(files: dict[str, bytes]) -> None:
    files[first_blob(files)] = files[first_blob(files)][:-1]


def lose_a_blob(files: dict[str, bytes]) -> None:
    del files[first_blob(files)]


BAD_LAYOUTS: dict[str, tuple[Change, str]] = {
    "a blob with other bytes": (shorten_a_blob, "does not have its content"),
    "a blob that is missing": (lose_a_blob, "is missing in the archive"),
    "another version": (set_to("oci-layout", b'{"imageLayoutVersion": "9"}'), "imageLayoutVersion"),
    "a broken index": (set_to("index.json", b"{"), "not readable JSON"),
    "no image": (set_to("index.json", b'{"schemaVersion": 2, "manifests": []}'), "no image"),
    "a root that is missing": (
        lambda files: files.pop(f"blobs/sha256/{IMAGE.root.digest.hex}"),
        "not in the archive",
    ),
    "an absolute path": (set_to("/etc/passwd", b"x"), "a path that no archive"),
    "a path that leads out": (set_to("blobs/../../x", b"x"), "a path that no archive"),
    "a path with a line end": (set_to("blobs/a\nb", b"x"), "a path that no archive"),
    "a name twice": (set_to("./index.json", b"{}"), "twice"),
}


@pytest.mark.parametrize("what", BAD_LAYOUTS)
async def test_bad_layouts(what: str, tmp_path: Path) -> None:
    """Each mistake in a layout is told in one line, and nothing of the archive is kept."""
    change, says = BAD_LAYOUTS[what]
    files = layout(IMAGE)
    change(files)
    await refused(tmp_path, tar(tmp_path / "a.tar", files), says)


BAD_SAVES: dict[str, tuple[dict[str, bytes], str]] = {
    "another layer": ({**saved(), "0/layer.tar": layer(9)}, "is not the layer"),
    "a layer that is missing": ({name: data for name, data in saved().items() if name != "1/layer.tar"}, "has no"),
    "fewer layers": (saved(entry={"Layers": ["0/layer.tar"]}), "names 2 layers"),
    "another config": (
        {name: data + b" " if name.endswith(".json") and len(name) > 60 else data for name, data in saved().items()},
        "does not have the content",
    ),
    "no config": (saved(entry={"Config": None}), "not a text"),
    "tags that are none": (saved(["Not A Tag"]), "no proper image"),
    "layers that are none": (saved(entry={"Layers": {"a": 1}}), "not a list"),
    "not a list": ({"manifest.json": b"{}"}, "not a list"),
    "not JSON": ({"manifest.json": b"[" * 100_000}, "not readable JSON"),
    "no image": ({"manifest.json": b"[]"}, "no image"),
    "something else": ({"readme": b"hello"}, "neither an OCI image layout"),
}


@pytest.mark.parametrize("what", BAD_SAVES)
async def test_bad_saves(what: str, tmp_path: Path) -> None:
    """Each mistake in what should be a `docker save` is told in one line, and nothing is kept."""
    files, says = BAD_SAVES[what]
    await refused(tmp_path, tar(tmp_path / "a.tar", files), says)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (link("x", "/etc/passwd"), "leads out"),
        (link("a/x", "../../etc/passwd"), "leads out"),
        (link("x", "../y", tarfile.LNKTYPE), "leads out"),
        (link("dev", "", tarfile.CHRTYPE), "no plain file"),
        (link("disk", "", tarfile.BLKTYPE), "no plain file"),
        (link("pipe", "", tarfile.FIFOTYPE), "no plain file"),
    ],
)
async def test_links_and_devices(extra: tarfile.TarInfo, says: str, tmp_path: Path) -> None:
    """Links that lead out of the archive, devices and pipes are refused, whatever else is in it."""
    await refused(tmp_path, tar(tmp_path / "a.tar", layout(IMAGE), extra), says)


async def test_a_layer_that_links_to_itself(tmp_path: Path) -> None:
    """Links in a circle are no layer."""
    files = saved()
    del files["1/layer.tar"]
    path = tar(tmp_path / "a.tar", files, link("1/layer.tar", "../2/layer.tar"), link("2/layer.tar", "../1/layer.tar"))
    await refused(tmp_path, path, "has no")


async def test_broken_tars(tmp_path: Path) -> None:
    """A cut, empty, foreign or compressed file, a pipe and an absent one: one line each."""
    whole = tar(tmp_path / "whole.tar", layout(IMAGE)).read_bytes()
    packed = gzip.compress(whole)
    broken = {
        "cut": whole[:5000],
        "empty": b"",
        "foreign": b"hello" * 1000,
        "zstd": b"\x28\xb5\x2f\xfd" + whole,
        "cut gzip": packed[: len(packed) // 2],
        "changed gzip": packed[:3000] + bytes(100) + packed[3100:],
    }
    for name, data in broken.items():
        path = tmp_path / name
        path.write_bytes(data)
        await refused(tmp_path, path, "zstd" if name == "zstd" else "")
    await refused(tmp_path, tmp_path / "absent", "No such file")
    await refused(tmp_path, tmp_path, "not a directory in OCI image layout")


async def test_bombs(tmp_path: Path) -> None:
    """A small file that unpacks to very much, and headers that say absurd sizes, end soon and in little memory."""
    zeros = tmp_path / "zeros.gz"
    info = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
    info.size = 1 << 40
    with gzip.open(zeros, "wb") as stream:
        stream.write(info.tobuf())
        for _ in range(100):
            stream.write(bytes(1 << 20))
    await refused(tmp_path, zeros, "100 times")
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        huge = tarfile.TarInfo("x")
        huge.size, huge.type = 1 << 33, kind
        path = tmp_path / "huge.tar"
        path.write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16))
        await refused(tmp_path, path, "impossible size")
    negative = tarfile.TarInfo("x")
    data = bytearray(negative.tobuf())
    data[124:136] = b"\xff" * 12
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * 32)
    path.write_bytes(bytes(data) + bytes(1 << 16))
    await refused(tmp_path, path, "")


async def test_links_in_a_directory(tmp_path: Path) -> None:
    """A layout directory in which a blob is a link is refused."""
    path = directory(tmp_path / "layout", layout(IMAGE))
    blob = path / first_blob(layout(IMAGE))
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    await refused(tmp_path, path, "is a link")


async def test_several_images_and_one_name(tmp_path: Path) -> None:
    """One name for an archive of several images is refused."""
    files = layout(IMAGE)
    other = make_image("registry.example/other:v1", seed=5)
    both = json.loads(files["index.json"])
    both["manifests"] += json.loads(layout(other)["index.json"])["manifests"]
    path = tar(tmp_path / "a.tar", {**layout(other), **files, "index.json": json.dumps(both).encode()})
    store = await cache(tmp_path)
    with pytest.raises(BadArchive, match="one name is not enough"):
        await added(store, path, NGINX)
    assert not listed(store)
    assert len((await added(store, path)).images) == 2


async def test_what_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    """An archive that has no room leaves the cache as it was."""
    other = make_image("registry.example/other:v1", seed=5, layer_bytes=(20_000,))
    for most in (60_000, 80_000):
        store = await cache(tmp_path / str(most), bytes_max=most)
        await added(store, tar(tmp_path / "small.tar", layout(other)))
        held = listed(store)
        with pytest.raises(StoreFull):
            await added(store, tar(tmp_path / "a.tar", layout(IMAGE)))
        assert listed(store) == held
        assert [tag.name for tag in store.inventory.tags()] == list(other.tags)
        assert store.remembered(TAG) is None


async def test_pinned_by_the_way(tmp_path: Path) -> None:
    """What is added with a pin is pinned by its tag, layers and all."""
    store = await cache(tmp_path)
    await added(store, tar(tmp_path / "a.tar", layout(IMAGE)), pin=True)
    assert store.pins == {str(TAG)}
    assert all(store.is_pinned(entry) for entry in store.entries)
    assert len(store.entries) == len(IMAGE.content)


async def refused(tmp_path: Path, path: Path, says: str) -> None:
    """Hold that an archive is refused in one line, and leaves nothing."""
    store = await cache(tmp_path)
    with trio.fail_after(60), pytest.raises(BadArchive) as caught:
        await added(store, path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not listed(store)
    assert not list(store.inventory.tags())
    assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]
