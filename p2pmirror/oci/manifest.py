"""Manifests and indexes: the documents that say of which contents an image is made.

Laws: a document means one thing or is refused (no key twice, no index that is also a manifest, no media type that
contradicts the one it was asked for by); reading raises `Invalid` and nothing else, whatever the bytes; size and
depth are bounded.

Follows the OCI image specification (manifest.md, image-index.md), the artifact manifest of 1.1's candidates, and
Docker's image manifest version 2, schema 2. Against documents with two meanings: GHSA-77vh-xpmg-72qh.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from p2pmirror.oci import mediatype
from p2pmirror.oci.descriptor import Descriptor, read_annotations, read_descriptor, read_object, read_text, spellings
from p2pmirror.oci.errors import Invalid

# bytes: what containerd reads of a manifest; registries stop a little earlier, at 4 MiB
DOCUMENT_BYTES_MAX: Final = 4 * 1048 * 1048
DESCRIPTORS_MAX: Final = 10_000  # descriptors of one document: overlayfs stacks 500 layers, large indexes name hundreds
# A JSON object of two bytes takes sixty in memory: without these limits 4 MiB become 125, with them 50 at most.
OBJECTS_MAX: Final = 50_000  # `{` and `[`: a descriptor has three besides itself (platform, annotations, urls)
VALUES_MAX: Final = 200_000  # commas: twenty of each descriptor; those in use have ten

_PARTS: Final = frozenset({"config", "layers", "blobs", "manifests"})
_IMAGE_PARTS: Final = frozenset({"config", "layers"})
_PARTS_OF: Final = {  # which of them a document of this kind may have; an image's parts where the kind is not listed
    mediatype.OCI_INDEX: frozenset({"manifests"}),
    mediatype.DOCKER_MANIFEST_LIST: frozenset({"manifests"}),
    mediatype.OCI_ARTIFACT_MANIFEST: frozenset({"blobs"}),
}
_FIELDS: Final = spellings(
    "schemaVersion", "mediaType", "artifactType", "subject", "annotations", "fsLayers", *sorted(_PARTS)
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image or artifact; `config` is None in artifact manifests alone, whose blobs are the `layers`."""

    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Index:
    """Several manifests under one name, mostly one a platform; an index may name indexes."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


def parse_manifest(data: bytes, media_type: str | None) -> Manifest | Index:
    """Read a document; `media_type` is what names it says it is, None to take the document's own word or its shape.

    Raises Invalid: UNSUPPORTED for Docker's schema 1 and for media types that are no manifest, else MANIFEST_INVALID.
    """
    fields = _fields(data)
    kind = _media_type(fields, media_type)
    return _index(fields, kind) if mediatype.is_index(kind) else _manifest(fields, kind)


def media_type_of(data: bytes, media_type: str | None) -> str:
    """Return the media type of a document without reading its descriptors. Raises Invalid, as `parse_manifest` does."""
    return _media_type(_fields(data), media_type)


def children(document: Manifest | Index) -> tuple[Descriptor, ...]:
    """Name what a pull of this document needs next, in its order: config and layers, or manifests. Not the subject."""
    if isinstance(document, Index):
        return document.manifests
    return document.layers if document.config is None else (document.config, *document.layers)


def _fields(data: bytes) -> dict[str, Any]:
    return {name: value for name, value in _decoded(data).items() if value is not None}


def _decoded(data: bytes) -> dict[str, Any]:
    if len(data) > DOCUMENT_BYTES_MAX:
        raise Invalid("MANIFEST_INVALID", f"a manifest has at most {DOCUMENT_BYTES_MAX} bytes, not {len(data)}")
    if data.count(b"{") + data.count(b"[") > OBJECTS_MAX or data.count(b",") > VALUES_MAX:
        raise Invalid("MANIFEST_INVALID", f"a manifest has at most {OBJECTS_MAX} objects and {VALUES_MAX} values")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except Invalid:
        raise
    except (ValueError, RecursionError) as cause:  # not UTF-8, not JSON, a number of thousands of digits; too deep
        raise Invalid("MANIFEST_INVALID", "a manifest is not readable JSON") from cause
    return read_object(value, "a manifest", _FIELDS)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Invalid("MANIFEST_INVALID", "a manifest has a key twice")
    return fields


def _constant(name: str) -> NoReturn:
    raise Invalid("MANIFEST_INVALID", "a manifest has a number that JSON does not know", name)


def _media_type(fields: Mapping[str, Any], asked: str | None) -> str:
    _check_schema(fields)
    said = read_text(fields, "mediaType", "a manifest") or None  # Go writes what it leaves out as ""
    if asked is not None and said is not None and asked != said:
        raise Invalid("MANIFEST_INVALID", "a manifest is not what it was asked for as, but says of itself", said)
    kind = asked or said or _shape(fields)
    if not mediatype.describes(kind):
        raise Invalid("UNSUPPORTED", "no manifest of this media type is known", kind)
    if not (_PARTS - _PARTS_OF.get(kind, _IMAGE_PARTS)).isdisjoint(fields):
        raise Invalid("MANIFEST_INVALID", "a manifest has the parts of another kind of manifest", kind)
    return kind


def _check_schema(fields: Mapping[str, Any]) -> None:
    version = fields.get("schemaVersion", 2)  # artifact manifests have none
    if type(version) is not int:
        raise Invalid("MANIFEST_INVALID", "schemaVersion is not a number")
    if version != 2 or "fsLayers" in fields:
        raise Invalid("UNSUPPORTED", "of Docker's and OCI's manifests only schema 2 is known")


def _shape(fields: Mapping[str, Any]) -> str:
    if "manifests" in fields:
        return mediatype.OCI_INDEX
    if "layers" in fields:
        return mediatype.OCI_MANIFEST
    raise Invalid("MANIFEST_INVALID", "neither media type nor shape says that this is a manifest")


def _index(fields: Mapping[str, Any], kind: str) -> Index:
    return Index(
        media_type=kind,
        manifests=_descriptors(fields, "manifests"),
        subject=_subject(fields),
        artifact_type=read_text(fields, "artifactType", "an index"),
        annotations=read_annotations(fields, "an index"),
    )


def _manifest(fields: Mapping[str, Any], kind: str) -> Manifest:
    is_artifact = kind == mediatype.OCI_ARTIFACT_MANIFEST
    return Manifest(
        media_type=kind,
        config=None if is_artifact else read_descriptor(fields.get("config"), "the config"),
        layers=_descriptors(fields, "blobs" if is_artifact else "layers"),
        subject=_subject(fields),
        artifact_type=read_text(fields, "artifactType", "a manifest"),
        annotations=read_annotations(fields, "a manifest"),
    )


def _subject(fields: Mapping[str, Any]) -> Descriptor | None:
    return read_descriptor(fields["subject"], "the subject") if "subject" in fields else None


def _descriptors(fields: Mapping[str, Any], name: str) -> tuple[Descriptor, ...]:
    values = fields.get(name, [])
    if not isinstance(values, list):
        raise Invalid("MANIFEST_INVALID", f"{name} is not a list")
    if len(values) > DESCRIPTORS_MAX:
        raise Invalid("MANIFEST_INVALID", f"{name} has more than {DESCRIPTORS_MAX} descriptors")
    return tuple(read_descriptor(value, f"{name}[{position}]") for position, value in enumerate(values))
