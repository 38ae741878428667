"""What a connection received, handed on as it came: h11 copies each byte of a body three times, httpcore once more.

h11 appends what comes to a buffer, looks at the front of it, cuts the front off, and httpcore makes bytes of that; for
a body in large parts that is most of the work of a download. Here a part that is body and nothing else passes through
as the object that was received. An h11 that hands on parts by itself would retire this module.

Laws: heads, chunk sizes and whatever else h11 reads in lines are its own work, on its own buffer; no byte is changed.
"""

from typing import Any, Self

import httpcore
from h11._receivebuffer import ReceiveBuffer


class Parts(ReceiveBuffer):
    """h11's buffer, with one part before it that has not been copied into it: never both have bytes."""

    def __init__(self, begun: bytes) -> None:
        """Begin with what is there already."""
        super().__init__()
        self._part = begun

    def __iadd__(self, byteslike: bytes | bytearray) -> Self:
        """Take in what came."""
        if self._part or self._data:
            self._settle()
            self._data += byteslike
        else:
            self._part = bytes(byteslike)  # no copy of what is bytes
        return self

    def __len__(self) -> int:
        """How much is there."""
        return len(self._part) or len(self._data)

    def __bytes__(self) -> bytes:
        """All of it."""
        return self._part or bytes(self._data)

    def maybe_extract_at_most(self, count: int) -> Any:
        """Return the next bytes of a body, None when there are none."""
        if self._part and len(self._part) <= count:
            part, self._part = self._part, b""
            return part
        self._settle()
        return super().maybe_extract_at_most(count)

    def maybe_extract_next_line(self) -> bytearray | None:
        """See h11."""
        self._settle()
        return super().maybe_extract_next_line()

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """See h11."""
        self._settle()
        return super().maybe_extract_lines()

    def is_next_line_obviously_invalid_request_line(self) -> bool:
        """See h11."""
        self._settle()
        return super().is_next_line_obviously_invalid_request_line()

    def _settle(self) -> None:
        """Leave it to h11's own buffer."""
        if self._part:
            self._data += self._part
            self._part = b""


def hand_on_parts(response: httpcore.Response) -> bool:
    """Let the connection of an answer over HTTP/1.1 hand on what it receives; say whether it does so now."""
    connection = getattr(response.stream, "_connection", None)
    state = getattr(connection, "_h11_state", None)
    begun = getattr(state, "_receive_buffer", None)
    if state is None or type(begun) is not ReceiveBuffer:
        return False
    state._receive_buffer = Parts(bytes(begun))  # noqa: SLF001  # there is no other way in
    return True
