"""A descriptor points from a manifest at content: what it is, its digest and its size.

Laws: read from JSON of unknown origin, so every field is checked before it is kept; `null` is the same as absent, as
Go's encoders write it; fields that no pull needs (`data`, `os.version`) are not kept.

Follows the OCI image specification, descriptor.md and, for the platform, image-index.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from p2pmirror.oci import mediatype
from p2pmirror.oci.digest import Digest
from p2pmirror.oci.errors import Invalid

SIZE_BYTES_MAX: Final = 2**63 - 1  # bytes: the specification's int64, and the largest offset of a file
ANNOTATIONS_MAX: Final = 1_000  # annotations of one object: build tools write fewer than twenty
URLS_MAX: Final = 100  # addresses of one foreign layer: those in use have one


def _no_annotations() -> Mapping[str, str]:
    return MappingProxyType({})


def spellings(*names: str) -> Mapping[str, str]:
    """Map each field's name, in the form in which Go compares names, to its one allowed spelling."""
    return {name.casefold(): name for name in names}


_FIELDS: Final = spellings("mediaType", "digest", "size", "platform", "artifactType", "annotations", "urls")
_PLATFORM_FIELDS: Final = spellings("os", "architecture", "variant")


@dataclass(frozen=True, slots=True)
class Platform:
    """The machine that an image is for, as `linux`, `arm64`, `v8`; what the index leaves out is empty or None."""

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One piece of content as a manifest names it; `size` in bytes. Equal when all is equal, annotations included."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=_no_annotations, hash=False)
    urls: tuple[str, ...] = ()


def read_descriptor(value: object, what: str) -> Descriptor:
    """Check one decoded JSON value; Invalid (MANIFEST_INVALID) names it as `what`."""
    fields = read_object(value, what, _FIELDS)
    return Descriptor(
        media_type=mediatype.check(_required(fields, "mediaType", what)),
        digest=_digest(_required(fields, "digest", what), what),
        size=_size(fields.get("size"), what),
        platform=_platform(fields.get("platform"), what),
        artifact_type=read_text(fields, "artifactType", what),
        annotations=read_annotations(fields, what),
        urls=_urls(fields.get("urls"), what),
    )


def read_object(value: object, what: str, spelling: Mapping[str, str]) -> dict[str, Any]:
    """Check that a decoded JSON value is an object whose known fields are spelled exactly.

    Go's decoder takes `Layers` and `LAYERS` for `layers`: a document that uses this would be two to two readers.
    """
    if not isinstance(value, dict):
        raise Invalid("MANIFEST_INVALID", f"{what} is not an object")
    for key in value:
        if spelling.get(key.casefold(), key) != key:
            raise Invalid("MANIFEST_INVALID", f"a field of {what} is misspelled", key)
    return value


def read_text(fields: Mapping[str, Any], name: str, what: str) -> str | None:
    """Return a field's text, None where it is absent; Invalid (MANIFEST_INVALID) for another type."""
    value = fields.get(name)
    return None if value is None else _text(value, f"{name} of {what}")


def read_annotations(fields: Mapping[str, Any], what: str) -> Mapping[str, str]:
    """Return an object's annotations, read-only and empty where they are absent."""
    value = fields.get("annotations")
    if value is None:
        return _no_annotations()
    if not isinstance(value, dict) or len(value) > ANNOTATIONS_MAX:
        raise Invalid("MANIFEST_INVALID", f"annotations of {what} are not an object of at most {ANNOTATIONS_MAX} texts")
    of = f"an annotation of {what}"
    return MappingProxyType({_text(key, of): _text(text, of) for key, text in value.items()})


def _required(fields: Mapping[str, Any], name: str, what: str) -> str:
    value = read_text(fields, name, what)
    if value is None:
        raise Invalid("MANIFEST_INVALID", f"{what} has no {name}")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise Invalid("MANIFEST_INVALID", f"{what} is not a text")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise Invalid("MANIFEST_INVALID", f"{what} has half a character, which no encoding can carry", value)
    return value


def _digest(text: str, what: str) -> Digest:
    try:
        return Digest.parse(text)
    except Invalid as cause:
        raise Invalid("MANIFEST_INVALID", f"digest of {what} is wrong", text) from cause


def _size(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value <= SIZE_BYTES_MAX:  # a bool is an int to isinstance
        raise Invalid("MANIFEST_INVALID", f"size of {what} is not a number of bytes")
    return value


def _platform(value: object, what: str) -> Platform | None:
    if value is None:
        return None
    of = f"platform of {what}"
    fields = read_object(value, of, _PLATFORM_FIELDS)
    return Platform(
        read_text(fields, "os", of) or "", read_text(fields, "architecture", of) or "", read_text(fields, "variant", of)
    )


def _urls(value: object, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > URLS_MAX:
        raise Invalid("MANIFEST_INVALID", f"urls of {what} are not a list of at most {URLS_MAX} texts")
    return tuple(_text(url, f"an address of {what}") for url in value)
