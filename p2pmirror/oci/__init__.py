"""What the OCI specifications say, as values: digests, references, media types, manifests, paths of the registry API.

Laws: this room is pure (no clock, no chance, no input or output) and imports only the standard library; whatever is not
valid raises `Invalid`, which the rooms above translate at their borders; values are frozen, hashable and safe to share.
"""

from p2pmirror.oci import mediatype
from p2pmirror.oci.digest import Digest, Hasher
from p2pmirror.oci.errors import Code, Invalid
from p2pmirror.oci.reference import (
    Reference,
    TagName,
    canonical_registry,
    canonical_repository,
    check_registry,
    check_repository,
    check_tag,
)

__all__ = [
    "Code",
    "Digest",
    "Hasher",
    "Invalid",
    "Reference",
    "TagName",
    "canonical_registry",
    "canonical_repository",
    "check_registry",
    "check_repository",
    "check_tag",
    "mediatype",
]
