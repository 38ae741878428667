"""The demo's image: real layers, an honest config, two platforms, the same each time."""

import io
import json
import tarfile
import zlib
from pathlib import Path

import pytest

from p2pmirror.demo.image import ARCHITECTURE, CHUNK_BYTES, LAYER_SHARES, OTHER_ARCHITECTURE, Layer, put_image
from p2pmirror.demo.scenario import NAME
from p2pmirror.oci import Digest, Index, Manifest, parse_manifest
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.store.ocilayout import LayoutWriter

LAYOUT = Path("/node/images")


@pytest.fixture
async def made():
    files = MemoryFiles()
    return await put_image(LayoutWriter(LAYOUT, files), NAME, 8 << 20, "test"), files


async def read(files, digest):
    return await files.read_whole(LAYOUT / "blobs" / digest.algorithm / digest.hex, 1 << 30)


async def test_the_image_is_whole(made):
    """Everything that the descriptors name is in the layout, with the digest and the size that they say."""
    image, files = made
    for descriptor in image.pulled:
        data = await read(files, descriptor.digest)
        assert Digest.of(data) == descriptor.digest
        assert len(data) == descriptor.size
    assert image.bytes == sum(each.size for each in image.pulled)


async def test_the_index_has_two_platforms(made):
    """One manifest is for this machine and one for another, and each can be read."""
    image, files = made
    index = parse_manifest(await read(files, image.index.digest), image.index.media_type)
    assert isinstance(index, Index)
    assert [str(each.platform) for each in index.manifests] == [f"linux/{ARCHITECTURE}", f"linux/{OTHER_ARCHITECTURE}"]
    for each in index.manifests:
        manifest = parse_manifest(await read(files, each.digest), each.media_type)
        assert isinstance(manifest, Manifest)
        for layer in manifest.layers:
            assert Digest.of(await read(files, layer.digest)) == layer.digest


async def test_layers_are_tars_that_the_config_describes(made):
    """Every layer unpacks, its files are the noise that was asked for, and diff_ids are the digests of the tars."""
    image, files = made
    _, _, config, *layers = image.pulled
    assert len(layers) == len(LAYER_SHARES)
    described = json.loads(await read(files, config.digest))
    assert described["rootfs"] == {"type": "layers", "diff_ids": [str(each.digest) for each in layers]}
    assert len(described["history"]) == len(layers)
    for layer in layers:
        data = await read(files, layer.digest)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            assert sum(member.size for member in archive if member.isfile()) >= layer.size - (64 << 10)
        assert len(zlib.compress(data, 1)) > 0.97 * len(data)


def test_the_same_seed_makes_the_same_layer():
    """A layer depends on its seed and size alone, and two seeds make two layers."""
    assert Layer("a", 3 * CHUNK_BYTES).descriptor() == Layer("a", 3 * CHUNK_BYTES).descriptor()
    assert Layer("a", CHUNK_BYTES).descriptor() != Layer("b", CHUNK_BYTES).descriptor()


def test_large_layers_hold_several_files():
    """A layer beyond a file's largest size is split, without losing a byte."""
    data = b"".join(Layer("a", 17 * CHUNK_BYTES).chunks())
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        assert [member.size for member in archive if member.isfile()] == [16 * CHUNK_BYTES, CHUNK_BYTES]
