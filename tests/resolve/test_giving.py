"""Promises of giving.py: one peer at a time is given a whole blob, and the others are told whom to follow."""

from __future__ import annotations

import pytest

from p2pmirror.oci import Digest
from p2pmirror.peers.protocol import Follow
from p2pmirror.resolve.giving import Giving
from p2pmirror.wire.identity import NodeId
from tests.front.setting import FakeFile

ONE, TWO = NodeId(b"1" * 20), NodeId(b"2" * 20)
DIGEST, OTHER = Digest.of(b"one"), Digest.of(b"two")


async def test_a_second_peer_follows_the_first() -> None:
    """While one is given a blob another one is named it; when that has ended he is given it himself."""
    giving, file = Giving(), FakeFile(b"abc")
    given = giving.begin(DIGEST, ONE, file)
    assert (given.size, given.fileno(), await given.read_at(1, 2)) == (3, None, b"bc")
    with pytest.raises(Follow) as refused:
        giving.begin(DIGEST, TWO, FakeFile(b"abc"))
    assert refused.value.leader == ONE
    given.close()
    assert file.closed == 1
    giving.begin(DIGEST, TWO, FakeFile(b"abc")).close()
    giving.begin(DIGEST, ONE, FakeFile(b"abc")).close()


def test_one_peer_may_have_several_responses() -> None:
    """He who has it may ask for parts of it at once: it is his until the last one has ended, closed twice or once."""
    giving = Giving()
    first, second = giving.begin(DIGEST, ONE, FakeFile(b"")), giving.begin(DIGEST, ONE, FakeFile(b""))
    first.close()
    first.close()
    with pytest.raises(Follow):
        giving.begin(DIGEST, TWO, FakeFile(b""))
    second.close()
    giving.begin(DIGEST, TWO, FakeFile(b"")).close()


def test_blobs_are_given_one_by_one() -> None:
    """Another blob may be given to somebody else at the same time."""
    giving = Giving()
    one, other = giving.begin(DIGEST, ONE, FakeFile(b"")), giving.begin(OTHER, TWO, FakeFile(b""))
    one.close()
    other.close()
