"""Datagrams under the cluster's key: nobody without it can make one, or change one on its way.

Laws:
- the tag covers the whole datagram: version, kind of seal, binding and payload;
- what a tag covers is read only after the tag was found right;
- whether a binding is this node's own, and fresh, is for whoever has the clock (rpc).

Layout: version 1 | kind of seal 1 | boot id 8 | clock in ms 8 | tag 16 | payload; numbers big-endian. DESIGN.md,
section 4, "Membership and DHT", wire.
"""

import struct
from typing import Final

from p2pmirror.routing.dht.codec import VERSION, Unsealed
from p2pmirror.routing.dht.messages import Malformed
from p2pmirror.wire.binding import Binding
from p2pmirror.wire.keyring import TAG_BYTES, KeyRing

SEAL_KEYED: Final = 1

_DOMAIN: Final = b"p2pmirror-dgram"
_HEAD: Final = struct.Struct(">BB8sQ")
_PLAIN: Final = bytes((VERSION, SEAL_KEYED))
_TAGGED_BYTES: Final = _HEAD.size + TAG_BYTES


class KeyedSeal:
    """See `codec.Seal`: seals with the first key of `ring`, opens with any; follows the ring when its keys change."""

    overhead_bytes = _TAGGED_BYTES
    binds = True

    def __init__(self, ring: KeyRing) -> None:
        """Share `ring` with whoever replaces its keys."""
        self._ring = ring

    def seal(self, payload: bytes, binding: Binding) -> bytes:
        """Return the datagram; `binding` is its receiver's."""
        head = _HEAD.pack(VERSION, SEAL_KEYED, *binding)
        return head + self._ring.tag(_DOMAIN, head, payload) + payload

    def open(self, datagram: bytes) -> tuple[bytes, Binding]:
        """Return the payload and what it is bound to. Raises `Malformed`, and `Unsealed` without a right tag."""
        if datagram[:1] != _PLAIN[:1]:
            raise Malformed("another version")
        if len(datagram) < _TAGGED_BYTES or not datagram.startswith(_PLAIN):
            raise Unsealed("not sealed with a key, or cut short")
        head, payload = datagram[: _HEAD.size], datagram[_TAGGED_BYTES:]
        if not self._ring.verifies(datagram[_HEAD.size : _TAGGED_BYTES], _DOMAIN, head, payload):
            raise Unsealed("sealed with a key that this node does not have, or changed on its way")
        _, _, boot_id, clock_ms = _HEAD.unpack(head)
        return payload, Binding(boot_id, clock_ms)
