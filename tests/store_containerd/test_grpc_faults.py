"""The gRPC client against a server that is broken or hostile."""

import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import h2.errors
import h2.settings
import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from google.protobuf.empty_pb2 import Empty
from hypothesis import given, settings

from p2pmirror.errors import Unreachable
from p2pmirror.store.containerd.api.containerd_pb2 import ReadContentResponse, VersionResponse
from p2pmirror.store.containerd.call import MESSAGE_BYTES_MAX
from p2pmirror.store.containerd.connection import CALL_WINDOW_BYTES
from p2pmirror.store.containerd.framing import frame
from p2pmirror.store.containerd.grpc import Channel, Code, RpcError, open_channel
from tests.store_containerd.fake_server import HEADERS, FakeServer

PATH = "/test.Service/Call"
GOOD = VersionResponse(version="1.2.3")
BODY = frame(GOOD.SerializeToString())


@asynccontextmanager
async def serving(
    serve: Callable[[FakeServer], Awaitable[None]], **options
) -> AsyncIterator[tuple[Channel, list[FakeServer]]]:
    """Give a channel whose every dial meets a new `serve`."""
    servers: list[FakeServer] = []
    async with trio.open_nursery() as nursery:

        async def dial() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            server = FakeServer(theirs, **options)
            servers.append(server)
            nursery.start_soon(serve, server)
            return ours

        async with open_channel(dial, [("containerd-namespace", "k8s.io")]) as channel:
            yield channel, servers
        nursery.cancel_scope.cancel()


async def call(channel: Channel) -> VersionResponse:
    return await channel.unary(PATH, Empty(), VersionResponse)


async def test_a_call_and_its_answer(autojump_clock):
    """A unary call carries path, namespace and gRPC's headers, and returns the message."""

    async def serve(server: FakeServer) -> None:
        await server.answer(await server.request(), BODY)
        await server.idle()

    async with serving(serve) as (channel, servers):
        assert (await call(channel)).version == "1.2.3"
        headers = servers[0].headers[1]
        assert headers[b":path"] == PATH.encode()
        assert headers[b"containerd-namespace"] == b"k8s.io"
        assert headers[b"te"] == b"trailers"


async def test_an_answer_byte_by_byte(autojump_clock):
    """However the bytes are cut, the same message comes out."""

    async def serve(server: FakeServer) -> None:
        stream_id = await server.request()
        server.h2.send_headers(stream_id, HEADERS)
        for index in range(len(BODY)):
            server.h2.send_data(stream_id, BODY[index : index + 1], pad_length=3)
        server.h2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)
        for byte in server.h2.data_to_send():
            await server.stream.send_all(bytes([byte]))
        await server.idle()

    async with serving(serve) as (channel, _):
        assert (await call(channel)).version == "1.2.3"


@pytest.mark.parametrize(
    ("body", "trailers", "code"),
    [
        (b"", [("grpc-status", "5"), ("grpc-message", "image%20%22x%22: not found")], Code.NOT_FOUND),
        (BODY, [("grpc-status", "14"), ("grpc-message", "going")], Code.UNAVAILABLE),
        (b"", [("grpc-status", "0")], Code.INTERNAL),  # no message
        (BODY + BODY, [("grpc-status", "0")], Code.INTERNAL),  # two
        (BODY[:-1], [("grpc-status", "0")], Code.INTERNAL),  # not whole
        (b"\x01" + BODY[1:], [("grpc-status", "0")], Code.INTERNAL),  # compressed
        (struct.pack(">BI", 0, MESSAGE_BYTES_MAX + 1), [("grpc-status", "0")], Code.INTERNAL),  # too large
        (frame(b"\xff\xff\xff"), [("grpc-status", "0")], Code.INTERNAL),  # no protobuf
        (BODY, [("x", "y")], Code.UNKNOWN),  # no status
        (BODY, [("grpc-status", "999")], Code.UNKNOWN),
        (BODY, [("grpc-status", "\u0661")], Code.UNKNOWN),  # a digit, to some
        (BODY, [("grpc-status", "2"), ("grpc-message", "%ff%00" * 9000)], Code.UNKNOWN),
    ],
)
async def test_a_bad_end_is_one_error(autojump_clock, body, trailers, code):
    """Whatever is wrong with one response, it is an RpcError with a short message; the connection serves on."""

    async def serve(server: FakeServer) -> None:
        stream_id = await server.request()
        server.h2.send_headers(stream_id, HEADERS)
        server.h2.send_data(stream_id, body)
        server.h2.send_headers(stream_id, trailers, end_stream=True)
        await server.flush()
        await server.answer(await server.request(1), BODY)
        await server.idle()

    async with serving(serve) as (channel, servers):
        with pytest.raises(RpcError) as caught:
            await call(channel)
        assert caught.value.code is code
        assert len(str(caught.value)) < 600
        assert str(caught.value).isprintable()
        assert (await call(channel)).version == "1.2.3"
        assert len(servers) == 1


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")], Code.NOT_FOUND),
        ([(":status", "503")], Code.UNAVAILABLE),
        ([(":status", "404")], Code.UNIMPLEMENTED),
        ([(":status", "200"), ("content-type", "text/html")], Code.UNKNOWN),
    ],
)
@pytest.mark.parametrize("ends", [True, False])
async def test_headers_that_end_a_call(autojump_clock, headers, code, ends):
    """A status in the first headers (trailers-only), or no gRPC at all, ends the call even when the stream goes on."""

    async def serve(server: FakeServer) -> None:
        stream_id = await server.request()
        server.h2.send_headers(stream_id, headers, end_stream=ends)
        if not ends:
            await server.flush()
            await server.until(lambda: server.resets == [stream_id])
        await server.answer(await server.request(1), BODY)
        await server.idle()

    async with serving(serve) as (channel, servers):
        with pytest.raises(RpcError) as caught:
            await call(channel)
        assert caught.value.code is code
        assert (await call(channel)).version == "1.2.3"
        assert len(servers) == 1


