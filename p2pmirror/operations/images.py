"""Which images an archive has, and of what they are made.

Laws: what is returned is whole: every part is there, with the size and the digest that its image says; whatever is not
so is `BadArchive`, for the archive as a whole.

Follows the OCI image layout, and what `docker save` writes: `manifest.json`, a list of a config, tags and layers each,
which no registry knows. For these a manifest is made, of the layers as they are in the archive; its digest is another
one than the registry's, whose layers are compressed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from p2pmirror.oci import DOCUMENT_BYTES_MAX, Descriptor, Digest, Invalid, Reference, TagName, Walk, mediatype
from p2pmirror.operations.archive import Archive, BadArchive, Member, whole
from p2pmirror.store.ocilayout.index import INDEX_NAME, MARKER_BYTES_MAX, MARKER_NAME, check_marker, read_roots

DOCKER_NAME: Final = "manifest.json"
CONFIG_BYTES_MAX: Final = 8 * 1024 * 1024  # a config has some 10 KiB; its history is what grows
ENTRIES_MAX: Final = 1000  # images of one `docker save`


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image: its root, its tags, its blobs as members, and its manifests, those that others name first."""

    root: Descriptor
    tags: tuple[TagName, ...]
    blobs: tuple[tuple[Descriptor, Member], ...]
    documents: tuple[tuple[Descriptor, bytes], ...]


@dataclass(slots=True)
class _Contents:
    archive: Archive
    members: Mapping[str, Member]
    first: dict[str, bytes] = field(default_factory=dict)

    def member(self, name: str) -> Member:
        """Return a member that must be there."""
        found = self.members.get(name)
        if found is None:
            raise BadArchive(f"the archive has no {name!r}, which it needs")
        return found

    def whole(self, name: str, bytes_max: int) -> bytes:
        """Return a small member's bytes."""
        return whole(self.archive, self.member(name), bytes_max)

    def blob(self, descriptor: Descriptor) -> Member | None:
        """Return what a descriptor names; None where it is absent."""
        found = self.members.get(f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}")
        if found is not None and (found.digest, found.size) != (descriptor.digest, descriptor.size):
            raise BadArchive(f"{descriptor.digest} in the archive does not have its content or its size")
        return found


def images_in(archive: Archive, members: Mapping[str, Member]) -> list[ArchivedImage]:
    """Return the images of an archive that was scanned. Raises `BadArchive`."""
    contents = _Contents(archive, members)
    try:
        if MARKER_NAME in members and INDEX_NAME in members:
            found = _of_layout(contents)
        elif DOCKER_NAME in members:
            found = _of_docker(contents)
        else:
            raise BadArchive(f"neither an OCI image layout ({INDEX_NAME}) nor made by docker save ({DOCKER_NAME})")
    except Invalid as error:
        raise BadArchive(f"the archive holds no proper image: {error}") from error
    if not found:
        raise BadArchive("there is no image in the archive")
    return found


def named(images: list[ArchivedImage], name: TagName) -> list[ArchivedImage]:
    """Give the one image of an archive this name instead of its own. Raises `BadArchive` when there are several."""
    if len({image.root.digest for image in images}) > 1:
        raise BadArchive(f"there are {len(images)} images in the archive, so one name is not enough")
    return [ArchivedImage(images[0].root, (name,), images[0].blobs, images[0].documents)]


# --- OCI image layout ---


def _of_layout(contents: _Contents) -> list[ArchivedImage]:
    check_marker(contents.whole(MARKER_NAME, MARKER_BYTES_MAX))
    roots = read_roots(contents.whole(INDEX_NAME, DOCUMENT_BYTES_MAX))
    return [_of_root(contents, entry.descriptor, entry.tags) for entry in roots.entries]


def _of_root(contents: _Contents, root: Descriptor, tags: tuple[TagName, ...]) -> ArchivedImage:
    walk, documents = Walk(root, subjects=False), dict[Digest, tuple[Descriptor, bytes]]()
    while reads := walk.next_reads():
        for descriptor in reads:
            member = contents.blob(descriptor)
            data = whole(contents.archive, member, DOCUMENT_BYTES_MAX) if member is not None else None
            if walk.answered(descriptor, data) is not None and data is not None:
                documents[descriptor.digest] = (descriptor, data)
    for digest, cause in walk.invalid.items():
        raise BadArchive(f"{digest} in the archive is no proper manifest: {cause}")
    if walk.is_truncated or root.digest not in documents:
        raise BadArchive(f"{root.digest} is named by {INDEX_NAME} and not in the archive, or names too much")
    blobs = []
    for visit in walk.visits:
        if visit.descriptor.digest in documents or mediatype.describes(visit.descriptor.media_type):
            continue
        member = contents.blob(visit.descriptor)
        if member is not None:
            blobs.append((visit.descriptor, member))
        elif not mediatype.is_foreign(visit.descriptor.media_type):
            raise BadArchive(f"{visit.descriptor.digest} is missing in the archive; {visit.parent} needs it")
    if not any(mediatype.is_manifest(descriptor.media_type) for descriptor, _ in documents.values()):
        raise BadArchive(f"none of the manifests that {root.digest} names is in the archive")
    return ArchivedImage(root, tags, tuple(blobs), tuple(reversed(documents.values())))


