"""Promises of the keyed seal: what comes through was made by somebody with a key, for the receiver that it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.routing.dht.codec import DATAGRAM_BYTES_MAX
from p2pmirror.routing.dht.messages import Malformed
from p2pmirror.routing.dht.seal import KeyedSeal
from p2pmirror.wire.binding import UNBOUND, Binding
from p2pmirror.wire.keyring import KeyRing

OLD, NEW = b"o" * 32, b"n" * 32
BINDING = Binding(b"boot-id.", 123_456_789)
BINDINGS = st.builds(Binding, st.binary(min_size=8, max_size=8), st.integers(0, 2**64 - 1))


@given(st.binary(max_size=1200), BINDINGS)
def test_what_is_sealed_opens_as_it_was(payload: bytes, binding: Binding) -> None:
    """Payload and binding come back, and the datagram is as much longer as is said."""
    seal = KeyedSeal(KeyRing([OLD]))
    datagram = seal.seal(payload, binding)
    assert len(datagram) == len(payload) + seal.overhead_bytes
    assert KeyedSeal(KeyRing([OLD])).open(datagram) == (payload, binding)


def test_the_layout_is_the_documented_one() -> None:
    """Version 1, kind 1, boot id, clock, tag, payload: another program can read it."""
    ring = KeyRing([OLD])
    datagram = KeyedSeal(ring).seal(b"payload", BINDING)
    head = b"\x01\x01boot-id." + (123_456_789).to_bytes(8, "big")
    assert datagram == head + ring.tag(b"p2pmirror-dgram", head, b"payload") + b"payload"


@given(st.binary(max_size=200), BINDINGS, st.data())
def test_no_bit_can_be_changed(payload: bytes, binding: Binding, data: st.DataObject) -> None:
    """One bit changed anywhere, or the end cut off: not opened."""
    seal = KeyedSeal(KeyRing([OLD]))
    datagram = seal.seal(payload, binding)
    bit = data.draw(st.integers(0, 8 * len(datagram) - 1))
    changed = bytearray(datagram)
    changed[bit // 8] ^= 1 << bit % 8
    for wrong in (bytes(changed), datagram[: bit // 8], datagram + b"\0"):
        with pytest.raises(Malformed):
            seal.open(wrong)


@given(st.binary(max_size=DATAGRAM_BYTES_MAX + 10))
def test_whatever_comes_is_refused_in_one_way(datagram: bytes) -> None:
    """Any bytes, with the right first two or not, are `Malformed` and nothing else."""
    seal = KeyedSeal(KeyRing([OLD, NEW]))
    for each in (datagram, b"\x01\x01" + datagram):
        with pytest.raises(Malformed):
            seal.open(each)


def test_another_key_is_not_heard() -> None:
    """What was sealed with a key that this node does not have is refused."""
    with pytest.raises(Malformed, match="does not have"):
        KeyedSeal(KeyRing([NEW])).open(KeyedSeal(KeyRing([OLD])).seal(b"x", UNBOUND))


def test_a_seal_follows_its_ring() -> None:
    """A changed key counts for the next datagram, in and out, without a new seal."""
    ring = KeyRing([OLD])
    seal, late = KeyedSeal(ring), KeyedSeal(KeyRing([OLD]))
    ring.replace([NEW, OLD])
    assert seal.open(late.seal(b"x", BINDING)) == (b"x", BINDING)
    with pytest.raises(Malformed):
        late.open(seal.seal(b"x", BINDING))
