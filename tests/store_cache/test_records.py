"""What a cache writes beside its content can be read again, and whatever else is there is nothing, not an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import Digest, Invalid, TagName
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
from tests.store_cache.setting import DIRECTORY

DIGEST = Digest.of(b"1")
TAG = TagName("registry.example", "app", "v1")


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_what_is_no_record_is_none(data: bytes) -> None:
    """Any bytes are a record or None."""
    for read in (read_facts, read_tag, read_pin):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff",
        b'{"size": -1, "kept_s": 1}',
        b'{"size": "1"}',
        b"null",
        b'{"pin": "\xff"}',
    ],
)
def test_broken_records(data: bytes | None) -> None:
    """Absent, torn, deep, negative and foreign records are None."""
    assert (read_facts(data), read_tag(data), read_pin(data)) == (None, None, None)


def test_records_are_read_as_they_were_written() -> None:
    """Facts, tags and pins come back; a tag whose name or digest is none does not."""
    facts = Facts(5, 1.5, "a/b", ("x/y",), Referrer(str(DIGEST), "a/c", {"k": "v"}))
    assert read_facts(encode(facts)) == facts
    record = TagRecord(str(TAG), str(DIGEST), "a/b", 5, confirmed=True, confirmed_s=2.0)
    assert read_tag(encode(record)) == (TAG, DIGEST, record)
    assert read_tag(encode(TagRecord("no", str(DIGEST), "a/b", 5, confirmed=True, confirmed_s=2.0))) is None
    assert read_pin(encode(PinRecord("a/b"))) == "a/b"


def test_records_are_bounded() -> None:
    """Annotations that are too long are left out, and names beyond the most that there may be."""
    long = Facts(5, 1.5, "a/b", (), Referrer(str(DIGEST), None, {"k": "v" * RECORD_BYTES_MAX}))
    read = read_facts(encode(long))
    assert read is not None
    assert read.referrer == Referrer(str(DIGEST))
    many = [f"registry.example/{number:04}" for number in range(1000)]
    assert bounded(many) == frozenset(many[:NAMES_MAX])


@pytest.mark.parametrize(
    "facts",
    [Facts(5, 1.0, "a/b"), Facts(5, 1.0, None, (), Referrer(str(DIGEST))), Facts(5, 1.0, "a/b", (), Referrer("x"))],
)
def test_no_referrer(facts: Facts) -> None:
    """Without a subject, a type, or a subject that is a digest, nothing is listed as a referrer."""
    assert referrer_of(facts, DIGEST) is None


def test_names_are_never_paths() -> None:
    """A tag's and a pin's file is named by a hash, whatever they are called."""
    places = Places(DIRECTORY)
    for path in (places.tag(TAG), places.pin("../../x")):
        assert path.parent.parent == DIRECTORY
        assert len(path.name) == 64


@pytest.mark.parametrize(
    ("text", "pin"),
    [
        (str(DIGEST), str(DIGEST)),
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        (f"ghcr.io/a/b:v1@{DIGEST}", str(DIGEST)),
    ],
)
def test_pins_have_one_spelling(text: str, pin: str) -> None:
    """A pin is a digest, a name, or a tag, in full."""
    assert canonical_pin(text) == pin
    assert canonical_pin(pin) == pin


def test_what_is_no_pin() -> None:
    """What names nothing is Invalid, and is passed by where it was found on the disk."""
    for text in ("sha256:12", "Not A Name"):
        with pytest.raises(Invalid):
            canonical_pin(text)
    assert readable(["sha256:12", "nginx", str(DIGEST), "docker.io/library/nginx"]) == {
        str(DIGEST),
        "docker.io/library/nginx",
    }
    assert Pins(frozenset({str(DIGEST), str(TAG)})).digests == [DIGEST]
    assert Pins(frozenset({str(TAG)})).names_tag(TAG)


def test_no_name_from_outside_is_a_part_of_a_path() -> None:
    """Everything has its file in a directory that is looked at, whatever it is called; the lock is beside them."""
    places, other = Places(DIRECTORY), Digest.of(b"2", "sha512")
    assert places.blob(other) == DIRECTORY / "blobs" / "sha512" / other.hex
    assert places.tag(TAG).parent == DIRECTORY / "tags"
    assert places.pin("../../etc/passwd").parent == DIRECTORY / "pins"
    assert {len(path.name) for path in (places.tag(TAG), places.pin("../../etc/passwd"))} == {64}
    kept = [places.blob(DIGEST), places.blob(other), places.facts(DIGEST), places.facts(other)]
    assert {path.parent for path in (*kept, places.tag(TAG), places.pin("x"))} == set(places.watched)
    assert places.lock == DIRECTORY / "lock"
