"""What `oci-layout` and `index.json` say, and `index.json` with a tag more or less.

Laws: it only thinks; reading raises `oci.Invalid` and nothing else; an edit keeps everything that it does not concern,
and refuses an index that cannot be read.

Follows the OCI image specification, image-layout.md. The name of an image is the annotation
`org.opencontainers.image.ref.name`, or `io.containerd.image.name`, which containerd writes with the name in full.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from p2pmirror.oci import Descriptor, Digest, Index, Invalid, Reference, TagName, mediatype, parse_manifest

MARKER_NAME: Final = "oci-layout"
INDEX_NAME: Final = "index.json"
LAYOUT_VERSION: Final = "1.0.0"
MARKER: Final = json.dumps({"imageLayoutVersion": LAYOUT_VERSION}).encode()
EMPTY_INDEX: Final = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}).encode()
MARKER_BYTES_MAX: Final = 4096  # bytes: the one field that it has needs 30

_NAME_KEYS: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Root:
    """One entry of `index.json` and the tags that it has there."""

    descriptor: Descriptor
    tags: tuple[TagName, ...]


@dataclass(frozen=True, slots=True)
class Roots:
    """All entries of `index.json`; `unnamed` are the names that say no repository or no tag, as bare `v1`."""

    entries: tuple[Root, ...] = ()
    unnamed: tuple[str, ...] = ()

    def tags(self) -> dict[TagName, Descriptor]:
        """Tell what each tag stands for; of two entries with one tag the later counts, as in containerd."""
        return {tag: root.descriptor for root in self.entries for tag in root.tags}


def blob_path(directory: Path, digest: Digest) -> Path:
    """Say where a layout keeps content."""
    return directory / "blobs" / digest.algorithm / digest.hex


def check_marker(data: bytes) -> None:
    """Raise Invalid unless this is the `oci-layout` file of a version that is known."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise Invalid("UNSUPPORTED", f"{MARKER_NAME} is not readable JSON") from None
    version = fields.get("imageLayoutVersion") if isinstance(fields, dict) else None
    if version != LAYOUT_VERSION:
        raise Invalid("UNSUPPORTED", f"{MARKER_NAME} does not say imageLayoutVersion {LAYOUT_VERSION}", str(version))


def read_roots(data: bytes) -> Roots:
    """Read `index.json`."""
    entries, unnamed = [], []
    for descriptor in _parsed(data).manifests:
        names = [descriptor.annotations[key] for key in _NAME_KEYS if key in descriptor.annotations]
        tags = tuple(dict.fromkeys(tag for name in names if (tag := _tag(name)) is not None))
        entries.append(Root(descriptor, tags))
        if names and not tags:
            unnamed.append(names[-1])
    return Roots(tuple(entries), tuple(unnamed))


def can_be_tagged(name: TagName) -> bool:
    """Say whether a reader of the layout will know the tag again: the registry has a dot or a port, or is localhost."""
    return _tag(str(name)) == name


def with_tag(data: bytes, name: TagName, descriptor: Descriptor) -> bytes:
    """Return `index.json` with the tag standing for `descriptor` and for nothing else."""
    fields = _without(data, name)
    fields["manifests"].append(_entry(name, descriptor))
    return _encoded(fields)


def without_tag(data: bytes, name: TagName) -> bytes:
    """Return `index.json` without the tag; an entry that had no other tag goes with it."""
    return _encoded(_without(data, name))


def _without(data: bytes, name: TagName) -> dict[str, Any]:
    _parsed(data)
    fields: dict[str, Any] = json.loads(data)
    kept = (_entry_without(entry, name) for entry in fields.get("manifests") or [])
    fields["manifests"] = [entry for entry in kept if entry is not None]
    return fields


def _entry_without(entry: dict[str, Any], name: TagName) -> dict[str, Any] | None:
    annotations = entry.get("annotations") or {}
    rest = {key: value for key, value in annotations.items() if key not in _NAME_KEYS or _tag(value) != name}
    if len(rest) == len(annotations):
        return entry
    return {**entry, "annotations": rest} if any(_tag(rest[key]) for key in _NAME_KEYS if key in rest) else None


def _entry(name: TagName, descriptor: Descriptor) -> dict[str, Any]:
    platform = descriptor.platform
    machine = asdict(platform) if platform is not None else {}
    entry = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "artifactType": descriptor.artifact_type,
        "platform": {key: value for key, value in machine.items() if value is not None} or None,
        "urls": list(descriptor.urls) or None,
        "annotations": {**descriptor.annotations, **dict.fromkeys(_NAME_KEYS, str(name))},
    }
    return {key: value for key, value in entry.items() if value is not None}


def _parsed(data: bytes) -> Index:
    document = parse_manifest(data, mediatype.OCI_INDEX)
    assert isinstance(document, Index)
    return document


def _encoded(fields: dict[str, Any]) -> bytes:
    data = json.dumps(fields, separators=(",", ":")).encode()  # ASCII: half a character of theirs has no other form
    _parsed(data)  # what we write can be read again, by the limits too
    return data


def _tag(name: str) -> TagName | None:
    try:
        return Reference.parse_strict(name).tag_name
    except Invalid:
        return None
