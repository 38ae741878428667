"""What of a cache never goes by itself: an image by its name, its tag or its digest, with all that belongs to it.

Laws: it only thinks; a pinned manifest pins what it leads to, held or not, so that no layer of a pinned image goes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from p2pmirror.oci import Digest, Invalid, Reference, TagName
from p2pmirror.store.cache.eviction import Kept


def canonical_pin(text: str) -> str:
    """Return the one spelling of a pin: a digest, `registry/repository`, or that with a tag. Raises `oci.Invalid`."""
    if text.startswith(("sha256:", "sha512:")):
        return str(Digest.parse(text))
    reference = Reference.parse(text)
    if reference.digest is not None:
        return str(reference.digest)
    return str(reference)


@dataclass(frozen=True, slots=True)
class Pins:
    """The pins that there are, and the content that the pinned digests and tags lead to."""

    texts: frozenset[str] = frozenset()
    reach: frozenset[Digest] = frozenset()

    @property
    def digests(self) -> list[Digest]:
        """The digests that are pinned."""
        return [Digest.parse(text) for text in self.texts if text.startswith(("sha256:", "sha512:"))]

    def names_tag(self, name: TagName) -> bool:
        """Say whether a tag is pinned."""
        return str(name) in self.texts

    def has(self, kept: Kept) -> bool:
        """Say whether a blob is pinned."""
        return kept.digest in self.reach or not self.texts.isdisjoint(kept.names)


def readable(texts: Iterable[str]) -> frozenset[str]:
    """Return those pins that are spelled as they must be: others were not written by us."""
    return frozenset(text for text in texts if _is_canonical(text))


def _is_canonical(text: str) -> bool:
    try:
        return canonical_pin(text) == text
    except Invalid:
        return False
