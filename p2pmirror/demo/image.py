"""An image made on the spot: real tar layers that nothing can compress, for two platforms under one index.

Laws: the bytes follow from the seed, so the same call makes the same image; memory holds one chunk of it at a time, so
each layer is made twice: once for its digest, once to be written.

Follows the OCI image specification: image-index.md, manifest.md, config.md and layer.md.
"""

import json
import platform
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import trio

from p2pmirror.oci import Descriptor, Digest, TagName, mediatype
from p2pmirror.store.ocilayout import LayoutWriter

CHUNK_BYTES: Final = 1 << 20  # 1 MiB: made in some 3 ms
FILE_CHUNKS: Final = 16  # chunks a file in a layer: a few files of 16 MiB, as packages of programs have
LAYER_SHARES: Final = (16, 12, 9, 7, 5, 3)  # how large layers are, one to the other: no two alike, as in real images
OTHER_LAYER_BYTES: Final = 4 << 20  # 4 MiB: the other platform is there to be left alone
_TAR_BLOCK: Final = 512  # bytes: what tar rounds to

ARCHITECTURE: Final = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER_ARCHITECTURE: Final = "arm64" if ARCHITECTURE == "amd64" else "amd64"


@dataclass(frozen=True, slots=True)
class Image:
    """An image under a name; `pulled` is what a node of this machine's platform pulls, the index first."""

    name: TagName
    index: Descriptor
    pulled: tuple[Descriptor, ...]

    @property
    def bytes(self) -> int:
        """How much a node pulls."""
        return sum(descriptor.size for descriptor in self.pulled)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that can be made again and again; `content_bytes` is rounded up to chunks."""

    seed: str
    content_bytes: int

    def chunks(self) -> Iterator[bytes]:
        """Make the layer's tar, piece by piece."""
        random = Random(self.seed)  # noqa: S311  # noise that can be made again, not a secret
        left = -(-self.content_bytes // CHUNK_BYTES)
        yield _entry(f"srv/{self.seed}", directory=True)
        number = 0
        while left:
            count = min(left, FILE_CHUNKS)
            yield _entry(f"srv/{self.seed}/part-{number}.bin", size=count * CHUNK_BYTES)
            for _ in range(count):
                yield random.randbytes(CHUNK_BYTES)
            left -= count
            number += 1
        yield bytes(2 * _TAR_BLOCK)

    def descriptor(self) -> Descriptor:
        """Make it once to know its digest and size."""
        hasher, size = Digest.of(b"").hasher(), 0
        for chunk in self.chunks():
            hasher.update(chunk)
            size += len(chunk)
        return Descriptor(mediatype.OCI_LAYER, Digest("sha256", hasher.hexdigest()), size)


async def put_image(writer: LayoutWriter, name: TagName, layer_bytes: int, seed: str) -> Image:
    """Make an image whose layers have `layer_bytes` together, and put it into a layout under `name`.

    Raises `StoreFull`. Cancelled, some of its blobs are there, and no tag.
    """
    unit = layer_bytes / sum(LAYER_SHARES)
    layers = [Layer(f"{seed}-{number}", round(share * unit)) for number, share in enumerate(LAYER_SHARES)]
    pulled = await _put_platform(writer, ARCHITECTURE, layers)
    other = await _put_platform(writer, OTHER_ARCHITECTURE, [Layer(f"{seed}-other", OTHER_LAYER_BYTES)])
    manifests = [
        {**_json(manifest), "platform": {"os": "linux", "architecture": architecture}}
        for manifest, architecture in ((pulled[0], ARCHITECTURE), (other[0], OTHER_ARCHITECTURE))
    ]
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": manifests}
    descriptor = await _put_document(writer, mediatype.OCI_INDEX, index)
    await writer.tag(name, descriptor)
    return Image(name, descriptor, (descriptor, *pulled))


async def _put_platform(writer: LayoutWriter, architecture: str, layers: list[Layer]) -> list[Descriptor]:
    """Write one platform's blobs; return manifest, config and layers."""
    descriptors = [await _put_layer(writer, layer) for layer in layers]
    config = await _put_document(
        writer,
        mediatype.OCI_CONFIG,
        {
            "os": "linux",
            "architecture": architecture,
            "config": {"Cmd": ["/bin/true"]},
            # plain tar: a layer's digest is also that of its content
            "rootfs": {"type": "layers", "diff_ids": [str(each.digest) for each in descriptors]},
            "history": [{"created_by": "p2pmirror demo"} for _ in descriptors],
        },
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": _json(config),
        "layers": [_json(each) for each in descriptors],
    }
    return [await _put_document(writer, mediatype.OCI_MANIFEST, manifest), config, *descriptors]


async def _put_layer(writer: LayoutWriter, layer: Layer) -> Descriptor:
    descriptor = await trio.to_thread.run_sync(layer.descriptor)
    async with writer.blob(descriptor.digest, descriptor.size) as sink:
        for chunk in layer.chunks():
            await sink.write(chunk)
    return descriptor


async def _put_document(writer: LayoutWriter, media_type: str, fields: dict[str, Any]) -> Descriptor:
    data = json.dumps(fields).encode()
    descriptor = Descriptor(media_type, Digest.of(data), len(data))
    async with writer.blob(descriptor.digest, descriptor.size) as sink:
        await sink.write(data)
    return descriptor


def _json(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


def _entry(name: str, *, size: int = 0, directory: bool = False) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    entry.mode = 0o755 if directory else 0o644
    entry.size = size
    return entry.tobuf(tarfile.USTAR_FORMAT)
