"""What the manifests in a cache lead to."""

from collections.abc import Iterable

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Descriptor, Digest, TagName
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.survey import Survey

Roots = Iterable[tuple[Descriptor, Iterable[TagName]]]


class Documents:
    """The manifests and indexes of one cache."""

    def __init__(self, directory: CacheDirectory) -> None:
        """Read from `directory`."""
        self._directory = directory

    async def read(self, digest: Digest) -> bytes | None:
        """Return a document's bytes; None where it is absent, too long, or cannot be read."""
        try:
            file = await self._directory.open(digest)
        except (NotHere, Unreachable):
            return None
        try:
            return await file.read_at(0, file.size) if file.size <= DOCUMENT_BYTES_MAX else None
        except Unreachable:
            return None
        finally:
            file.close()

    async def survey(self, roots: Roots) -> Survey:
        """Follow `roots` to all that they lead to, as far as it is here; each document is believed by its digest."""
        survey = Survey(roots)
        while reads := survey.next_reads():
            for descriptor in reads:
                survey.answered(descriptor, await self.read(descriptor.digest))
        return survey
