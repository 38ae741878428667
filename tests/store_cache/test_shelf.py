"""What a cache writes beside its content: read as it was written, or not at all; pins; and the shelf in memory."""

from pathlib import Path

import msgspec
import pytest

from p2pmirror.oci import Descriptor, Digest, Invalid, TagName, mediatype
from p2pmirror.store.cache.pins import Pins, canonical_pin, readable
from p2pmirror.store.cache.records import (
    NAMES_MAX,
    RECORD_BYTES_MAX,
    Facts,
    PinRecord,
    Places,
    Referrer,
    TagRecord,
    bounded,
    encode,
    read_facts,
    read_pin,
    read_tag,
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


def test_what_is_written_is_read() -> None:
    """Facts, tags and pins come back as they went in."""
    facts = Facts(3, 7.0, mediatype.OCI_MANIFEST, ("docker.io/a",), SUBJECT)
    assert read_facts(encode(facts)) == facts
    assert read_tag(encode(tag_record())) == (NAME, ONE, tag_record())
    assert read_pin(encode(PinRecord("docker.io/a"))) == "docker.io/a"


@pytest.mark.parametrize("data", BROKEN, ids=repr)
def test_what_cannot_be_read_is_none(data: bytes | None) -> None:
    """A missing, torn or strange record is no error."""
    assert read_facts(data) is None
    assert read_tag(data) is None
    assert read_pin(data) is None


def test_records_that_lie_are_none() -> None:
    """A size below nothing, a name or digest that is none, are as unreadable as torn bytes."""
    assert read_facts(encode(Facts(-1, 0.0))) is None
    assert read_tag(encode(tag_record(name="../../etc"))) is None
    assert read_tag(encode(tag_record(digest="sha256:../x"))) is None


def test_annotations_that_are_too_long_are_left_out() -> None:
    """A record stays readable in one read; the referrer is listed without its annotations then."""
    long = Facts(3, 7.0, "a/b", (), Referrer(str(TWO), "a/b", {"x": "y" * RECORD_BYTES_MAX}))
    data = encode(long)
    assert len(data) <= RECORD_BYTES_MAX
    found = read_facts(data)
    assert found is not None
    assert found.referrer == Referrer(str(TWO), "a/b")


def test_referrers() -> None:
    """A manifest with a subject is listed under it; without a subject, a media type or a real digest it is not."""
    described = Descriptor("a/b", ONE, 3, artifact_type="a/b", annotations={"by": "me"})
    assert referrer_of(Facts(3, 0.0, "a/b", (), SUBJECT), ONE) == (TWO, described)
    for facts in (Facts(3, 0.0, "a/b"), Facts(3, 0.0, None, (), SUBJECT), Facts(3, 0.0, "a/b", (), Referrer("x"))):
        assert referrer_of(facts, ONE) is None


def test_names_are_bounded() -> None:
    """However many images share a layer, so many are written down, the same ones each time."""
    names = [f"docker.io/{number:03}" for number in range(2 * NAMES_MAX)]
    assert bounded(names[:NAMES_MAX]) == frozenset(names[:NAMES_MAX])
    assert bounded(reversed(names)) == frozenset(names[:NAMES_MAX])


def test_no_name_from_outside_is_a_part_of_a_path() -> None:
    """Everything is within the directory, two levels deep, whatever it is called."""
    places = Places(Path("/cache"))
    assert places.blob(TWO) == Path("/cache/blobs/sha512") / TWO.hex
    assert places.facts(ONE) == Path("/cache/facts/sha256") / ONE.hex
    for path, directory in ((places.tag(NAME), "tags"), (places.pin("../../etc/passwd"), "pins")):
        assert path.parent == Path("/cache") / directory
        assert len(path.name) == 64
    assert places.lock == Path("/cache/lock")
    kept = {places.blob(ONE), places.blob(TWO), places.facts(ONE), places.facts(TWO), places.tag(NAME), places.pin("x")}
    assert {path.parent for path in kept} == set(places.watched), "and every directory is looked at"


# --- pins ---


@pytest.mark.parametrize(
    ("text", "pin"),
    [
        (str(ONE), str(ONE)),
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        (f"ghcr.io/a/b@{ONE}", str(ONE)),
        (f"ghcr.io/a/b:v1@{TWO}", str(TWO)),
    ],
)
def test_a_pin_has_one_spelling(text: str, pin: str) -> None:
    """However an image is called, it is pinned under one text, which is its own spelling."""
    assert canonical_pin(text) == pin
    assert readable([text, pin, "!", "sha256:x"]) == {pin}


def test_what_is_no_pin() -> None:
    """A text that names nothing is refused."""
    for text in ("", "sha256:x", "a b"):
        with pytest.raises(Invalid):
            canonical_pin(text)


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
