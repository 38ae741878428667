"""Images made on the spot, in layouts: the bytes follow from a number, so that each run moves the same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import trio

from p2pmirror.oci import Descriptor, Digest, TagName
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.ocilayout import LayoutWriter

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REGISTRY = "registry.example"
CHUNK_BYTES = 1 << 20
WRITERS = 16  # blobs written at once: each waits for its fsync most of the time


@dataclass(frozen=True)
class Image:
    """An image in the layout `directory`, and the digests of what it consists of."""

    directory: Path
    repository: str
    manifest: bytes
    config: str
    layers: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"

    def path(self, digest: str) -> Path:
        """Return the file of one of its blobs."""
        return self.directory / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def target(self, digest: str, *, ns: bool = True) -> str:
        """Return where the registry API has one of its digests; `ns`: with the registry's name, as containerd asks."""
        kind = "manifests" if digest == self.digest else "blobs"
        query = f"?ns={REGISTRY}" if ns else ""
        return f"/v2/{self.repository}/{kind}/{digest}{query}"


def write_images(directory: Path, images: Sequence[Sequence[int]]) -> list[Image]:
    """Write images whose layers have these sizes, in bytes, into a layout, which is made."""
    return trio.run(_write_images, directory, images)


def write_manifests(directory: Path, repository: str, count: int, manifest_bytes: int) -> list[Image]:
    """Write `count` images that differ in nothing but a manifest of `manifest_bytes`; one index leads to them all."""
    return trio.run(_write_manifests, directory, repository, count, manifest_bytes)


async def _write_images(directory: Path, images: Sequence[Sequence[int]]) -> list[Image]:
    writer = LayoutWriter(directory, HostFiles())
    await writer.prepare()
    return [await _write_image(writer, directory, number, sizes) for number, sizes in enumerate(images)]


async def _write_image(writer: LayoutWriter, directory: Path, number: int, sizes: Sequence[int]) -> Image:
    repository = f"bench/image-{number}"
    limiter = trio.CapacityLimiter(WRITERS)
    config = await _write(writer, limiter, number << 16, 500, CONFIG)  # what it says concerns nobody here
    layers = [config] * len(sizes)

    async def write_layer(place: int, size: int) -> None:
        layers[place] = await _write(writer, limiter, number << 16 | place + 1, size, LAYER)

    async with trio.open_nursery() as nursery:
        for place, size in enumerate(sizes):
            nursery.start_soon(write_layer, place, size)
    manifest = _manifest(config, layers)
    await writer.tag(TagName(REGISTRY, repository, "1"), await _write_document(writer, limiter, manifest, MANIFEST))
    return Image(directory, repository, manifest, str(config.digest), tuple(str(layer.digest) for layer in layers))


async def _write_manifests(directory: Path, repository: str, count: int, manifest_bytes: int) -> list[Image]:
    writer, limiter = LayoutWriter(directory, HostFiles()), trio.CapacityLimiter(WRITERS)
    config = await _write(writer, limiter, 1 << 40, 500, CONFIG)
    layer = await _write(writer, limiter, 1 << 41, 1000, LAYER)
    room = manifest_bytes - len(_manifest(config, [layer], padding=""))
    manifests = [_manifest(config, [layer], padding=f"{number:0{room}}") for number in range(count)]
    async with trio.open_nursery() as nursery:
        for manifest in manifests:
            nursery.start_soon(_write_document, writer, limiter, manifest, MANIFEST)
    entries = [_json(_described([manifest], MANIFEST)) for manifest in manifests]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    await writer.tag(TagName(REGISTRY, repository, "all"), await _write_document(writer, limiter, index, INDEX))
    layers = (str(layer.digest),)
    return [Image(directory, repository, manifest, str(config.digest), layers) for manifest in manifests]


async def _write(
    writer: LayoutWriter, limiter: trio.CapacityLimiter, seed: int, size: int, media_type: str
) -> Descriptor:
    descriptor = _described(_chunks(seed, size), media_type)
    async with limiter, writer.blob(descriptor.digest, descriptor.size) as sink:
        for chunk in _chunks(seed, size):
            await sink.write(chunk)
    return descriptor


async def _write_document(
    writer: LayoutWriter, limiter: trio.CapacityLimiter, document: bytes, media_type: str
) -> Descriptor:
    descriptor = _described([document], media_type)
    async with limiter, writer.blob(descriptor.digest, descriptor.size) as sink:
        await sink.write(document)
    return descriptor


def _manifest(config: Descriptor, layers: Sequence[Descriptor], padding: str | None = None) -> bytes:
    fields = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _json(config),
        "layers": [_json(layer) for layer in layers],
    }
    return json.dumps(fields if padding is None else {**fields, "annotations": {"padding": padding}}).encode()


def _chunks(seed: int, size: int) -> Iterator[bytes]:
    """Give incompressible content; each chunk differs, since it opens with its offset."""
    random = Random(seed).randbytes(min(size, CHUNK_BYTES))
    for offset in range(0, size, CHUNK_BYTES):
        yield (offset.to_bytes(8) + random[8:])[: min(size - offset, CHUNK_BYTES)]


def _described(chunks: Iterator[bytes] | Sequence[bytes], media_type: str) -> Descriptor:
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
    return Descriptor(media_type, Digest.parse(f"sha256:{hasher.hexdigest()}"), size)


def _json(descriptor: Descriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}
