"""What is known of content beside its bytes: its type and its images' names, kept in its record.

Laws: a type and a referrer's description come from what names the content; a name is added to all that a manifest
leads to and that is here, so that a layer which two images share has both names.
"""

from collections.abc import Callable
from dataclasses import replace

from p2pmirror.oci import Descriptor, Digest, Invalid, parse_manifest
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.cache.documents import Documents
from p2pmirror.store.cache.records import Facts, Referrer, bounded, referrer_of
from p2pmirror.store.cache.shelf import Entry, Shelf
from p2pmirror.store.files import Stat
from p2pmirror.store.survey import as_referrer

EXPECTED_MAX = 10_000  # some hundred images on their way at once, 200 bytes for each blob of theirs

_NS_PER_S = 1_000_000_000


def entry_of(digest: Digest, facts: Facts, record: Stat | None, now: float) -> Entry:
    """Return what a record says; a time that is still to come is now: the clock was put back."""
    kept_s = min(now, facts.kept_s)
    used_s = min(now, max(kept_s, record.mtime_ns / _NS_PER_S)) if record is not None else now
    return Entry(
        digest,
        facts.size,
        facts.media_type,
        frozenset(facts.names),
        kept_s,
        used_s,
        referrer=referrer_of(facts, digest),
        record=record,
        saved_s=used_s,
    )


def facts_of(entry: Entry) -> Facts:
    """Return what an entry's record has to say."""
    referrer = None
    if entry.referrer is not None:
        subject, descriptor = entry.referrer
        referrer = Referrer(str(subject), descriptor.artifact_type, dict(descriptor.annotations))
    return Facts(entry.size, entry.kept_s, entry.media_type, tuple(sorted(entry.names)), referrer)


def referrer_in(data: bytes, descriptor: Descriptor) -> Referrer | None:
    """Return how a manifest is listed under its subject; None when it has none, or is not understood."""
    try:
        document = parse_manifest(data, descriptor.media_type)
    except Invalid:
        return None
    if document.subject is None:
        return None
    listed = as_referrer(descriptor, document)
    return Referrer(str(document.subject.digest), listed.artifact_type, dict(listed.annotations))


class Learning:
    """Adds to what is known of what one cache has."""

    def __init__(
        self, shelf: Shelf, directory: CacheDirectory, documents: Documents, wall_s: Callable[[], float]
    ) -> None:
        """Know what `shelf` says."""
        self._shelf = shelf
        self._directory = directory
        self._documents = documents
        self._wall_s = wall_s
        self._expected: dict[Digest, str] = {}  # types of what manifests lead to and is still to come

    async def spread(self, root: Descriptor, names: frozenset[str]) -> None:
        """Tell all that `root` leads to what it is called and whose it is. Raises `StoreFull`."""
        survey = await self._documents.survey([(root, ())])
        referrers = {descriptor.digest: (subject, descriptor) for subject, descriptor in survey.referrers}
        for digest, found in survey.found().items():
            entry = self._shelf.get(digest)
            if entry is not None:
                await self._learn(entry, found.descriptor.media_type, names, referrers.get(digest))
            else:
                self._expect(digest, found.descriptor.media_type)

    def type_of(self, digest: Digest) -> str | None:
        """Return what a manifest that came lately calls content that was not here then."""
        return self._expected.get(digest)

    async def rename(self, entry: Entry, names: frozenset[str]) -> None:
        """Give a blob just these names. Raises `StoreFull`."""
        async with self._directory.locked():
            await self._write(replace(entry, names=bounded(names)))

    async def recover_types(self) -> None:
        """Find types that were lost with their records again, from the tags on. Raises `StoreFull`."""
        if all(entry.media_type is not None for entry in self._shelf):
            return
        for tag in self._shelf.tags:
            name = tag.info.name
            await self.spread(tag.descriptor, frozenset({f"{name.registry}/{name.repository}"}))

    def _expect(self, digest: Digest, media_type: str) -> None:
        if digest not in self._expected and len(self._expected) >= EXPECTED_MAX:
            del self._expected[next(iter(self._expected))]
        self._expected[digest] = media_type

    async def _learn(
        self, entry: Entry, media_type: str, names: frozenset[str], referrer: tuple[Digest, Descriptor] | None
    ) -> None:
        if names <= entry.names and entry.media_type is not None and (referrer is None or entry.referrer is not None):
            return
        async with self._directory.locked():
            written = await self._directory.facts(entry.digest)
            others = frozenset(written.names) if written is not None else frozenset()
            new = replace(
                entry,
                media_type=entry.media_type or media_type,
                names=bounded(entry.names | names | others),
                referrer=entry.referrer or referrer,
            )
            if new.names != entry.names or new.media_type != entry.media_type or new.referrer != entry.referrer:
                await self._write(new)

    async def _write(self, entry: Entry) -> None:
        await self._directory.write_facts(entry.digest, facts_of(entry))
        if self._shelf.get(entry.digest) is not None:
            self._shelf.put([replace(entry, record=None, saved_s=self._wall_s())])
