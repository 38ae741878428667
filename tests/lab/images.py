"""Images made on the spot: OCI image layouts that containerd can really unpack.

Laws: the bytes follow from the seed alone, so the same call gives the same digests; file contents are random, so that
no compression hides how many bytes travel.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

RANDOM_BYTES = 64 << 20  # drawn at a time
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER_ARCHITECTURE = "arm64" if ARCHITECTURE == "amd64" else "amd64"


@dataclass(frozen=True)
class Image:
    """An image layout in `directory` under the name `repository:tag`, and what it is made of (digests)."""

    directory: Path
    repository: str
    tag: str
    descriptor: dict[str, Any]  # of the index or manifest that the tag names
    manifest: str  # the manifest for this architecture, its config and its layers
    config: str
    layers: list[str]
    sizes: dict[str, int]  # of every blob of every platform, in bytes

    @property
    def digest(self) -> str:
        """The digest of the index or manifest that the tag names."""
        return str(self.descriptor["digest"])

    @property
    def here(self) -> list[str]:
        """What a node of this architecture pulls, the top one first."""
        return list(dict.fromkeys([self.digest, self.manifest, self.config, *self.layers]))

    @property
    def size(self) -> int:
        """Bytes that a node of this architecture pulls."""
        return sum(self.sizes[digest] for digest in self.here)

    @property
    def blob_bytes(self) -> int:
        """Bytes of config and layers: what is pulled as blobs, not as manifests."""
        return sum(self.sizes[digest] for digest in {self.config, *self.layers})

    def name(self, registry: str) -> str:
        """Return the image's name by tag."""
        return f"{registry}/{self.repository}:{self.tag}"

    def name_by_digest(self, registry: str) -> str:
        """Return the image's name by digest."""
        return f"{registry}/{self.repository}@{self.digest}"

    def blob(self, digest: str) -> Path:
        """Return the file that holds a blob."""
        return _blob_path(self.directory, digest)

    def tar(self, path: Path, registry: str) -> Path:
        """Pack the layout as `ctr images import` takes it; `path` is written and returned."""
        names = {"io.containerd.image.name": self.name(registry), "org.opencontainers.image.ref.name": self.tag}
        index = _layout_index(self.descriptor, names)
        with tarfile.open(path, "w") as archive:
            _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(archive, "index.json", index)
            for digest in self.sizes:
                archive.add(self.blob(digest), f"blobs/sha256/{digest.removeprefix('sha256:')}")
        return path


def make_image(
    directory: Path,
    layer_bytes: Sequence[int],
    *,
    seed: int,
    repository: str = "team/app",
    tag: str = "1",
    gzipped: bool = False,
    two_platforms: bool = False,
) -> Image:
    """Make an image with layers of the given sizes in `directory` (made when missing).

    `two_platforms` puts an index over this architecture's manifest and another's (with one small layer).
    """
    _blob_path(directory, "").mkdir(parents=True)
    random = Random(seed)
    sizes: dict[str, int] = {}
    put = partial(_put, directory, sizes)
    top, config, layers = _make_platform(put, ARCHITECTURE, layer_bytes, random, gzipped=gzipped)
    manifest = top["digest"]
    if two_platforms:
        other, *_ = _make_platform(put, OTHER_ARCHITECTURE, [10_000], random, gzipped=gzipped)
        top = put(INDEX, _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top, other]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_bytes(_layout_index(top, {"org.opencontainers.image.ref.name": tag}))
    return Image(directory, repository, tag, top, manifest, config, layers, sizes)


def _make_platform(
    put: Callable[[str, bytes], dict[str, Any]],
    architecture: str,
    layer_bytes: Sequence[int],
    random: Random,
    *,
    gzipped: bool,
) -> tuple[dict[str, Any], str, list[str]]:
    """Make layers, config and manifest; returns the manifest's descriptor, the config's digest, the layers' digests."""
    plain = [_layer(f"layer-{number}", _bytes(random, size)) for number, size in enumerate(layer_bytes)]
    packed = [gzip.compress(layer, compresslevel=1, mtime=0) for layer in plain] if gzipped else plain
    layers = [put(LAYER + "+gzip" * gzipped, layer) for layer in packed]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/layer-0"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in plain]},
        "history": [{"created_by": "p2pmirror lab"} for _ in layers],
    }
    config_descriptor = put(CONFIG, _json(config))
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config_descriptor, "layers": layers}
    descriptor = put(MANIFEST, _json(manifest))
    descriptor["platform"] = {"architecture": architecture, "os": "linux"}
    return descriptor, config_descriptor["digest"], [layer["digest"] for layer in layers]


def _bytes(random: Random, size: int) -> bytes:
    """Return so many bytes; one call gives less than 256 MiB."""
    return b"".join(random.randbytes(min(RANDOM_BYTES, size - at)) for at in range(0, size, RANDOM_BYTES))


def _layer(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        _add(archive, name, content)
    return packed.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o644
    archive.addfile(entry, io.BytesIO(content))


def _put(directory: Path, sizes: dict[str, int], media_type: str, content: bytes) -> dict[str, Any]:
    digest = _digest(content)
    _blob_path(directory, digest).write_bytes(content)
    sizes[digest] = len(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _blob_path(directory: Path, digest: str) -> Path:
    return directory / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _layout_index(descriptor: dict[str, Any], annotations: dict[str, str]) -> bytes:
    named = {**descriptor, "annotations": annotations}
    return _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]})


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
