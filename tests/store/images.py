"""Small OCI images made on the spot, as a dictionary of digests to bytes and media types."""

import json
import random
from dataclasses import dataclass, field

from p2pmirror.oci import Descriptor, Digest, TagName, mediatype

SIGNATURE = "application/vnd.example.signature.v1"

Content = dict[Digest, tuple[bytes, str]]


@dataclass
class Image:
    """Content with its media types, the root, and the tags that name the root."""

    root: Descriptor
    content: Content
    tags: tuple[TagName, ...] = ()
    referrer_of: Digest | None = None
    layers: tuple[Digest, ...] = field(default=())

    @property
    def names(self) -> frozenset[str]:
        return frozenset(f"{tag.registry}/{tag.repository}" for tag in self.tags)


def make_image(
    tag: str | None = "registry.example/app:v1",
    *,
    seed: int = 0,
    layer_bytes: tuple[int, ...] = (3000, 70_000),
    with_index: bool = True,
    subject: Descriptor | None = None,
) -> Image:
    """Make an image with random layers: an index of two platforms, or one manifest; `subject` makes it a referrer."""
    content: Content = {}
    chance = random.Random(seed)
    layers = [_add(content, chance.randbytes(size), mediatype.OCI_LAYER_GZIP) for size in layer_bytes]
    platforms = ("amd64", "arm64")[: 1 + with_index]
    manifests = [_manifest(content, layers, f"{each}-{seed}", subject) for each in platforms]
    root = manifests[0]
    if with_index:
        root = _document(content, mediatype.OCI_INDEX, {"manifests": [as_json(each) for each in manifests]})
    tags = (TagName.parse(tag),) if tag is not None else ()
    return Image(root, content, tags, subject.digest if subject else None, tuple(each.digest for each in layers))


def make_signature(subject: Descriptor, *, seed: int = 1, tag: str | None = None) -> Image:
    """Make a referrer: one manifest with a `subject`, an artifact type and an annotation."""
    return make_image(tag, seed=seed, layer_bytes=(100,), with_index=False, subject=subject)


def as_json(descriptor: Descriptor, **annotations: str) -> dict[str, object]:
    """Write a descriptor as a manifest or an index has it."""
    plain: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    return {**plain, "annotations": annotations} if annotations else plain


def _manifest(content: Content, layers: list[Descriptor], architecture: str, subject: Descriptor | None) -> Descriptor:
    config = _add(content, json.dumps({"os": "linux", "architecture": architecture}).encode(), mediatype.OCI_CONFIG)
    fields: dict[str, object] = {"config": as_json(config), "layers": [as_json(each) for each in layers]}
    if subject is not None:
        fields |= {"subject": as_json(subject), "artifactType": SIGNATURE, "annotations": {"made": "here"}}
    return _document(content, mediatype.OCI_MANIFEST, fields)


def _document(content: Content, media_type: str, fields: dict[str, object]) -> Descriptor:
    return _add(content, json.dumps({"schemaVersion": 2, "mediaType": media_type, **fields}).encode(), media_type)


def _add(content: Content, data: bytes, media_type: str) -> Descriptor:
    digest = Digest.of(data)
    content[digest] = (data, media_type)
    return Descriptor(media_type, digest, len(data))
