"""An image as the tar of an OCI layout, which `ctr images import` reads."""

import io
import json
import tarfile
from pathlib import Path

from tests.store.images import Image, as_json


def write_layout_tar(path: Path, *images: Image) -> Path:
    """Write the tar; return where."""
    manifests = [
        as_json(image.root, **{"io.containerd.image.name": str(tag)}) for image in images for tag in image.tags
    ]
    content = {digest: data for image in images for digest, (data, _) in image.content.items()}
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": manifests}).encode(),
        **{f"blobs/{digest.algorithm}/{digest.hex}": data for digest, data in content.items()},
    }
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path
