"""Small images made on the spot, as containerd's `ctr images import` takes them: a tar of an OCI image layout."""

import hashlib
import io
import json
import random
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass
class Image:
    """Blobs of one image by digest, and the descriptor of its manifest or index."""

    name: str
    target: dict[str, object]
    blobs: dict[str, bytes] = field(default_factory=dict)
    media_types: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return str(self.target["digest"])

    def write(self, path: Path) -> Path:
        """Write the tar that `ctr images import` reads."""
        index = {
            "schemaVersion": 2,
            "manifests": [{**self.target, "annotations": {"io.containerd.image.name": self.name}}],
        }
        files = {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **{f"blobs/{digest.replace(':', '/')}": data for digest, data in self.blobs.items()},
        }
        with tarfile.open(path, "w") as tar:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        return path


def make_image(name: str, *, seed: int = 0, layers: int = 2, layer_bytes: int = 3000) -> Image:
    """Make an image of one platform, with real tar layers of random bytes."""
    image = Image(name, {})
    noise = random.Random(seed)
    made = []
    for number in range(layers):
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            entry = tarfile.TarInfo(f"file-{number}")
            entry.size = layer_bytes
            tar.addfile(entry, io.BytesIO(noise.randbytes(layer_bytes)))
        made.append(layer.getvalue())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in made]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add(image, json.dumps(config).encode(), CONFIG),
        "layers": [add(image, data, LAYER) for data in made],
    }
    image.target = add(image, json.dumps(manifest).encode(), MANIFEST)
    return image


def make_index(name: str, *, seed: int = 0, absent: bool = True) -> Image:
    """Make an index of two platforms; with `absent`, the second platform's manifest is not in the image."""
    first = make_image(name, seed=seed)
    image = Image(name, {}, first.blobs, first.media_types)
    second = make_image(name, seed=seed + 1)
    if not absent:
        image.blobs.update(second.blobs)
        image.media_types.update(second.media_types)
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            {**first.target, "platform": {"os": "linux", "architecture": "amd64"}},
            {**second.target, "platform": {"os": "linux", "architecture": "arm64"}},
        ],
    }
    image.target = add(image, json.dumps(index).encode(), INDEX)
    return image


def add(image: Image, data: bytes, media_type: str) -> dict[str, object]:
    """Put a blob into the image; return its descriptor."""
    digest = digest_of(data)
    image.blobs[digest] = data
    image.media_types[digest] = media_type
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
