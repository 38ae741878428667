"""What is in a cache, and taking things out of it by hand.

Laws: works beside a running agent, which sees what was done in its directory within seconds.
"""

from collections.abc import Iterable
from typing import Any

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import Digest, Reference, TagName
from p2pmirror.operations.archive import Progress
from p2pmirror.store.cache import CacheStore, canonical_pin
from p2pmirror.store.cache.shelf import Entry

Subject = Digest | TagName


def subject_of(text: str) -> Subject:
    """Return the digest or the tag that a person named; without a tag it is `latest`. Raises `oci.Invalid`."""
    if text.startswith(("sha256:", "sha512:")):
        return Digest.parse(text)
    reference = Reference.parse(text).with_default_tag()
    named = reference.digest or reference.tag_name
    assert named is not None, "a reference has a digest, or a tag by now"
    return named


async def holdings(store: CacheStore, now: float) -> dict[str, Any]:
    """Return what `cache list --json` prints of a cache that was looked at; ages are seconds."""
    tags = sorted(store.inventory.tags(), key=lambda tag: str(tag.name))
    blobs = sorted(store.entries, key=lambda entry: (-entry.used_s, entry.digest))
    return {
        "bytes": store.held_bytes,
        "pins": sorted(store.pins),
        "tags": [
            _of_tag(str(tag.name), str(tag.digest), await store.reach(tag), store, now, confirmed=tag.confirmed)
            for tag in tags
        ],
        "blobs": [_of_blob(entry, store, now) for entry in blobs],
    }


async def remove(store: CacheStore, subjects: Iterable[Subject]) -> tuple[list[Digest], list[Subject]]:
    """Remove tags with what they alone lead to, and blobs, and their pins; return what went and what was not there.

    Raises `StoreFull` when the directory cannot be changed.
    """
    gone, absent = list[Digest](), list[Subject]()
    for subject in subjects:
        await store.unpin(canonical_pin(str(subject)))
        try:
            gone += await _remove_one(store, subject)
        except NotHere:
            absent.append(subject)
    return gone, absent


async def verify(store: CacheStore, progress: Progress, *, remove: bool) -> tuple[int, list[Digest]]:
    """Hash everything; return how many blobs were hashed and which were wrong. Raises `StoreFull`.

    What has lost its size was removed by the look before; what has other bytes is removed when `remove` says so.
    """
    wrong, hashed = list(store.damaged), 0
    sizes = {entry.digest: entry.size for entry in store.entries}
    for digest in [*sizes, *store.strange]:
        try:
            right = await store.verify(digest)
        except NotHere:
            continue  # somebody removed it
        except Unreachable:
            right = False
        hashed += 1
        progress(sizes.get(digest, 0))
        if not right:
            wrong.append(digest)
    if remove and wrong:
        await store.remove(wrong, "damaged")
    return hashed, sorted(wrong)


async def _remove_one(store: CacheStore, subject: Subject) -> list[Digest]:
    if isinstance(subject, TagName):
        return await store.remove_image(subject)
    if store.inventory.blob(subject) is None:
        raise NotHere(f"the cache has no {subject}")
    await store.remove([subject])
    return [subject]


def _of_tag(
    name: str, digest: str, reach: list[Entry], store: CacheStore, now: float, *, confirmed: bool
) -> dict[str, Any]:
    return {
        "name": name,
        "digest": digest,
        "confirmed": confirmed,
        "blobs": len(reach),
        "bytes": sum(entry.size for entry in reach),
        "age_s": _ago(now, min(entry.kept_s for entry in reach)),
        "used_s": _ago(now, max(entry.used_s for entry in reach)),
        "pinned": bool(reach) and all(store.is_pinned(entry) for entry in reach),
    }


def _of_blob(entry: Entry, store: CacheStore, now: float) -> dict[str, Any]:
    return {
        "digest": str(entry.digest),
        "bytes": entry.size,
        "media_type": entry.media_type,
        "names": sorted(entry.names),
        "age_s": _ago(now, entry.kept_s),
        "used_s": _ago(now, entry.used_s),
        "pinned": store.is_pinned(entry),
    }


def _ago(now: float, then: float) -> float:
    return round(max(0.0, now - then), 1)
