"""What pins hold, what refers to what, and the shelf of a cache in memory."""

import msgspec

from p2pmirror.oci import Descriptor, Digest, TagName, mediatype
from p2pmirror.store.cache.pins import Pins
from p2pmirror.store.cache.records import (
    Facts,
    Referrer,
    TagRecord,
    referrer_of,
)
from p2pmirror.store.cache.shelf import Entry, Shelf
from p2pmirror.store.protocol import TagInfo

ONE, TWO = Digest.of(b"one"), Digest.of(b"two", "sha512")
NAME = TagName("docker.io", "library/nginx", "1.27")
SUBJECT = Referrer(str(TWO), "a/b", {"by": "me"})
BROKEN = [None, b"", b"{", b"[]", b'{"size": "1"}', b"[" * 100_000, b"\xff", b"null"]


def tag_record(**changes: object) -> TagRecord:
    record = TagRecord(str(NAME), str(ONE), "a/b", 3, True, 7.0)
    return msgspec.structs.replace(record, **changes)


def entry(digest: Digest = ONE, size: int = 3, **more: object) -> Entry:
    return Entry(digest, size, None, frozenset(), 0.0, **({"used_s": 0.0} | more))  # type: ignore[arg-type]


def info(digest: Digest = ONE, name: TagName = NAME, *, since: float = 0.0) -> TagInfo:
    return TagInfo(name, digest, mediatype.OCI_MANIFEST, 3, since, True)


# --- records ---


def test_referrers() -> None:
    """A manifest with a subject is listed under it; without a subject, a media type or a real digest it is not."""
    described = Descriptor("a/b", ONE, 3, artifact_type="a/b", annotations={"by": "me"})
    assert referrer_of(Facts(3, 0.0, "a/b", (), SUBJECT), ONE) == (TWO, described)
    for facts in (Facts(3, 0.0, "a/b"), Facts(3, 0.0, None, (), SUBJECT), Facts(3, 0.0, "a/b", (), Referrer("x"))):
        assert referrer_of(facts, ONE) is None


# --- pins ---


def test_what_pins_hold() -> None:
    """What pinned digests and tags lead to is pinned, and whatever carries a pinned name."""
    pins = Pins(frozenset({str(ONE), "docker.io/library/nginx", str(NAME)}), frozenset({TWO}))
    assert pins.digests == [ONE]
    assert pins.names_tag(NAME)
    assert not pins.names_tag(TagName("docker.io", "library/nginx", "1.28"))
    assert pins.has(entry(TWO))
    assert not pins.has(entry(Digest.of(b"other")))
    named = entry(Digest.of(b"other"))
    named.names = frozenset({"docker.io/library/nginx"})
    assert pins.has(named)


# --- the shelf ---


def test_the_sum_follows_the_entries() -> None:
    """Whatever comes, grows and goes, the sum is that of what is there; what is absent is no error."""
    shelf = Shelf()
    shelf.put([entry(ONE, 3), entry(TWO, 5)])
    first = shelf.get(ONE)
    assert first is not None
    first.readers = 1
    shelf.put([entry(ONE, 4, used_s=9.0)])
    assert (shelf.held_bytes, len(shelf)) == (9, 2)
    assert shelf.get(ONE) is first, "whoever reads holds this very entry"
    assert (first.is_open, first.used_s, first.size) == (True, 9.0, 4)
    shelf.drop([ONE, ONE, Digest.of(b"never there")])
    assert (shelf.held_bytes, [each.digest for each in shelf]) == (5, [TWO])
    assert [each.digest for each in shelf.inventory.blobs()] == [TWO]


def test_a_tag_is_listed_while_what_it_names_is_held() -> None:
    """Before its manifest comes, after it has gone, and when it moves to what is absent, a tag is remembered only."""
    shelf = Shelf()
    shelf.put_tag(info(), 1.0)
    assert shelf.inventory.tag(NAME) is None
    shelf.put([entry(ONE)])
    assert shelf.inventory.tag(NAME) is not None
    shelf.put_tag(info(TWO), 2.0)
    assert shelf.inventory.tag(NAME) is None
    remembered = shelf.tag(NAME)
    assert remembered is not None
    assert remembered.descriptor == Descriptor(mediatype.OCI_MANIFEST, TWO, 3)
    other = TagName("docker.io", "library/nginx", "2")
    shelf.put([entry(TWO)])
    shelf.put_tag(info(TWO, other), 2.0)
    shelf.drop_tag(NAME)
    shelf.drop_tag(NAME)
    assert [tag.info.name for tag in shelf.tags] == [other]
    assert shelf.inventory.tag(other) is not None
    shelf.drop([TWO])
    assert shelf.inventory.tag(other) is None
    shelf.put([entry(TWO)])
    assert shelf.inventory.tag(other) is not None, "it comes back with what it names"


def test_a_walk_does_not_bring_back_what_went_meanwhile() -> None:
    """What was removed after a change is known to have been, until no walk is left that began before."""
    shelf = Shelf()
    shelf.put([entry(ONE)])
    shelf.put_tag(info(), 1.0)
    began = shelf.change
    shelf.drop([ONE])
    shelf.drop_tag(NAME)
    assert shelf.went_since(ONE, began)
    assert shelf.went_since(NAME, began)
    assert not shelf.went_since(TWO, began)
    assert not shelf.went_since(ONE, shelf.change)
    shelf.forget_what_went(shelf.change)
    assert not shelf.went_since(ONE, began)


def test_the_first_walk_makes_the_inventory_whole() -> None:
    """Once walked, with referrers, it stays so."""
    shelf = Shelf()
    described = Descriptor("a/b", ONE, 3)
    shelf.put([entry(ONE, referrer=(TWO, described))])
    assert not shelf.inventory.walked
    shelf.walked()
    version = shelf.inventory.version
    shelf.walked()
    assert shelf.inventory.walked
    assert shelf.inventory.version == version
    assert list(shelf.inventory.referrers(TWO)) == [described]
