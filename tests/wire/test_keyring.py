"""Promises of the cluster's keys: only a key makes its tags, for one domain and one cut into parts; keys change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.wire.keyring import TAG_BYTES, KeyRing

OLD, NEW, OTHER = (letter * 32 for letter in (b"o", b"n", b"x"))
PARTS = st.lists(st.binary(max_size=40), max_size=4)


def test_a_tag_is_that_of_the_published_hash() -> None:
    """A tag is keyed, personalised BLAKE2b-128 over each part behind its length: any other program can check it."""
    import hashlib

    expected = hashlib.blake2b(b"\0\0\0\1a\0\0\0\2bc", key=OLD, person=b"test", digest_size=TAG_BYTES).digest()
    assert KeyRing([OLD]).tag(b"test", b"a", b"bc") == expected


@given(PARTS, PARTS)
def test_a_tag_is_for_its_parts_alone(one: list[bytes], other: list[bytes]) -> None:
    """Other parts, and the same bytes cut otherwise, have another tag."""
    ring = KeyRing([OLD])
    assert ring.verifies(ring.tag(b"test", *one), b"test", *other) == (one == other)


def test_a_tag_is_for_its_domain_alone() -> None:
    """What was signed as a datagram is worth nothing as a request."""
    ring = KeyRing([OLD])
    assert not ring.verifies(ring.tag(b"one", b"text"), b"other", b"text")


@pytest.mark.parametrize("tag", [b"", b"\0" * TAG_BYTES, b"\0" * (TAG_BYTES - 1), b"\xff" * 64])
def test_what_is_no_tag_does_not_verify(tag: bytes) -> None:
    """A tag of any other length or content is refused, without an error."""
    assert not KeyRing([OLD]).verifies(tag, b"test", b"text")


def test_each_bit_of_a_tag_counts() -> None:
    """A tag with one bit changed is none."""
    ring = KeyRing([OLD])
    tag = ring.tag(b"test", b"text")
    for bit in range(8 * TAG_BYTES):
        changed = bytearray(tag)
        changed[bit // 8] ^= 1 << bit % 8
        assert not ring.verifies(bytes(changed), b"test", b"text")


def test_neighbouring_steps_of_a_change_understand_one_another() -> None:
    """Old; old and new; new and old; new: whoever is one step ahead or behind is understood, two steps are not."""
    steps = [KeyRing(keys) for keys in ([OLD], [OLD, NEW], [NEW, OLD], [NEW])]
    for one, signer in enumerate(steps):
        heard = [each.verifies(signer.tag(b"test", b"text"), b"test", b"text") for each in steps]
        assert all(heard[max(0, one - 1) : one + 2])
    assert not steps[3].verifies(steps[0].tag(b"test", b"x"), b"test", b"x")


def test_replaced_keys_count_at_once() -> None:
    """After a change the ring signs with its new first key, and no longer believes a key that was taken away."""
    ring = KeyRing([OLD])
    before = ring.tag(b"test", b"text")
    ring.replace([NEW])
    assert ring.tag(b"test", b"text") == KeyRing([NEW]).tag(b"test", b"text") != before
    assert not ring.verifies(before, b"test", b"text")


@pytest.mark.parametrize("keys", [[], [OLD, NEW, OTHER], [b"short"], [OLD, b""], [OLD + b"x"]])
def test_a_ring_of_anything_else_is_refused(keys: list[bytes]) -> None:
    """None, three, or a key of another length: an error, and a ring that had keys keeps them."""
    with pytest.raises(ValueError, match="1 to 2 keys of 32 bytes"):
        KeyRing(keys)
    ring = KeyRing([OLD])
    with pytest.raises(ValueError, match="1 to 2 keys of 32 bytes"):
        ring.replace(keys)
    assert ring.tag(b"test") == KeyRing([OLD]).tag(b"test")


def test_a_ring_shows_fingerprints_and_no_key() -> None:
    """What is printed tells keys apart and holds none of their bytes."""
    ring = KeyRing([OLD, NEW])
    assert len(set(ring.fingerprints)) == 2
    assert ring.fingerprints[0] == KeyRing([OLD]).fingerprints[0]
    assert OLD.decode()[:4] not in repr(ring)
    assert OLD.hex()[:8] not in repr(ring)
