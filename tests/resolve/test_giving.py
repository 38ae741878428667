"""Promises of giving.py: one peer at a time is given a whole blob, and the others are told whom to follow."""

from __future__ import annotations

import pytest

from p2pmirror.oci import Digest
from p2pmirror.peers.protocol import Follow
from p2pmirror.resolve.giving import Giving
from p2pmirror.wire.identity import NodeId

ONE, TWO = NodeId(b"1" * 20), NodeId(b"2" * 20)
DIGEST, OTHER = Digest.of(b"one"), Digest.of(b"two")


def test_a_second_peer_follows_the_first() -> None:
    """While one is given a blob another one is named it; when that has ended he is given it himself."""
    giving = Giving()
    end = giving.begin(DIGEST, ONE)
    with pytest.raises(Follow) as refused:
        giving.begin(DIGEST, TWO)
    assert refused.value.leader == ONE
    end()
    giving.begin(DIGEST, TWO)()
    giving.begin(DIGEST, ONE)()


def test_one_peer_may_have_several_responses() -> None:
    """He who has it may ask for parts of it at once: it is his until the last one has ended."""
    giving = Giving()
    first, second = giving.begin(DIGEST, ONE), giving.begin(DIGEST, ONE)
    first()
    with pytest.raises(Follow):
        giving.begin(DIGEST, TWO)
    second()
    giving.begin(DIGEST, TWO)()


def test_blobs_are_given_one_by_one() -> None:
    """Another blob may be given to somebody else at the same time."""
    giving = Giving()
    one, other = giving.begin(DIGEST, ONE), giving.begin(OTHER, TWO)
    one()
    other()
