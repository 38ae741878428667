"""A survey follows every root that a store has to all that it leads to: what content is called, and by whose images.

Laws: it only thinks; a document that several roots share is asked for once; the first descriptor that names content
gives its media type; what is absent or broken ends its own branch and nothing else. A subject is not part of what names
it: who holds a signature need not hold the image.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from p2pmirror.oci import Descriptor, Digest, Index, Invalid, Manifest, TagName, Walk


@dataclass(slots=True)
class Found:
    """Content that a root leads to: the descriptor that named it first, the sizes it is said to have, whose it is."""

    descriptor: Descriptor
    sizes: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


class Survey:
    """Ask `next_reads`, tell `answered` for each, until nothing is asked; then read `found()` and `referrers`.

    `referrers` are pairs of a subject and the descriptor of a manifest that names it, as the registry API lists it.
    `invalid` are documents that are not what they are said to be.
    """

    def __init__(self, roots: Iterable[tuple[Descriptor, Iterable[TagName]]]) -> None:
        """Begin at `roots`: descriptors with the tags that stand for them (none: content without a name)."""
        self._walks: list[tuple[Walk, frozenset[str]]] = []
        for descriptor, tags in roots:
            names = frozenset(f"{tag.registry}/{tag.repository}" for tag in tags)
            self._walks.append((Walk(descriptor, subjects=False), names))
        self._answers: dict[Digest, bytes | None] = {}
        self._owed: dict[Digest, list[tuple[Walk, Descriptor]]] = {}
        self._referrers: dict[Digest, tuple[Digest, Descriptor]] = {}

    @property
    def referrers(self) -> tuple[tuple[Digest, Descriptor], ...]:
        """Every manifest read so far that has a subject, after that subject's digest."""
        return tuple(self._referrers.values())

    @property
    def invalid(self) -> Mapping[Digest, Invalid]:
        """The documents that could not be believed, and why."""
        return {digest: cause for walk, _ in self._walks for digest, cause in walk.invalid.items()}

    def next_reads(self) -> list[Descriptor]:
        """Name the documents that are wanted now."""
        for walk, _ in self._walks:
            while reads := walk.next_reads():
                for descriptor in reads:
                    if descriptor.digest in self._answers:
                        self._tell(walk, descriptor)
                    else:
                        self._owed.setdefault(descriptor.digest, []).append((walk, descriptor))
        return [askers[0][1] for askers in self._owed.values()]

    def answered(self, descriptor: Descriptor, data: bytes | None) -> None:
        """Take in a document's bytes, None where it is absent."""
        self._answers[descriptor.digest] = data
        for walk, named in self._owed.pop(descriptor.digest, ()):
            self._tell(walk, named)

    def found(self) -> dict[Digest, Found]:
        """Everything reached so far, held or not."""
        result: dict[Digest, Found] = {}
        for walk, names in self._walks:
            for digest, descriptor in walk.found.items():
                found = result.setdefault(digest, Found(descriptor))
                found.sizes.add(descriptor.size)
                found.names.update(names)
        return result

    def _tell(self, walk: Walk, descriptor: Descriptor) -> None:
        document = walk.answered(descriptor, self._answers[descriptor.digest])
        if document is not None and document.subject is not None:
            self._referrers[descriptor.digest] = (document.subject.digest, as_referrer(descriptor, document))


def as_referrer(descriptor: Descriptor, document: Manifest | Index) -> Descriptor:
    """Describe a manifest as the distribution specification's referrers list does: its own type and annotations."""
    config = document.config if isinstance(document, Manifest) else None
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        artifact_type=document.artifact_type or (config.media_type if config is not None else None),
        annotations=document.annotations,
    )
