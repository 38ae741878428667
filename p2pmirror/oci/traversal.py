"""A walk finds all content that an image needs, from its root down, reading only manifests and indexes.

Laws: every digest is found once, parents before children; every document is asked for once; a document is believed only
if it has the digest that it was asked for by; what is absent or broken ends its own branch and nothing else; depth and
number are bounded, so that a walk over hostile content ends.

`Walk` only thinks; `walk` drives it over a function, and a task that awaits drives it the same way.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from p2pmirror.oci import mediatype
from p2pmirror.oci.descriptor import Descriptor
from p2pmirror.oci.digest import Digest
from p2pmirror.oci.errors import Invalid
from p2pmirror.oci.manifest import Index, Manifest, children, parse_manifest

DEPTH_MAX: Final = 8  # steps from the root: index, nested index, manifest and layer are three; subjects add a few
NODES_MAX: Final = 100_000  # digests of one walk: some ten documents filled to their limit, far beyond any real image


class Role(StrEnum):
    """What a descriptor is to the document that named it first."""

    ROOT = "root"
    MANIFEST = "manifest"
    CONFIG = "config"
    LAYER = "layer"
    SUBJECT = "subject"


@dataclass(frozen=True, slots=True)
class Visit:
    """A descriptor as the walk found it: under which parent (None: the root), how many steps from the root."""

    descriptor: Descriptor
    role: Role = Role.ROOT
    parent: Digest | None = None
    depth: int = 0


class Walk:
    """The state of one walk: ask `next_reads`, tell `answered`, until there is nothing to read and nothing open.

    `found` is every descriptor reached so far, by digest, and `visits` the same in order; `missing` are the documents
    that were absent, `invalid` those that could not be believed. `is_truncated` says that a limit left something out.
    """

    def __init__(
        self, root: Descriptor, *, depth_max: int = DEPTH_MAX, nodes_max: int = NODES_MAX, subjects: bool = True
    ) -> None:
        """Begin at `root`; `subjects` says whether what a signature or an SBOM is about belongs to the walk."""
        self.found: dict[Digest, Descriptor] = {}
        self.visits: list[Visit] = []
        self.missing: dict[Digest, Descriptor] = {}
        self.invalid: dict[Digest, Invalid] = {}
        self.is_truncated = False
        self._depth_max = depth_max
        self._nodes_max = nodes_max
        self._subjects = subjects
        self._unread: dict[Digest, Visit] = {}
        self._open: dict[Digest, Visit] = {}
        self._begun: set[Digest] = set()
        self._reach(Visit(root))

    @property
    def is_done(self) -> bool:
        """Whether everything that can be reached has been: nothing to read, no answer outstanding."""
        return not self._unread and not self._open

    def next_reads(self) -> list[Descriptor]:
        """Hand out the documents that are now known of, each once; the asker owes an answer for each."""
        visits = list(self._unread.values())
        self._open.update(self._unread)
        self._unread.clear()
        return [visit.descriptor for visit in visits]

    def answered(self, descriptor: Descriptor, data: bytes | None) -> Manifest | Index | None:
        """Take in a document's bytes (None: absent), and return it read; None where it is absent or invalid.

        An answer that is not owed (a second one, or to another question) changes nothing.
        """
        visit = self._open.pop(descriptor.digest, None)
        if visit is None:
            return None
        if data is None:
            self.missing[descriptor.digest] = visit.descriptor
            return None
        try:
            document = _believed(visit.descriptor, data)
        except Invalid as cause:
            self.invalid[descriptor.digest] = cause
            return None
        for child, role in _named(document, subjects=self._subjects):
            self._reach(Visit(child, role, descriptor.digest, visit.depth + 1))
        return document

    def _reach(self, visit: Visit) -> None:
        digest = visit.descriptor.digest
        if digest not in self.found:
            if visit.depth > self._depth_max or len(self.found) >= self._nodes_max:
                self.is_truncated = True
                return
            self.found[digest] = visit.descriptor
            self.visits.append(visit)
        # Asked apart: a digest that was first called a layer is still read when something calls it a manifest.
        if digest not in self._begun and mediatype.describes(visit.descriptor.media_type):
            self._begun.add(digest)
            self._unread[digest] = visit


def walk(
    root: Descriptor,
    read: Callable[[Descriptor], bytes | None],
    *,
    depth_max: int = DEPTH_MAX,
    nodes_max: int = NODES_MAX,
    subjects: bool = True,
) -> Iterator[Visit]:
    """Yield everything reachable from `root`, each digest once; `read` gives a document's bytes or None.

    Reads as late as it can: whoever stops early causes no more reads. Errors that `read` raises come through.
    """
    state = Walk(root, depth_max=depth_max, nodes_max=nodes_max, subjects=subjects)
    yield from state.visits
    while reads := state.next_reads():
        for descriptor in reads:
            seen = len(state.visits)
            state.answered(descriptor, read(descriptor))
            yield from state.visits[seen:]


def _believed(descriptor: Descriptor, data: bytes) -> Manifest | Index:
    hasher = descriptor.digest.hasher()
    hasher.update(data)
    if not descriptor.digest.matches(hasher):
        raise Invalid("MANIFEST_INVALID", "the document is not the one that was asked for", str(descriptor.digest))
    return parse_manifest(data, descriptor.media_type)


def _named(document: Manifest | Index, *, subjects: bool) -> Iterator[tuple[Descriptor, Role]]:
    below = Role.MANIFEST if isinstance(document, Index) else Role.LAYER
    config = document.config if isinstance(document, Manifest) else None
    for child in children(document):
        yield child, Role.CONFIG if child is config else below
    if subjects and document.subject is not None:
        yield document.subject, Role.SUBJECT
