"""What the OCI specifications say, as values: digests, references, media types, manifests, paths of the registry API.

Laws: this room is pure (no clock, no chance, no input or output) and imports only the standard library; whatever is not
valid raises `Invalid`, which the rooms above translate at their borders; values are frozen, hashable and safe to share.
"""

from p2pmirror.oci import mediatype
from p2pmirror.oci.descriptor import Descriptor, Platform
from p2pmirror.oci.digest import Digest, Hasher
from p2pmirror.oci.errors import Code, Invalid
from p2pmirror.oci.manifest import DOCUMENT_BYTES_MAX, Index, Manifest, children, media_type_of, parse_manifest
from p2pmirror.oci.paths import (
    Base,
    BlobPath,
    ManifestPath,
    NotAPath,
    Path,
    ReferrersPath,
    TagsPath,
    blob_path,
    manifest_path,
    parse_path,
)
from p2pmirror.oci.reference import (
    Reference,
    TagName,
    canonical_registry,
    canonical_repository,
    check_registry,
    check_repository,
    check_tag,
)
from p2pmirror.oci.traversal import Role, Visit, Walk, walk

__all__ = [
    "DOCUMENT_BYTES_MAX",
    "Base",
    "BlobPath",
    "Code",
    "Descriptor",
    "Digest",
    "Hasher",
    "Index",
    "Invalid",
    "Manifest",
    "ManifestPath",
    "NotAPath",
    "Path",
    "Platform",
    "Reference",
    "ReferrersPath",
    "Role",
    "TagName",
    "TagsPath",
    "Visit",
    "Walk",
    "blob_path",
    "canonical_registry",
    "canonical_repository",
    "check_registry",
    "check_repository",
    "check_tag",
    "children",
    "manifest_path",
    "media_type_of",
    "mediatype",
    "parse_manifest",
    "parse_path",
    "walk",
]