# --- docker save ---


def _of_docker(contents: _Contents) -> list[ArchivedImage]:
    entries = _decoded(contents.whole(DOCKER_NAME, DOCUMENT_BYTES_MAX), DOCKER_NAME)
    if not isinstance(entries, list) or len(entries) > ENTRIES_MAX:
        raise BadArchive(f"{DOCKER_NAME} is not a list of at most {ENTRIES_MAX} images")
    return [_of_entry(contents, entry) for entry in entries]


def _of_entry(contents: _Contents, entry: object) -> ArchivedImage:
    if not isinstance(entry, dict):
        raise BadArchive(f"an image of {DOCKER_NAME} is not an object")
    config = contents.member(_text(entry.get("Config")))
    layers = [contents.member(name) for name in _texts(entry.get("Layers"))]
    _check_layers(contents, config, layers)
    config_descriptor = Descriptor(mediatype.OCI_CONFIG, config.digest, config.size)
    blobs = [(config_descriptor, config)]
    blobs += [(Descriptor(_layer_type(contents, layer), layer.digest, layer.size), layer) for layer in layers]
    data = _manifest([descriptor for descriptor, _ in blobs])
    root = Descriptor(mediatype.OCI_MANIFEST, Digest.of(data), len(data))
    tags = [_tag(text) for text in _texts(entry.get("RepoTags"))]
    return ArchivedImage(root, tuple(dict.fromkeys(tags)), tuple(blobs), ((root, data),))


def _check_layers(contents: _Contents, config: Member, layers: list[Member]) -> None:
    """Hold the layers against the config, which names each by the digest of its unpacked bytes."""
    stem = config.name.rpartition("/")[2].partition(".")[0]
    if len(stem) == len(config.digest.hex) and stem != config.digest.hex:
        raise BadArchive(f"{config.name!r} does not have the content that its name says")
    said = _decoded(whole(contents.archive, config, CONFIG_BYTES_MAX), config.name)
    rootfs = said.get("rootfs") if isinstance(said, dict) else None
    unpacked = _texts(rootfs.get("diff_ids")) if isinstance(rootfs, dict) else []
    if len(unpacked) != len(layers):
        raise BadArchive(f"{config.name!r} names {len(unpacked)} layers, {DOCKER_NAME} {len(layers)}")
    for layer, diff_id in zip(layers, unpacked, strict=True):
        if _layer_type(contents, layer) == mediatype.OCI_LAYER and str(layer.digest) != diff_id:
            raise BadArchive(f"{layer.name!r} is not the layer {diff_id[:100]} that its image needs")


def _layer_type(contents: _Contents, layer: Member) -> str:
    """Say how a layer of `docker save` is packed, which nothing else says."""
    start = contents.first.get(layer.name)
    if start is None:
        start = contents.first[layer.name] = next(iter(contents.archive.read(layer)), b"")[:4]
    if start.startswith(b"\x1f\x8b"):
        return mediatype.OCI_LAYER_GZIP
    return mediatype.OCI_LAYER_ZSTD if start == b"\x28\xb5\x2f\xfd" else mediatype.OCI_LAYER


def _manifest(parts: list[Descriptor]) -> bytes:
    plain = [{"mediaType": each.media_type, "digest": str(each.digest), "size": each.size} for each in parts]
    fields = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": plain[0], "layers": plain[1:]}
    return json.dumps(fields, separators=(",", ":")).encode()


def _tag(text: str) -> TagName:
    tag = Reference.parse(text).with_default_tag().tag_name
    if tag is None:
        raise BadArchive(f"a tag of the archive is none: {text[:100]!r}")
    return tag


def _decoded(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadArchive(f"{name!r} is not readable JSON") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadArchive(f"{DOCKER_NAME} or a config has a field that is not a text")
    return value


def _texts(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadArchive(f"{DOCKER_NAME} or a config has a field that is not a list")
    return [_text(each) for each in value]
