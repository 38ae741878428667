"""Registries in memory, for tests and simulations: they hold images, count what they are asked, and fail as told.

Laws: the twin keeps the promises of `protocol.Upstream`, as the conformance suite in `tests/upstream` shows; nothing
in it sleeps but for the delays that it was told, on trio's clock.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from p2pmirror.errors import NotHere, Unreachable, UpstreamRefused
from p2pmirror.oci import Descriptor, Digest, Index, Invalid, parse_manifest
from p2pmirror.upstream.protocol import Document

PART_BYTES = 64 << 10  # what a download hands over at a time


@dataclass
class Conduct:
    """How a registry behaves from now on.

    `latency_s`: before each answer. `bytes_per_s`: of each download, None without a limit. `status`: every question is
    refused with it. `is_down`: nobody can be reached. `is_silent`: questions wait without end. `cuts`: of the next
    downloads, the bytes after which each breaks for good. `falsify`: what becomes of the bytes of blobs.
    """

    latency_s: float = 0.0
    bytes_per_s: float | None = None
    status: int | None = None
    is_down: bool = False
    is_silent: bool = False
    cuts: list[int] = field(default_factory=list)
    falsify: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True, slots=True)
class Question:
    """One question that was asked; `kind` is the name of the method, `reference` a tag, a digest or empty."""

    registry: str
    kind: str
    repository: str
    reference: str


class MemoryRegistries:
    """What all registries of a world hold, how they behave, and what they were asked: `MemoryUpstream` asks them."""

    def __init__(self, *names: str) -> None:
        """Begin with these registries, empty; none but they are fetched from."""
        self.conduct = {name: Conduct() for name in names}
        self.questions: list[Question] = []
        self.sent: Counter[Digest] = Counter()  # bytes of blobs and documents handed over
        self._documents: dict[tuple[str, str, Digest], Document] = {}
        self._blobs: dict[tuple[str, str, Digest], bytes] = {}
        self._tags: dict[tuple[str, str], dict[str, Digest]] = {}

    def put_blob(self, registry: str, repository: str, data: bytes) -> Digest:
        """Add a blob to a repository."""
        digest = Digest.of(data)
        self._blobs[registry, repository, digest] = data
        self._tags.setdefault((registry, repository), {})
        return digest

    def put_document(self, registry: str, repository: str, data: bytes, media_type: str, *tags: str) -> Descriptor:
        """Add a manifest or an index to a repository, and let these tags name it."""
        document = Document(Digest.of(data), media_type, data)
        self._documents[registry, repository, document.digest] = document
        self._tags.setdefault((registry, repository), {}).update(dict.fromkeys(tags, document.digest))
        return Descriptor(media_type, document.digest, len(data))

    def remove_tag(self, registry: str, repository: str, tag: str) -> None:
        """Let a tag name nothing."""
        del self._tags[registry, repository][tag]

    def count(self, kind: str, reference: object = None) -> int:
        """Return how many questions of a kind were asked, for one tag or digest or for all."""
        told = [each for each in self.questions if each.kind == kind]
        return len(told if reference is None else [each for each in told if each.reference == str(reference)])

    @property
    def sent_bytes(self) -> int:
        """Bytes of blobs and documents handed over in all."""
        return sum(self.sent.values())

    async def ask(self, question: Question) -> Conduct:
        """Take a question as the registry's conduct has it."""
        conduct = self.conduct.get(question.registry)
        if conduct is None:
            await trio.lowlevel.checkpoint()
            raise NotHere(f"{question.registry} is not fetched from")
        self.questions.append(question)
        if conduct.is_silent:
            await trio.sleep_forever()
        await trio.sleep(conduct.latency_s)
        if conduct.is_down:
            raise Unreachable(f"{question.registry} cannot be reached")
        if conduct.status == 404:
            raise NotHere(f"{question.registry} does not have it")
        if conduct.status is not None:
            raise UpstreamRefused(f"{question.registry} answered {conduct.status}", status=conduct.status)
        return conduct

    def document(self, registry: str, repository: str, reference: str) -> Document | None:
        """Return what a tag or a digest names."""
        try:
            digest: Digest | None = Digest.parse(reference)
        except Invalid:
            digest = self._tags.get((registry, repository), {}).get(reference)
        return self._documents.get((registry, repository, digest)) if digest is not None else None

    def blob(self, registry: str, repository: str, digest: Digest) -> bytes | None:
        """Return a blob's bytes."""
        return self._blobs.get((registry, repository, digest))

    def tags(self, registry: str, repository: str) -> list[str] | None:
        """Return a repository's tags, None when there is no such repository."""
        tags = self._tags.get((registry, repository))
        return None if tags is None else sorted(tags)

    def referrers(self, registry: str, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to `subject` in a repository."""
        found = []
        for (in_registry, in_repository, _), document in sorted(self._documents.items(), key=lambda each: str(each[0])):
            if (in_registry, in_repository) == (registry, repository):
                parsed = parse_manifest(document.data, document.media_type)
                if parsed.subject is not None and parsed.subject.digest == subject:
                    found.append(_referrer(document, parsed.artifact_type, is_index=isinstance(parsed, Index)))
        return tuple(found)


class MemoryUpstream:
    """One node's way to registries in memory; see `protocol.Upstream`."""

    def __init__(self, registries: MemoryRegistries) -> None:
        """Ask `registries`, which other nodes may ask too."""
        self._registries = registries
        self._failed: set[str] = set()

    def is_through(self, registry: str) -> bool:
        """Say whether the registry is one of the world's."""
        return registry in self._registries.conduct

    def is_reachable(self, registry: str) -> bool:
        """Say whether the last question had an answer; one of 500 and above is none of the registry's own."""
        return registry not in self._failed

    def late(self, registry: str) -> None:
        """Take in that an asker has given up waiting."""
        self._failed.add(registry)

    async def resolve(self, registry: str, repository: str, tag: str) -> Descriptor:
        """Return what a tag names. Raises as `protocol.Upstream` says."""
        document = await self._document("resolve", registry, repository, tag)
        return Descriptor(document.media_type, document.digest, len(document.data))

    async def document(self, registry: str, repository: str, digest: Digest) -> Document:
        """Return a document. Raises as `protocol.Upstream` says."""
        document = await self._document("document", registry, repository, str(digest))
        self._registries.sent[digest] += len(document.data)
        return document

    async def blob_size(self, registry: str, repository: str, digest: Digest) -> int:
        """Return a blob's length. Raises as `protocol.Upstream` says."""
        data, _ = await self._blob("blob_size", registry, repository, digest)
        return len(data)

    @asynccontextmanager
    async def blob(
        self, registry: str, repository: str, digest: Digest, *, start: int = 0
    ) -> AsyncIterator["MemoryDownload"]:
        """Open a blob from `start` on. Raises as `protocol.Upstream` says."""
        data, conduct = await self._blob("blob", registry, repository, digest)
        if start > len(data):
            raise UpstreamRefused(f"{registry} has no byte {start} of {digest}", status=416)

        def count(part_bytes: int) -> None:
            self._registries.sent[digest] += part_bytes

        yield MemoryDownload(conduct.falsify(data), conduct, start, count)

    async def tags(self, registry: str, repository: str) -> list[str]:
        """Return a repository's tags. Raises as `protocol.Upstream` says."""
        await self._ask(Question(registry, "tags", repository, ""))
        tags = self._registries.tags(registry, repository)
        if tags is None:
            raise NotHere(f"{registry} has no repository {repository}")
        return tags

    async def referrers(self, registry: str, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to a manifest. Raises as `protocol.Upstream` says."""
        await self._ask(Question(registry, "referrers", repository, str(subject)))
        return self._registries.referrers(registry, repository, subject)

    async def _document(self, kind: str, registry: str, repository: str, reference: str) -> Document:
        await self._ask(Question(registry, kind, repository, reference))
        document = self._registries.document(registry, repository, reference)
        if document is None:
            raise NotHere(f"{registry} has no {repository} {reference}")
        return document

    async def _blob(self, kind: str, registry: str, repository: str, digest: Digest) -> tuple[bytes, Conduct]:
        conduct = await self._ask(Question(registry, kind, repository, str(digest)))
        data = self._registries.blob(registry, repository, digest)
        if data is None:
            raise NotHere(f"{registry} has no {digest} in {repository}")
        return data, conduct

    async def _ask(self, question: Question) -> Conduct:
        try:
            conduct = await self._registries.ask(question)
        except (Unreachable, UpstreamRefused) as error:
            if isinstance(error, Unreachable) or error.status >= 500:
                self._failed.add(question.registry)
            else:
                self._failed.discard(question.registry)
            raise
        except NotHere:
            self._failed.discard(question.registry)
            raise
        self._failed.discard(question.registry)
        return conduct


class MemoryDownload:
    """See `protocol.Download`."""

    def __init__(self, data: bytes, conduct: Conduct, start: int, count: Callable[[int], None]) -> None:
        """Hand over `data` from `start` on; `count` is told of each part's bytes."""
        self._data = data
        self._conduct = conduct
        self._next = start
        self._cut_at = start + conduct.cuts.pop(0) if conduct.cuts else None
        self._count = count

    @property
    def size(self) -> int:
        """Length of the whole blob in bytes."""
        return len(self._data)

    async def receive(self) -> bytes:
        """Return the next bytes, b"" after the last. Raises `Unreachable` at a cut. Cancellation loses no byte."""
        await trio.lowlevel.checkpoint()
        end = min(self._next + PART_BYTES, self.size)
        if self._cut_at is not None:
            end = min(end, self._cut_at)
        part = self._data[self._next : end]
        if part and self._conduct.bytes_per_s is not None:
            await trio.sleep(len(part) / self._conduct.bytes_per_s)
        if not part and self._next < self.size:
            raise Unreachable(f"the download broke at byte {self._next}")
        self._next = end
        self._count(len(part))
        return part


def _referrer(document: Document, artifact_type: str | None, *, is_index: bool) -> Descriptor:
    """Describe a referrer as a registry's list does: the type of the artifact stands in it."""
    kind = artifact_type if artifact_type is not None or is_index else _config_type(document)
    return Descriptor(document.media_type, document.digest, len(document.data), artifact_type=kind)


def _config_type(document: Document) -> str | None:
    parsed = parse_manifest(document.data, document.media_type)
    return parsed.config.media_type if not isinstance(parsed, Index) and parsed.config is not None else None
