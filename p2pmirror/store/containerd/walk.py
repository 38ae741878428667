"""What containerd's images and content amount to: which blobs are held under what names, and which tags name them.

Laws:
- it only thinks: images, sizes and documents come in, an inventory's entries come out;
- a blob is listed only when containerd lists it, with the size that was found; a tag only when its document is in hand;
- a name that is not a whole reference (CRI's `sha256:…`, `import-2024-01-01`) names nothing, but what it leads to is
  content all the same; a name with a digest is no tag.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from p2pmirror.oci import Descriptor, Digest, Invalid, Reference, TagName, mediatype
from p2pmirror.store.containerd.api.containerd_pb2 import Image
from p2pmirror.store.protocol import BlobInfo, TagInfo
from p2pmirror.store.survey import Survey

CRI_ALIAS = "sha256:"  # CRI names every image a second time, by the digest of its config


@dataclass(frozen=True, slots=True)
class Root:
    """One image of containerd's: what it names, and what its name means (None: nothing to others)."""

    image: str
    target: Descriptor
    reference: Reference | None

    @property
    def tag(self) -> TagName | None:
        """The tag that the name is, if it is one."""
        if self.reference is None or self.reference.digest is not None:
            return None
        return self.reference.tag_name

    @property
    def is_odd(self) -> bool:
        """Whether the name means nothing to others, and is not CRI's either."""
        return self.reference is None and not self.image.startswith(CRI_ALIAS)


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries of an inventory."""

    blobs: tuple[BlobInfo, ...]
    tags: tuple[TagInfo, ...]
    referrers: tuple[tuple[Digest, Descriptor], ...]


def read_image(image: Image) -> Root:
    """Read one image. Raises `Invalid` when its target names no content."""
    target = image.target
    if target.size < 0:
        raise Invalid("MANIFEST_INVALID", "the size of an image's target is negative")
    descriptor = Descriptor(mediatype.check(target.media_type), Digest.parse(target.digest), target.size)
    return Root(image.name, descriptor, read_name(image.name))


def read_name(name: str) -> Reference | None:
    """Return what a name of containerd's means, None when it means nothing to others."""
    try:
        return Reference.parse_strict(name)
    except Invalid:
        return None


def survey_of(roots: Iterable[Root]) -> Survey:
    """Begin a survey; images with one target are surveyed together."""
    references: dict[Descriptor, list[Reference]] = {}
    for root in roots:
        known = references.setdefault(root.target, [])
        if root.reference is not None:
            known.append(root.reference)
    return Survey((target, [_place(each) for each in known]) for target, known in references.items())


def listing_of(
    survey: Survey, roots: Iterable[Root], held: Mapping[Digest, int], read: Container[Digest], now: float
) -> Listing:
    """Make the entries: `held` are the sizes of what is really there, `read` the documents whose bytes are in hand."""
    found = survey.found()
    blobs = [
        BlobInfo(digest, size, known.descriptor.media_type, frozenset(known.names))
        if (known := found.get(digest)) is not None
        else BlobInfo(digest, size)
        for digest, size in held.items()
    ]
    broken = survey.invalid
    tags = {
        tag: TagInfo(tag, root.target.digest, root.target.media_type, held[root.target.digest], now)
        for root in sorted(roots, key=lambda root: root.image)
        if (tag := root.tag) is not None
        and root.target.digest in held
        and root.target.digest in read
        and root.target.digest not in broken
    }
    return Listing(tuple(blobs), tuple(tags.values()), survey.referrers)


def _place(reference: Reference) -> TagName:
    """Return the repository as a survey takes it, which looks at registry and repository only."""
    return reference.tag_name or TagName(reference.registry, reference.repository, "latest")
