"""How a question shows that it comes from a member."""

import pytest

from p2pmirror.errors import Unreachable
from p2pmirror.peers.signing import Signed, Unsigned
from p2pmirror.wire.binding import UNBOUND, Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.keyring import KeyRing
from p2pmirror.wire.peer_auth import AUTH_HEADER, Asked, check

RING = KeyRing([bytes(32)])
PEER = NodeId(b"p" * 20)
ASKED = Asked("GET", "/v2/", "bytes=0-", NodeId(b"o" * 20))
BINDING = Binding(b"bootboot", 1_000)


def test_without_a_key_nothing_is_shown() -> None:
    """A cluster without a key adds no field to its questions."""
    assert Unsigned().fields(PEER, ASKED) == {}


def test_with_a_key_the_peer_can_check() -> None:
    """The field that is added is the proof which the peer whose binding it is accepts."""
    fields = Signed(RING, {PEER: BINDING}.__getitem__).fields(PEER, ASKED)
    assert set(fields) == {AUTH_HEADER}
    check(RING, ASKED, fields[AUTH_HEADER], BINDING)


def test_who_has_not_told_its_binding_is_not_asked() -> None:
    """A node that never answered a ping would refuse the question: it is out of reach, and named."""
    with pytest.raises(Unreachable, match=PEER.hex()[:8]):
        Signed(RING, lambda _: UNBOUND).fields(PEER, ASKED)
