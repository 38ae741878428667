"""What a router knows: members, contacts and records agree."""

from random import Random

from p2pmirror.routing.dht.messages import COMPLETE, Entry, NodeInfo, Store, pack_address
from p2pmirror.routing.dht.view import View
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId


def test_who_came_by_and_moved_leaves_no_records_behind() -> None:
    """A node that was forgotten and is met at another address is not handed out where it was."""
    own = NodeInfo(b"o" * 20, b"b" * 8, 0, b"", pack_address(Address("10.0.0.1", 29999)), "")
    view = View(own, Random(1))
    old, new, node = Address("10.0.0.2", 29998), Address("10.0.0.3", 29998), NodeId(b"n" * 20)
    said = Store(b"1" * 8, pack_address(Address("10.0.0.2", 29999)), "", 600, (Entry(bytes(20), 1, COMPLETE),))
    assert view.keep(node, old, said, 0.0) == 1
    assert view.met(NodeInfo(node, b"1" * 8, 0, b"", said.registry, ""), old, 1.0)
    assert len(view.records) == 1, "where it was it is still"
    other = View(own, Random(1))
    assert other.keep(node, old, said, 0.0) == 1
    assert other.met(NodeInfo(node, b"2" * 8, 0, b"", said.registry, ""), new, 1.0)
    assert len(other.records) == 0
