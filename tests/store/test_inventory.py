"""The inventory: one writer, readers that compare versions."""

import pytest
import trio

from p2pmirror.oci import Descriptor, Digest, TagName, mediatype
from p2pmirror.store.inventory import HeldInventory, UnionInventory
from p2pmirror.store.protocol import BlobInfo, TagInfo

A, B = (BlobInfo(Digest.of(text), 1) for text in (b"a", b"b"))
NAME = TagName.parse("registry.example/a:1")


def tag(digest: Digest = A.digest, since: float = 0.0, *, confirmed: bool = False) -> TagInfo:
    return TagInfo(NAME, digest, mediatype.OCI_MANIFEST, 1, since, confirmed)


def referrer(digest: Digest) -> Descriptor:
    return Descriptor(mediatype.OCI_MANIFEST, digest, 1)


def test_same_again_is_no_change() -> None:
    """Writing what is listed already does not change the version, by walk or by update; a tag keeps its moment."""
    inventory = HeldInventory()
    inventory.replace([A, B], [tag(since=1.0)], [(A.digest, referrer(B.digest))])
    version = inventory.version
    inventory.replace([B, A], [tag(since=2.0)], [(A.digest, referrer(B.digest))])
    inventory.update(blobs=[A], tags=[tag(since=3.0)], referrers=[(A.digest, referrer(B.digest))])
    inventory.update(gone_blobs=[Digest.of(b"c")], gone_tags=[TagName.parse("registry.example/b:1")])
    assert inventory.version == version
    assert inventory.tag(NAME) == tag(since=1.0)


def test_each_kind_of_change_grows_the_version() -> None:
    """Blobs, tags and referrers that come, change or go each make a new version."""
    inventory = HeldInventory()
    seen = [inventory.version]
    for change in (
        lambda: inventory.replace([], []),
        lambda: inventory.update(blobs=[A]),
        lambda: inventory.update(blobs=[BlobInfo(A.digest, 1, "a/b")]),
        lambda: inventory.update(tags=[tag()]),
        lambda: inventory.update(tags=[tag(B.digest, since=1.0)]),
        lambda: inventory.update(tags=[tag(B.digest, since=2.0, confirmed=True)]),
        lambda: inventory.update(referrers=[(B.digest, referrer(A.digest))]),
        lambda: inventory.update(gone_tags=[NAME]),
        lambda: inventory.update(gone_blobs=[A.digest]),
    ):
        change()
        seen.append(inventory.version)
    assert seen == sorted(set(seen))


def test_walked_by_replace_alone() -> None:
    """Updates add to an inventory that is not walked yet; the first whole walk, even an empty one, makes it walked."""
    inventory = HeldInventory()
    inventory.update(blobs=[A])
    assert not inventory.walked
    before = inventory.version
    inventory.replace([A], [])
    assert inventory.walked
    assert inventory.version > before


def test_referrers_are_held_manifests() -> None:
    """Only referrers that are held are listed; they come back with their manifest."""
    inventory = HeldInventory()
    inventory.update(blobs=[B], referrers=[(A.digest, referrer(B.digest))])
    assert inventory.referrers(A.digest) == (referrer(B.digest),)
    inventory.update(gone_blobs=[B.digest])
    assert inventory.referrers(A.digest) == ()


async def test_union_wakes_for_every_part(autojump_clock: trio.testing.MockClock) -> None:
    """A reader of a union is woken by a change of any part, also one between its look and its wait."""
    parts = [HeldInventory(), HeldInventory()]
    union = UnionInventory(parts)
    for part in (*parts, *parts):
        seen = union.version
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                assert await union.changed(seen) > seen  # noqa: B023 (ends within the turn of the loop)

            await trio.sleep(1)
            part.update(blobs=[BlobInfo(Digest.of(str(seen).encode()), 1)])
        part.update(blobs=[BlobInfo(Digest.of(f"more {seen}".encode()), 1)])
        assert await union.changed(union.version - 1) == union.version


async def test_union_of_nothing_waits(autojump_clock: trio.testing.MockClock) -> None:
    """A union without parts never changes, and waiting for it does not spin."""
    with pytest.raises(trio.TooSlowError), trio.fail_after(100):
        await UnionInventory([]).changed(0)
