"""Promises of the buffer that hands on what was received: h11's own words, without its copies."""

from __future__ import annotations

import h11
from h11._receivebuffer import ReceiveBuffer
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.upstream.client import RegistriesUpstream
from p2pmirror.upstream.whole import Parts
from tests.registries.docker import DockerRegistry
from tests.registries.holdings import Holdings
from tests.upstream.conformance import REGISTRY, read
from tests.upstream.setting import client

_BODY = bytes(range(256)) * 3
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 768\r\n\r\n" + _BODY,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n"
    + _BODY[:256]
    + b"\r\n200\r\n"
    + _BODY[256:]
    + b"\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + _BODY,
    b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nabc" + _BODY[:5],
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
)


def _told(buffer: ReceiveBuffer, pieces: list[bytes]) -> tuple[list[bytes], bytes, bool, bytes]:
    """Return the names of the events, the body, whether it went wrong, and what is left, of an answer in pieces."""
    state = h11.Connection(our_role=h11.CLIENT)
    state._receive_buffer = buffer
    state.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    state.send(h11.EndOfMessage())
    names, body = [], b""
    try:
        for piece in [*pieces, b""]:
            state.receive_data(piece)
            while True:
                event = state.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                if isinstance(event, h11.Data):
                    body += bytes(event.data)
                    continue
                names.append(type(event).__name__.encode())
                if isinstance(event, h11.ConnectionClosed):
                    return names, body, False, state.trailing_data[0]
    except h11.RemoteProtocolError:
        return names, body, True, bytes(state._receive_buffer)
    return names, body, False, state.trailing_data[0]


@given(st.sampled_from(_ANSWERS), st.lists(st.integers(1, 400), max_size=12))
def test_an_answer_is_read_as_h11_reads_it(answer: bytes, cuts: list[int]) -> None:
    """However an answer is cut in pieces, events, body, errors and what is left over are those of h11's own buffer."""
    pieces, rest = [], answer
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    pieces = [piece for piece in [*pieces, rest] if piece]
    assert _told(Parts(b""), pieces) == _told(ReceiveBuffer(), pieces)


def test_a_part_that_is_body_alone_is_not_copied() -> None:
    """What was received comes out as the same object when all of it is wanted, and as a piece of it when not."""
    buffer, part = Parts(b""), b"x" * 1000
    buffer += part
    assert len(buffer) == 1000
    assert buffer.maybe_extract_at_most(1000) is part
    assert not buffer
    buffer += part
    assert buffer.maybe_extract_at_most(10) == b"x" * 10
    assert bytes(buffer) == b"x" * 990


async def test_downloads_pass_through_it(docker_registry: DockerRegistry, holdings: Holdings) -> None:
    """A connection that has answered once hands on parts: a newer h11 or httpcore that hides its buffer is noticed."""
    async with client(docker_registry.url) as made:
        async with made.upstream.blob(REGISTRY, holdings.repository, holdings.layer_digest) as download:
            assert await read(download) == holdings.layer
        assert _buffers(made.client) == [Parts]


def _buffers(upstream: RegistriesUpstream) -> list[type]:
    return [
        type(kept._inner._connection._h11_state._receive_buffer)  # type: ignore[attr-defined]
        for transport in upstream._transports
        for pool in transport._pools.values()
        for kept in pool.connections
    ]
