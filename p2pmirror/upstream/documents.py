"""Manifests and indexes: what a tag names, and a document by its digest.

Laws: a tag is asked for by HEAD, which costs nothing of a quota, and by GET only where HEAD does not tell; what comes
by GET is hashed; a document is one of the type that it came as, or it is refused; whoever shared a connection with one
who left in the middle asks again.

Follows the OCI distribution specification, "Pulling manifests".
"""

from contextlib import suppress
from typing import Final

from p2pmirror.errors import UpstreamRefused
from p2pmirror.oci import (
    DOCUMENT_BYTES_MAX,
    Descriptor,
    Digest,
    Invalid,
    check_tag,
    manifest_path,
    mediatype,
    parse_manifest,
)
from p2pmirror.upstream.answer import Answer, Question
from p2pmirror.upstream.asking import Asker
from p2pmirror.upstream.protocol import Document
from p2pmirror.upstream.transport import Dropped

DROPPED_MAX: Final = 3  # times that others who left took the connection with them: each time another one is used
ACCEPT: Final = ", ".join((*sorted(mediatype.INDEXES), *sorted(mediatype.MANIFESTS)))


async def resolve(asker: Asker, repository: str, tag: str) -> Descriptor:
    """Return what a tag names. Raises as `protocol.Upstream` says."""
    try:
        async with asker.answer(_question("HEAD", repository, check_tag(tag))) as answer:
            found = _described(answer)
    except UpstreamRefused as error:
        if error.status not in {405, 501}:
            raise
        found = None
    if found is not None:
        return found
    document = await _fetched(asker, repository, tag)
    return Descriptor(document.media_type, document.digest, len(document.data))


async def fetch(asker: Asker, repository: str, digest: Digest) -> Document:
    """Return a document. Raises as `protocol.Upstream` says."""
    return await _fetched(asker, repository, digest)


async def _fetched(asker: Asker, repository: str, reference: str | Digest) -> Document:
    for _ in range(DROPPED_MAX):
        with suppress(Dropped):
            return await _fetched_once(asker, repository, reference)
    return await _fetched_once(asker, repository, reference)


async def _fetched_once(asker: Asker, repository: str, reference: str | Digest) -> Document:
    async with asker.answer(_question("GET", repository, reference)) as answer:
        data = await answer.read(DOCUMENT_BYTES_MAX)
        expected = reference if isinstance(reference, Digest) else _digest(answer) or Digest.of(data)
        if Digest.of(data, expected.algorithm) != expected:
            raise UpstreamRefused(f"{asker.name} sent other bytes than {expected}", status=502)
        return Document(expected, _checked_type(asker, data, answer.media_type), data)


def _question(method: str, repository: str, reference: str | Digest) -> Question:
    head = method == "HEAD"
    return Question(
        "manifest",
        "HEAD" if head else "GET",
        manifest_path(repository, reference),
        repository,
        str(reference),
        cost="free" if head else "document",
        headers={"Accept": ACCEPT},
    )


def _described(answer: Answer) -> Descriptor | None:
    """Return what an answer to HEAD tells; None when it does not tell all."""
    digest, size = _digest(answer), answer.length
    if digest is None or size is None or not mediatype.describes(answer.media_type):
        return None
    if not 0 < size <= DOCUMENT_BYTES_MAX:
        return None
    return Descriptor(answer.media_type, digest, size)


def _digest(answer: Answer) -> Digest | None:
    try:
        return Digest.parse(answer.headers.get("docker-content-digest", "").strip())
    except Invalid:
        return None


def _checked_type(asker: Asker, data: bytes, said: str) -> str:
    """Return the media type of a document: the one that it came as, else the one that it tells of itself."""
    try:
        return parse_manifest(data, said if mediatype.describes(said) else None).media_type
    except Invalid as error:
        raise UpstreamRefused(f"{asker.name} sent what is no manifest: {error}", status=502) from None
