"""Lists that come in pages: the tags of a repository, and what refers to a manifest.

Laws: pages, their bytes and what they name have limits; a page leads on to the same host or nowhere; what is no list is
refused. Where a registry has no list of referrers, the referrers' tag is one.

Follows the OCI distribution specification, "Listing Tags", "Listing Referrers" and "Referrers Tag Schema".
"""

import json
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote, urlsplit

from p2pmirror.errors import NotHere, UpstreamRefused
from p2pmirror.oci import (
    DOCUMENT_BYTES_MAX,
    Descriptor,
    Digest,
    Index,
    Invalid,
    check_repository,
    check_tag,
    mediatype,
    parse_manifest,
)
from p2pmirror.upstream import documents
from p2pmirror.upstream.answer import Answer, Question
from p2pmirror.upstream.asking import Asker
from p2pmirror.upstream.links import next_page

PAGE_TAGS: Final = 1000  # asked for at a time
PAGES_MAX: Final = 100
TAGS_MAX: Final = 100_000  # of a repository: those of large CI systems have some ten thousand
PAGE_BYTES_MAX: Final = 4 << 20  # 4 MiB: a thousand tags of 128 characters have 130 KiB; some send all at once
REFERRERS_MAX: Final = 10_000  # of one manifest: as many as an index may name

_ALGORITHM_CHARS_MAX: Final = 32  # of a referrers' tag
_ENCODED_CHARS_MAX: Final = 64


async def list_tags(asker: Asker, repository: str) -> list[str]:
    """Return all tags of a repository, sorted, up to `TAGS_MAX`. Raises as `protocol.Upstream` says."""
    found: dict[str, None] = {}
    target = _tags_target(repository, "")
    for _ in range(PAGES_MAX):
        async with asker.answer(Question("tags", "GET", target, repository, cost="spare")) as answer:
            page = _tags_of(asker, await answer.read(PAGE_BYTES_MAX))
            following = _following(answer)
        before = len(found)
        found.update(dict.fromkeys(page))
        # A list that was cut may say so by its length alone; one that only repeats itself has no end of its own.
        if following is None and len(page) >= PAGE_TAGS:
            following = _tags_target(repository, page[-1])
        if following is None or len(found) == before or len(found) >= TAGS_MAX:
            break
        target = following
    return sorted(found)[:TAGS_MAX]


async def list_referrers(asker: Asker, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
    """Return what refers to a manifest, up to `REFERRERS_MAX`. Raises as `protocol.Upstream` says."""
    try:
        found = [each async for each in _listed_referrers(asker, repository, subject)]
    except (NotHere, UpstreamRefused) as error:
        if isinstance(error, UpstreamRefused) and error.status not in {400, 404, 405, 501, 502}:
            raise
        return await _tagged_referrers(asker, repository, subject)
    return tuple(found[:REFERRERS_MAX])


async def _listed_referrers(asker: Asker, repository: str, subject: Digest) -> AsyncIterator[Descriptor]:
    target: str | None = f"/v2/{check_repository(repository)}/referrers/{subject}"
    for _ in range(PAGES_MAX):
        if target is None:
            return
        question = Question("referrers", "GET", target, repository, str(subject), cost="spare")
        async with asker.answer(question) as answer:
            data = await answer.read(DOCUMENT_BYTES_MAX)
            target = _following(answer)
        for each in _index(asker, data).manifests:
            yield each


async def _tagged_referrers(asker: Asker, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
    tag = f"{subject.algorithm[:_ALGORITHM_CHARS_MAX]}-{subject.hex[:_ENCODED_CHARS_MAX]}"
    try:
        named = await documents.resolve(asker, repository, tag)
    except NotHere:
        return ()
    document = await documents.fetch(asker, repository, named.digest)
    return _index(asker, document.data).manifests[:REFERRERS_MAX]


def _index(asker: Asker, data: bytes) -> Index:
    try:
        index = parse_manifest(data, mediatype.OCI_INDEX)
    except Invalid as error:
        raise UpstreamRefused(f"{asker.name} sent what is no list of referrers: {error}", status=502) from None
    assert isinstance(index, Index), "it was read as one"
    return index


def _tags_of(asker: Asker, data: bytes) -> list[str]:
    wrong = UpstreamRefused(f"{asker.name} sent what is no list of tags", status=502)
    try:
        said: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise wrong from None
    tags = said.get("tags") if isinstance(said, dict) else wrong
    if tags is None:  # an empty repository, as Go writes it
        return []
    if not isinstance(tags, list):
        raise wrong
    return [tag for tag in tags if isinstance(tag, str) and _is_tag(tag)]


def _is_tag(text: str) -> bool:
    try:
        return bool(check_tag(text))
    except Invalid:
        return False


def _tags_target(repository: str, last: str) -> str:
    more = f"&last={quote(last, safe='')}" if last else ""
    return f"/v2/{check_repository(repository)}/tags/list?n={PAGE_TAGS}{more}"


def _following(answer: Answer) -> str | None:
    """Return path and query of the next page."""
    url = next_page(answer.headers.get("link", ""), str(answer.url))
    if url is None:
        return None
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
