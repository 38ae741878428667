"""How a call ended: gRPC's status codes, and reading them from what HTTP/2 brought.

Laws:
- every call that did not end well ends in one `RpcError`, with a code and one short line;
- headers are hostile: missing, doubled, undecodable or endless ones give an `RpcError`, never another exception.

Follows "Responses" and "Errors" of the gRPC over HTTP/2 protocol description.
"""

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from urllib.parse import unquote_to_bytes

MESSAGE_CHARACTERS_MAX = 500  # a status message ends in a log line; containerd's longest name a digest and an image


class Code(IntEnum):
    """The status codes that gRPC defines."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """A call was answered, and the answer is an error. `code` says which, `message` is the server's own line."""

    def __init__(self, code: Code, message: str) -> None:
        """Keep both; `str()` joins them."""
        super().__init__(f"{code.name.lower().replace('_', ' ')}: {message}")
        self.code = code
        self.message = message


# What a response without a gRPC status means by its HTTP status.
_CODE_OF_HTTP: Mapping[bytes, Code] = {
    b"400": Code.INTERNAL,
    b"401": Code.UNAUTHENTICATED,
    b"403": Code.PERMISSION_DENIED,
    b"404": Code.UNIMPLEMENTED,
    b"429": Code.UNAVAILABLE,
    b"502": Code.UNAVAILABLE,
    b"503": Code.UNAVAILABLE,
    b"504": Code.UNAVAILABLE,
}

# What a stream that was reset means by its HTTP/2 error code (RFC 9113, section 7).
_CODE_OF_RESET: Mapping[int, Code] = {
    0x7: Code.UNAVAILABLE,  # REFUSED_STREAM
    0x8: Code.CANCELLED,  # CANCEL
    0xB: Code.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: Code.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}


def error_in_headers(headers: Iterable[tuple[bytes, bytes]]) -> RpcError | None:
    """Return why the response that opens with these headers is not a gRPC response, or None when it is one."""
    found = dict(headers)
    status = found.get(b":status", b"")
    if status != b"200":
        code = _CODE_OF_HTTP.get(status, Code.UNKNOWN)
        return RpcError(code, f"HTTP status {printable(status) or 'missing'} instead of a gRPC response")
    content_type = found.get(b"content-type", b"")
    if not content_type.startswith(b"application/grpc"):
        return RpcError(Code.UNKNOWN, f"content type {printable(content_type)!r} instead of a gRPC response")
    return None


def has_status(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether these headers carry a gRPC status."""
    return any(name == b"grpc-status" for name, _ in headers)


def error_in_trailers(trailers: Iterable[tuple[bytes, bytes]]) -> RpcError | None:
    """Return the error that the trailers tell, or None for status OK."""
    found = dict(trailers)
    text = found.get(b"grpc-status")
    if text is None:
        return RpcError(Code.UNKNOWN, "the response ended without a status")
    if text == b"0":
        return None
    message = printable(unquote_to_bytes(found.get(b"grpc-message", b"")[: 3 * MESSAGE_CHARACTERS_MAX]))
    if not re.fullmatch(rb"[1-9][0-9]?", text) or int(text) > max(Code):
        return RpcError(Code.UNKNOWN, f"status {printable(text)!r}: {message}")
    return RpcError(Code(int(text)), message)


def error_of_reset(error_code: int) -> RpcError:
    """Return what a stream that the server reset with this HTTP/2 error code means."""
    return RpcError(_CODE_OF_RESET.get(error_code, Code.INTERNAL), f"the server reset the stream ({error_code:#x})")


def printable(text: bytes) -> str:
    """Return one short line that is safe to log."""
    line = "".join(c if c.isprintable() else " " for c in text.decode("utf-8", "replace"))
    return line if len(line) <= MESSAGE_CHARACTERS_MAX else line[: MESSAGE_CHARACTERS_MAX - 1] + "…"
