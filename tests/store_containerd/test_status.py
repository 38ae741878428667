"""How a call ended, read from headers and trailers that a server may write as it likes."""

import pytest

from p2pmirror.store.containerd.framing import FramingError, Unframer, frame
from p2pmirror.store.containerd.status import (
    MESSAGE_CHARACTERS_MAX,
    Code,
    error_in_headers,
    error_in_trailers,
    error_of_reset,
    has_status,
)

GRPC = (b"content-type", b"application/grpc+proto")


@pytest.mark.parametrize(
    ("headers", "code", "says"),
    [
        ([(b":status", b"503"), GRPC], Code.UNAVAILABLE, "HTTP status 503"),
        ([(b":status", b"404")], Code.UNIMPLEMENTED, "HTTP status 404"),
        ([(b":status", b"299")], Code.UNKNOWN, "HTTP status 299"),
        ([GRPC], Code.UNKNOWN, "HTTP status missing"),
        ([(b":status", b"200"), (b"content-type", b"text/html\n")], Code.UNKNOWN, "content type 'text/html '"),
        ([(b":status", b"200")], Code.UNKNOWN, "content type ''"),
    ],
)
def test_what_is_no_grpc_response(headers: list[tuple[bytes, bytes]], code: Code, says: str) -> None:
    """A response of something else is an error that says of what."""
    error = error_in_headers(headers)
    assert error is not None
    assert (error.code, error.message.startswith(says)) == (code, True)


def test_a_grpc_response() -> None:
    """Status 200 with gRPC's content type is a response, which ends well with status 0."""
    assert error_in_headers([(b":status", b"200"), GRPC]) is None
    assert has_status([(b"grpc-status", b"0")])
    assert not has_status([GRPC])
    assert error_in_trailers([(b"grpc-status", b"0"), (b"grpc-message", b"x")]) is None


@pytest.mark.parametrize(
    ("trailers", "text"),
    [
        ([], "unknown: the response ended without a status"),
        ([(b"grpc-status", b"5"), (b"grpc-message", b"no%20such%0Aimage")], "not found: no such image"),
        ([(b"grpc-status", b"16")], "unauthenticated: "),
        ([(b"grpc-status", b"17")], "unknown: status '17': "),
        ([(b"grpc-status", b"05")], "unknown: status '05': "),
        ([(b"grpc-status", b"\xff")], "unknown: status '\N{REPLACEMENT CHARACTER}': "),
    ],
)
def test_trailers(trailers: list[tuple[bytes, bytes]], text: str) -> None:
    """Each status is its code with one line; what is none is unknown."""
    assert str(error_in_trailers(trailers)) == text


def test_a_message_is_short() -> None:
    """However long the server's message is, what goes into a log is bounded and says that it was cut."""
    error = error_in_trailers([(b"grpc-status", b"2"), (b"grpc-message", b"a" * 100_000)])
    assert error is not None
    assert len(error.message) == MESSAGE_CHARACTERS_MAX
    assert error.message.endswith("a…")


@pytest.mark.parametrize(("reset", "code"), [(0x7, Code.UNAVAILABLE), (0x8, Code.CANCELLED), (0x2, Code.INTERNAL)])
def test_resets(reset: int, code: Code) -> None:
    """A stream that was reset ends in an error that tells by which HTTP/2 code."""
    error = error_of_reset(reset)
    assert error.code is code
    assert f"({reset:#x})" in error.message


def test_a_message_that_has_begun() -> None:
    """Between two messages nothing is unfinished; within one something is, until it is whole or refused."""
    unframer = Unframer(10)
    assert list(unframer.feed(frame(b"one")[:4])) == []
    assert unframer.unfinished
    assert list(unframer.feed(frame(b"one")[4:] + frame(b"two"))) == [b"one", b"two"]
    assert not unframer.unfinished
    with pytest.raises(FramingError, match="11 bytes"):
        list(unframer.feed(frame(bytes(11))))