async def test_a_reset_stream_is_an_error_of_that_call(autojump_clock):
    """A stream that the server resets is an RpcError; the next call uses the same connection."""

    async def serve(server: FakeServer) -> None:
        server.h2.reset_stream(await server.request(), h2.errors.ErrorCodes.REFUSED_STREAM)
        await server.answer(await server.request(1), BODY)
        await server.idle()

    async with serving(serve) as (channel, servers):
        with pytest.raises(RpcError) as caught:
            await call(channel)
        assert caught.value.code is Code.UNAVAILABLE
        await call(channel)
        assert len(servers) == 1


async def read_all(answers: AsyncIterator[object]) -> None:
    async for _ in answers:
        pass


async def end_of_file(server: FakeServer) -> None:
    await server.request(1)
    await server.stream.aclose()


async def goaway(server: FakeServer) -> None:
    await server.request(1)
    server.h2.close_connection()
    await server.flush()
    await trio.sleep_forever()


async def garbage(server: FakeServer) -> None:
    await server.request(1)
    await server.stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
    await trio.sleep_forever()


async def too_large_frame(server: FakeServer) -> None:
    await server.request(1)
    await server.stream.send_all(b"\xff\xff\xff\x00\x00" + struct.pack(">I", 1) + bytes(100))
    await trio.sleep_forever()


async def control_character_in_a_name(server: FakeServer) -> None:
    stream_id = await server.request(1)
    block = b"\x88" + b"\x00\x01\x00\x01x"  # :status 200, then a field whose name is a NUL
    await server.stream.send_all(struct.pack(">I", len(block))[1:] + b"\x01\x04" + struct.pack(">I", stream_id) + block)
    await trio.sleep_forever()


