"""A few images as bytes, for a registry of any kind to hold."""

from __future__ import annotations

import json
from random import Random

from p2pmirror.oci import Descriptor, Digest, mediatype

REPOSITORY = "library/app"
EMPTY = b"{}"


def _dump(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


class Holdings:
    """An image `v1` of two layers, an index `multi` of it, and a signature that refers to the image."""

    def __init__(self, *, layer_bytes: int = 300_000, seed: int = 1) -> None:
        random = Random(seed)
        self.repository = REPOSITORY
        self.layer = random.randbytes(layer_bytes)
        self.small = random.randbytes(1000)
        self.config = _dump({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
        self.manifest = _dump(
            {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_MANIFEST,
                "config": _descriptor(mediatype.OCI_CONFIG, self.config),
                "layers": [_descriptor(mediatype.OCI_LAYER, each) for each in (self.layer, self.small)],
            }
        )
        self.index = _dump(
            {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_INDEX,
                "manifests": [_descriptor(mediatype.OCI_MANIFEST, self.manifest)],
            }
        )
        self.signature = _dump(
            {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_MANIFEST,
                "artifactType": "application/vnd.example.signature",
                "config": _descriptor(mediatype.OCI_EMPTY, EMPTY),
                "layers": [_descriptor(mediatype.OCI_EMPTY, EMPTY)],
                "subject": _descriptor(mediatype.OCI_MANIFEST, self.manifest),
            }
        )
        self.referrers = _dump(
            {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_INDEX,
                "manifests": [
                    _descriptor(mediatype.OCI_MANIFEST, self.signature)
                    | {"artifactType": "application/vnd.example.signature"}
                ],
            }
        )
        self.blobs = [self.layer, self.small, self.config, EMPTY]

    @property
    def layer_digest(self) -> Digest:
        return Digest.of(self.layer)

    @property
    def manifest_digest(self) -> Digest:
        return Digest.of(self.manifest)

    @property
    def root(self) -> Descriptor:
        return Descriptor(mediatype.OCI_MANIFEST, self.manifest_digest, len(self.manifest))

    @property
    def documents(self) -> list[tuple[bytes, str, tuple[str, ...]]]:
        """Each document with its media type and its tags, in an order in which they can be pushed."""
        return [
            (self.manifest, mediatype.OCI_MANIFEST, ("v1", "latest")),
            (self.index, mediatype.OCI_INDEX, ("multi",)),
            (self.signature, mediatype.OCI_MANIFEST, ()),
        ]

    @property
    def referrers_tag(self) -> str:
        """The tag under which registries without a list of referrers keep one."""
        return str(self.manifest_digest).replace(":", "-")
