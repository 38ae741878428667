"""What happened in a run, as one digest: two runs with the same digest delivered the same bytes at the same times.

Laws: everything that is delivered and everything that a scenario notes goes in, framed, with its time; nothing that two
processes may see differently does (no object's address, no order of a set, no real time).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import TextIO

from p2pmirror.wire.address import Address

DIGEST_BYTES = 16  # told apart, not defended: nobody forges a trace

_head = struct.Struct("<dI").pack  # virtual time, length of what follows the names


class Trace:
    """The running digest of a run, with counts of what was delivered: `counts[kind]` is (pieces, bytes)."""

    def __init__(self, now: Callable[[], float], lines: TextIO | None = None) -> None:
        """Write a line for each entry to `lines` too: two such files differ first where two runs did."""
        self._now = now
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self._lines = lines
        self._counts: dict[str, list[int]] = {}

    def observe(self, kind: str, now: float, source: Address, target: Address, data: bytes) -> None:
        """Take in a datagram, or a piece of a stream, that was handed over; see `MemoryWorld`."""
        size = len(data)
        names = f"{kind} {source.host} {source.port} {target.host} {target.port}\n".encode()
        self._hash.update(_head(now, size) + names + data)
        count = self._counts.get(kind)
        if count is None:
            count = self._counts[kind] = [0, 0]
        count[0] += 1
        count[1] += size
        if self._lines is not None:
            content = blake2b(data, digest_size=8).hexdigest()
            self._lines.write(f"{now:.9f} {kind} {source} {target} {size} {content}\n")

    def note(self, text: str) -> None:
        """Take in what a scenario did or saw."""
        line = text.encode()
        self._hash.update(_head(self._now(), len(line)) + b"note\n" + line)
        if self._lines is not None:
            self._lines.write(f"{self._now():.9f} note {text}\n")

    def pieces(self, kind: str) -> int:
        """Return how many datagrams, or pieces of streams, were handed over."""
        return self._counts.get(kind, [0, 0])[0]

    def bytes(self, kind: str) -> int:
        """Return how many bytes were in them."""
        return self._counts.get(kind, [0, 0])[1]

    @property
    def digest(self) -> str:
        """Everything so far, in hexadecimal."""
        return self._hash.hexdigest()
