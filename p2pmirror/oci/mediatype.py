"""The media types of container images, Docker's and OCI's, and what each kind of them means for a pull.

Laws: media types are compared exactly as they are written; one that is not listed here is content without children.

Follows the OCI image specification, media-types.md, and Docker's image manifest version 2, schema 2.
"""

import re
from typing import Final

from p2pmirror.oci.errors import Invalid

OCTET_STREAM: Final = "application/octet-stream"

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST_V1: Final = "application/vnd.docker.distribution.manifest.v1+json"  # schema 1, to be refused
DOCKER_MANIFEST_V1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_FOREIGN_LAYER: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_FOREIGN_LAYER_GZIP: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_FOREIGN_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_ARTIFACT_MANIFEST: Final = "application/vnd.oci.artifact.manifest.v1+json"

INDEXES: Final = frozenset({DOCKER_MANIFEST_LIST, OCI_INDEX})
MANIFESTS: Final = frozenset({DOCKER_MANIFEST, OCI_MANIFEST, OCI_ARTIFACT_MANIFEST})
SCHEMA_1: Final = frozenset({DOCKER_MANIFEST_V1, DOCKER_MANIFEST_V1_SIGNED})

_DESCRIBING = INDEXES | MANIFESTS
_FOREIGN = frozenset(
    {
        DOCKER_FOREIGN_LAYER,
        DOCKER_FOREIGN_LAYER_GZIP,
        OCI_FOREIGN_LAYER,
        OCI_FOREIGN_LAYER_GZIP,
        OCI_FOREIGN_LAYER_ZSTD,
    }
)
# RFC 6838, section 4.2: the restricted names, of at most 127 characters each
_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


def is_index(media_type: str) -> bool:
    """Say whether this is a list of manifests: Docker's manifest list or an OCI index."""
    return media_type in INDEXES


def is_manifest(media_type: str) -> bool:
    """Say whether this is one image's manifest or an artifact's."""
    return media_type in MANIFESTS


def describes(media_type: str) -> bool:
    """Say whether content of this type names other content, so that a walk must read it."""
    return media_type in _DESCRIBING


def is_foreign(media_type: str) -> bool:
    """Say whether this is a layer that registries need not hold (its descriptor has `urls`)."""
    return media_type in _FOREIGN


def check(text: str) -> str:
    """Return `text` if it is a media type without parameters; else Invalid (MANIFEST_INVALID)."""
    if _FORM.fullmatch(text) is None:
        raise Invalid("MANIFEST_INVALID", "not a media type", text)
    return text
