"""Archives as tools write them, made by hand, so that each part of them can be wrong."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from random import Random
from typing import Any

from p2pmirror.oci import Digest
from tests.store.images import Image, as_json

CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
MARKER = json.dumps({"imageLayoutVersion": "1.0.0"}).encode()


def tar(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo, packed: bool = False) -> Path:
    """Write a tar of these files, and of headers without bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    path.write_bytes(gzip.compress(stream.getvalue()) if packed else stream.getvalue())
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """Return the header of a link, or of another special member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def layout(image: Image, **names: str) -> dict[str, bytes]:
    """Return the files of an image layout; without names it has the image's tag in full."""
    annotations = names or {REF_NAME: str(image.tags[0])}
    index = {"schemaVersion": 2, "manifests": [as_json(image.root, **annotations)]}
    blobs = {f"blobs/{digest.algorithm}/{digest.hex}": data for digest, (data, _) in image.content.items()}
    return {"oci-layout": MARKER, "index.json": json.dumps(index).encode(), **blobs}


def directory(path: Path, files: dict[str, bytes]) -> Path:
    """Write files below a directory."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def layer(seed: int, size: int = 5000) -> bytes:
    """Return a layer: a tar with a file of chance."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo(f"file-{seed}")
        info.size = size
        archive.addfile(info, io.BytesIO(Random(seed).randbytes(size)))
    return stream.getvalue()


def saved(
    tags: list[str] | None = None, *, layers: list[bytes] | None = None, entry: dict[str, Any] | None = None
) -> dict[str, bytes]:
    """Return the files of a `docker save` of one image, the list of images last as Docker writes it."""
    contents = layers if layers is not None else [layer(1), layer(2)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(each)) for each in contents]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    files = {f"{number}/layer.tar": data for number, data in enumerate(contents)}
    said = {"Config": name, "RepoTags": tags or ["nginx:1.27"], "Layers": list(files), **(entry or {})}
    return {**files, name: config, "manifest.json": json.dumps([said]).encode()}
