"""Lengths on the wire: gRPC's message framing (a flag, a length, the message), and HTTP/2's frames.

Laws:
- bytes may arrive in any portions; the same messages come out;
- what is kept is at most one unfinished message of `message_bytes_max` bytes beside what was fed last;
- nothing but `FramingError` is raised, whatever is fed.

Follows "Length-Prefixed-Message" of the gRPC over HTTP/2 protocol description, and RFC 9113, section 4.1.
"""

import struct
from collections.abc import Iterator

PREFIX = struct.Struct(">BI")
FRAME_HEADER_BYTES = 9


class FramingError(Exception):
    """The other end sent what is not a sequence of uncompressed messages of a bearable size."""


def frame(message: bytes) -> bytes:
    """Return `message` with its prefix, uncompressed."""
    return PREFIX.pack(0, len(message)) + message


class Unframer:
    """Cuts a stream of bytes into messages."""

    def __init__(self, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._buffer = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and has not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray) -> Iterator[bytes]:
        """Yield each message that `data` completes. Exhaust it before feeding again. Raises `FramingError`."""
        self._buffer += data
        start = 0
        try:
            while (end := self._message_end(start)) is not None:
                message = bytes(memoryview(self._buffer)[start + PREFIX.size : end])
                start = end
                yield message
        finally:
            del self._buffer[:start]

    def _message_end(self, start: int) -> int | None:
        """Return where the message at `start` ends, or None when it is not whole yet."""
        if len(self._buffer) - start < PREFIX.size:
            return None
        compressed, length = PREFIX.unpack_from(self._buffer, start)
        if compressed:
            raise FramingError("a compressed message, which was not asked for")
        if length > self._message_bytes_max:
            raise FramingError(f"a message of {length} bytes; at most {self._message_bytes_max} are taken")
        end = start + PREFIX.size + int(length)
        return end if end <= len(self._buffer) else None


class FrameLengths:
    """Refuses an HTTP/2 frame that is too long as soon as its length is known.

    h2 waits for the whole frame before it looks at its length: bytes that are not HTTP/2 would be kept, and the other
    end waited for, up to 16 MiB. Retired when h2 looks at the length first.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._header = bytearray()
        self._body_bytes = 0  # of the current frame, still to come

    def check(self, data: bytes | bytearray) -> None:
        """Follow the frames through `data`. Raises `FramingError`."""
        position = 0
        while position < len(data):
            if self._body_bytes:
                skipped = min(self._body_bytes, len(data) - position)
                self._body_bytes -= skipped
                position += skipped
                continue
            portion = data[position : position + FRAME_HEADER_BYTES - len(self._header)]
            self._header += portion
            position += len(portion)
            if len(self._header) == FRAME_HEADER_BYTES:
                self._begin_frame()

    def _begin_frame(self) -> None:
        length = int.from_bytes(self._header[:3])
        self._header.clear()
        if length > self._frame_bytes_max:
            raise FramingError(f"an HTTP/2 frame of {length} bytes; at most {self._frame_bytes_max} are taken")
        self._body_bytes = length
