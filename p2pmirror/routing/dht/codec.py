"""How messages become datagrams of at most 1,200 bytes, and datagrams messages.

Laws:
- what is decoded is valid throughout (see `messages`); the rest is `Malformed`;
- what is encoded fits: lists are cut from their end until it does, and whoever asks asks again for the rest.

Layout: version byte | kind-of-seal byte | what the seal adds | msgpack array. The seal's bytes stand in front, so that
a keyed tag over all that follows can be checked before anything is parsed. DESIGN.md section 4, "Membership and DHT".
"""

from dataclasses import dataclass
from typing import Protocol

import msgspec

from p2pmirror.routing.dht.messages import (
    ENTRIES_MAX,
    AnyAnswer,
    Contacts,
    Entry,
    Granted,
    Malformed,
    Members,
    Message,
    Providers,
    Reply,
    Request,
    Store,
)
from p2pmirror.wire.binding import UNBOUND, Binding

VERSION = 1
DATAGRAM_BYTES_MAX = 1200  # fits every path's MTU (IPv6 guarantees 1,280) with room for tunnels' headers
SEAL_NONE = 0


class Unsealed(Malformed):
    """Not sealed with a key of this cluster."""


class Seal(Protocol):
    """Protects payloads; `overhead_bytes` is how much longer a datagram is than its payload."""

    overhead_bytes: int
    binds: bool  # whether a datagram tells the binding that it was sealed with

    def seal(self, payload: bytes, binding: Binding) -> bytes:
        """Return the datagram, for the life of a receiver that the binding names."""
        ...

    def open(self, datagram: bytes) -> tuple[bytes, Binding]:
        """Return the payload and its binding, `UNBOUND` when this seal binds nothing. Raises `Malformed`."""
        ...


class NullSeal:
    """Protects nothing: a cluster without a key."""

    overhead_bytes = 2
    binds = False

    def seal(self, payload: bytes, binding: Binding) -> bytes:  # noqa: ARG002 - a keyed seal binds the receiver
        """Return the datagram: version, no seal, payload."""
        return _PLAIN + payload

    def open(self, datagram: bytes) -> tuple[bytes, Binding]:
        """Return the payload. Raises `Malformed` for another version, `Unsealed` for a sealed datagram."""
        if datagram.startswith(_PLAIN):
            return datagram[len(_PLAIN) :], UNBOUND
        if datagram[:1] == _PLAIN[:1]:
            raise Unsealed("sealed with a key, which this node does not have")
        raise Malformed("another version")


_PLAIN = bytes((VERSION, SEAL_NONE))
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the payload, however long."""
    return _encoder.encode(message)


def decode(payload: bytes) -> Message:
    """Read a payload. Raises `Malformed` for everything that no honest node sends."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error)[:200]) from None


@dataclass(frozen=True, slots=True)
class Fitter:
    """Encodes messages so that they fit; `payload_bytes_max` is what the seal leaves of a datagram."""

    payload_bytes_max: int

    def encode(self, message: Message) -> bytes:
        """Return a payload that fits, without news and the tails of lists if need be; ValueError when nothing helps."""
        payload = encode(message)
        if len(payload) <= self.payload_bytes_max:
            return payload
        if message.news:
            return self.encode(msgspec.structs.replace(message, news=message.news[:-1]))
        if isinstance(message, Reply):
            shorter = _shorter(message.answer)
            if shorter is not None:
                return self.encode(msgspec.structs.replace(message, answer=shorter))
        raise ValueError(f"a message of {len(payload)} bytes")

    def batches(self, store: Store, request: Request) -> list[Store]:
        """Cut the entries of a `Store` into batches of which each fits as the question of `request`."""
        frame = len(encode(msgspec.structs.replace(request, question=msgspec.structs.replace(store, entries=()))))
        room = self.payload_bytes_max - frame - 2  # the array's own length takes up to 3 bytes instead of 1
        batches: list[list[Entry]] = [[]]
        left = room
        for entry in store.entries:
            size = len(_encoder.encode(entry))
            if size > left or len(batches[-1]) == ENTRIES_MAX:
                batches.append([])
                left = room
            batches[-1].append(entry)
            left -= size
        return [msgspec.structs.replace(store, entries=tuple(batch)) for batch in batches if batch]


CLOSER_KEPT_MIN = 8  # contacts that stay in an answer full of records, so that the lookup can go on


def _shorter(answer: AnyAnswer) -> AnyAnswer | None:
    """Return the answer without the end of its longest list, or None when there is nothing to leave out."""
    if isinstance(answer, Providers):
        if len(answer.closer) > CLOSER_KEPT_MIN:
            return msgspec.structs.replace(answer, closer=answer.closer[:-1])
        if answer.found:
            return msgspec.structs.replace(answer, found=answer.found[:-1])
    if isinstance(answer, Granted) and answer.found:
        return msgspec.structs.replace(answer, found=answer.found[:-1])
    if isinstance(answer, Contacts) and answer.closer:
        return msgspec.structs.replace(answer, closer=answer.closer[:-1])
    if isinstance(answer, Members) and answer.infos:
        return msgspec.structs.replace(answer, last=False, infos=answer.infos[:-1])
    return None