async def more_than_the_window(server: FakeServer) -> None:
    stream_id = await server.request(1)
    server.h2.send_headers(stream_id, HEADERS)
    await server.flush()
    data = struct.pack(">I", 16384)[1:] + b"\x00\x00" + struct.pack(">I", stream_id) + bytes(16384)
    with suppress(trio.BrokenResourceError):
        for _ in range(CALL_WINDOW_BYTES // 16384 * 8):
            await server.stream.send_all(data)
    await trio.sleep_forever()


@pytest.mark.parametrize(
    "serve", [end_of_file, goaway, garbage, too_large_frame, control_character_in_a_name, more_than_the_window]
)
async def test_a_lost_connection_fails_every_waiter(autojump_clock, serve):
    """However the connection is lost, every call on it ends in Unreachable, in one line; the next call dials anew."""
    good = False

    async def either(server: FakeServer) -> None:
        if good:
            await server.answer(await server.request(), BODY)
        else:
            await serve(server)

    async with serving(either) as (channel, servers):
        failures = []

        async def waiter() -> None:
            async with channel.stream(PATH, Empty(), VersionResponse) as answers:
                await trio.sleep(5)  # a reader that is slow to read
                with pytest.raises(Unreachable) as caught:
                    await read_all(answers)
            failures.append(caught.value)

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(waiter)
        assert [str(each).isprintable() for each in failures] == [True, True]
        good = True
        assert (await call(channel)).version == "1.2.3"
        assert len(servers) == 2


async def test_nobody_to_dial_is_unreachable():
    """A socket that cannot be dialled is Unreachable, with the reason."""

    async def dial() -> trio.abc.Stream:
        raise FileNotFoundError("no such socket")

    async with open_channel(dial) as channel:
        with pytest.raises(Unreachable, match="no such socket"):
            await call(channel)


async def test_a_cancelled_call_is_reset_and_disturbs_nobody(autojump_clock):
    """A call whose deadline passes is reset at the server; late frames for it are dropped; the next call works."""

    async def serve(server: FakeServer) -> None:
        stream_id = await server.request()
        server.h2.send_headers(stream_id, HEADERS)
        server.h2.send_data(stream_id, bytes(100))
        late = server.h2.data_to_send()
        await server.until(lambda: server.resets == [stream_id])
        await server.stream.send_all(late)
        await server.answer(await server.request(1), BODY)
        await server.idle()

    async with serving(serve) as (channel, servers):
        with trio.move_on_after(1) as scope:
            await call(channel)
        assert scope.cancelled_caught
        assert (await call(channel)).version == "1.2.3"
        assert len(servers) == 1


async def test_a_slow_reader_holds_up_nobody(autojump_clock):
    """A stream that nobody reads stops at its own window; calls beside it go on; then all of it is read."""
    portion = ReadContentResponse(data=bytes(300_000))
    body = frame(portion.SerializeToString()) * 40  # 12 MB: more than the call's and the connection's window

    async def serve(server: FakeServer) -> None:
        first = await server.request()
        server.h2.send_headers(first, HEADERS)
        sent = 0
        while sent < len(body):
            room = min(server.h2.local_flow_control_window(first), 16384, len(body) - sent)
            if room:
                server.h2.send_data(first, body[sent : sent + room])
                sent += room
                await server.flush()
            elif len(server.requests) == 2 and server.requests[3] and answered == []:
                answered.append(sent)
                await server.answer(3, BODY)
            else:
                await server.read()
        server.h2.send_headers(first, [("grpc-status", "0")], end_stream=True)
        await server.flush()
        await server.idle()

    answered: list[int] = []
    async with serving(serve) as (channel, _), channel.stream(PATH, Empty(), ReadContentResponse) as portions:
        assert (await call(channel)).version == "1.2.3"
        assert answered[0] <= CALL_WINDOW_BYTES
        assert sum([len(p.data) async for p in portions]) == 40 * 300_000


async def test_pings_and_settings_are_answered(autojump_clock):
    """The client acknowledges pings and settings, and obeys a limit on streams."""
    seen = []

    async def serve(server: FakeServer) -> None:
        first = await server.request()
        server.h2.ping(b"12345678")
        await server.flush()
        await trio.sleep(1)
        await server.read()
        seen.append(sorted(server.requests))
        await server.answer(first, BODY)
        await server.answer(await server.request(1), BODY)
        await server.idle()

    limit = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1}
    async with serving(serve, settings=limit) as (channel, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel)
            await trio.sleep(0.1)
            nursery.start_soon(call, channel)
        assert seen == [[1]]


async def test_a_request_waits_for_room(autojump_clock):
    """A request larger than the server's window is sent whole as the server gives room."""
    large = VersionResponse(version="v" * 200_000)

    async def serve(server: FakeServer) -> None:
        whole = len(large.SerializeToString()) + 5
        await server.until(lambda: len(server.requests.get(1, b"")) == whole)
        await server.answer(1, BODY)
        await server.idle()

    async with serving(serve) as (channel, _):
        assert (await channel.unary(PATH, large, VersionResponse)).version == "1.2.3"
        with pytest.raises(ValueError, match="request of"):
            await channel.unary(PATH, VersionResponse(version="v" * 2_000_000), VersionResponse)


async def test_a_server_that_floods_and_never_reads_is_dropped(autojump_clock):
    """Pings without end to a client whose answers nobody reads: memory stays small, and the call fails."""
    ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8)

    class Deaf(trio.abc.Stream):
        """Floods; takes nothing."""

        async def send_all(self, data) -> None:
            await trio.sleep_forever()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.sleep_forever()

        async def receive_some(self, max_bytes=None) -> bytes:
            await trio.lowlevel.checkpoint()
            return settings_frame if self.first() else ping * 4000

        def first(self) -> bool:
            self.calls += 1
            return self.calls == 1

        calls = 0

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    settings_frame = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"

    async def dial() -> trio.abc.Stream:
        return Deaf()

    tracemalloc.start()
    try:
        async with open_channel(dial) as channel:
            with trio.fail_after(120), pytest.raises(Unreachable, match="taken nothing"):
                await call(channel)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.booleans(), st.integers(0, 60))
def test_no_bytes_give_any_other_error(data: bytes, whole: bool, at: int) -> None:
    """Whatever bytes come after (or in the middle of) a good beginning, a call ends in one of its two errors."""

    async def serve(server: FakeServer) -> None:
        stream_id = await server.request()
        server.h2.send_headers(stream_id, HEADERS)
        server.h2.send_data(stream_id, BODY)
        good = server.h2.data_to_send()
        await server.stream.send_all(good if whole else good[:at])
        await server.stream.send_all(data)
        await server.stream.aclose()

    async def main() -> None:
        async with serving(serve) as (channel, _):
            with pytest.raises((Unreachable, RpcError)), trio.fail_after(60):
                await call(channel)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
