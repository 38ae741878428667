"""Promises of the wire's format, read by a library that knows nothing of our messages."""

import msgpack

from p2pmirror.routing.dht.codec import decode, encode
from p2pmirror.routing.dht.messages import Contact, Contacts, FindNode, Noted, Reply, Request

ID, NODE, HOME = b"12345678", bytes(range(20)), b"\x0a\x00\x00\x01\x75\x2e"


def test_what_is_sent_is_plain_msgpack() -> None:
    """Any msgpack reader gets nested arrays of numbers and bytes; other programs can so be written against it."""
    reply = Reply(ID, NODE, Contacts((Contact(NODE, HOME),)))
    assert msgpack.unpackb(encode(reply)) == ["r", ID, NODE, [34, [[NODE, HOME]]], []]


def test_what_another_msgpack_writer_sends_is_understood() -> None:
    """The smallest form of each number and text is what any writer gives."""
    assert decode(msgpack.packb(["r", ID, NODE, [38]])) == Reply(ID, NODE, Noted())
    assert decode(msgpack.packb(["q", ID, NODE, b"", [3, NODE]])) == Request(ID, NODE, b"", FindNode(NODE))
