"""What every network promises, checked against the sockets of this host and against the simulated world."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import File, Listener, Network, Stream
from tests.cancellation import cancel_at_every_checkpoint
from tests.wire.datagrams import inbox

BIG = 16 << 20  # 16 MiB: more than any socket buffer here grows to


@dataclass
class Setup:
    server: Network
    client: Network
    host: str  # of the server
    open_things: Callable[[], int]  # counts sockets and files, or streams of the world


class DiskFile:
    """A file on disk."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._fd).st_size

    def fileno(self) -> int | None:
        return self._fd

    async def read_at(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return os.pread(self._fd, count, offset)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class BytesFile:
    """A file without a descriptor; `size` may promise more than there is."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def fileno(self) -> int | None:
        return None

    async def read_at(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._content[offset : offset + count]

    def close(self) -> None:
        pass


@cache
def some_bytes(count: int) -> bytes:
    """Bytes of which no two pages are alike, the same every time."""
    pattern = b"".join(number.to_bytes(8, "big") for number in range(count // 8 + 1))
    return pattern[:count]


async def receive_all(stream: Stream, *, pause_s: float = 0.0) -> bytes:
    parts = []
    while part := await stream.receive_some(1 << 20):
        parts.append(part)
        if pause_s:
            await trio.sleep(pause_s)
    return b"".join(parts)


@asynccontextmanager
async def connection(setup: Setup) -> AsyncIterator[tuple[Stream, Stream]]:
    """Give a connected pair, the client's end and the server's; both are closed at once in the end."""
    async with AsyncExitStack() as opened:
        listener = await setup.server.listen(Address.of(setup.host, 0))
        opened.push_async_callback(close_at_once, listener)
        client = await setup.client.connect(listener.address)
        opened.push_async_callback(close_at_once, client)
        server = await listener.accept()
        opened.push_async_callback(close_at_once, server)
        yield client, server


async def send_without_end(stream: Stream) -> None:
    while True:
        await stream.send_all(some_bytes(100_000))


async def close_at_once(thing: Stream | Listener) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await thing.aclose()


class Conformance:
    """Subclasses give the fixture `setup`."""

    @pytest.fixture(params=["disk", "bytes"])
    def make_file(self, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], File]:
        def make(content: bytes) -> File:
            if request.param == "bytes":
                return BytesFile(content)
            path = tmp_path / "content"
            path.write_bytes(content)
            file = DiskFile(path)
            request.addfinalizer(file.close)
            return file

        return make

    async def test_order(self, setup: Setup) -> None:
        """Bytes arrive once and in order, however they were cut when they were sent and received."""
        content = some_bytes(300_001)
        async with connection(setup) as (client, server), trio.open_nursery() as nursery:

            async def send() -> None:
                for start in range(0, len(content), 7_777):
                    await client.send_all(memoryview(content)[start : start + 7_777])
                await client.send_eof()

            nursery.start_soon(send)
            got = bytearray()
            buffer = bytearray(1_000)
            while count := await server.receive_into(memoryview(buffer)):
                got += buffer[:count]
            assert got == content

    @pytest.mark.parametrize("gathers_some", [False, True], ids=["into", "some"])
    async def test_gathered_bytes(self, setup: Setup, *, gathers_some: bool) -> None:
        """Whoever lets bytes gather gets each once and in order, few of them too, and FIN; the next receive waits not.

        With a limit of ten minutes: what is enough, and what is the last before FIN, comes at once.
        """
        content = some_bytes(3_000_001)

        async def take(count_max: int, gather_s: float) -> bytes:
            if gathers_some:
                return await server.receive_some(count_max, gather_s)
            buffer = bytearray(count_max)
            return bytes(buffer[: await server.receive_into(memoryview(buffer), gather_s)])

        async with connection(setup) as (client, server), trio.open_nursery() as nursery:
            await client.send_all(b"few")
            assert await take(1 << 20, 0.05) == b"few"

            async def send() -> None:
                for start in range(0, len(content), 70_000):
                    await client.send_all(memoryview(content)[start : start + 70_000])
                await client.send_eof()

            nursery.start_soon(send)
            got = b""
            while part := await take(1 << 20, 600.0):
                got += part
            assert got == content
            await server.send_all(b"late")
            assert await client.receive_some(10) == b"late"

    async def test_a_short_receive_after_a_gathered_one(self, setup: Setup) -> None:
        """Bytes of which fewer come than gathered before are received as soon as they are there."""
        async with connection(setup) as (client, server):
            await client.send_all(bytes(1000))
            await trio.sleep(0.05)
            assert await server.receive_into(memoryview(bytearray(600)), 600.0) > 0
            left = 1000 - 600
            while left:
                left -= await server.receive_into(memoryview(bytearray(left)), 0.01)
            await client.send_all(b"x")
            assert await server.receive_some(10) == b"x"
            await client.send_all(b"y")
            assert await server.receive_into(memoryview(bytearray(10))) == 1

    async def test_addresses(self, setup: Setup) -> None:
        """Each end's remote address is the other's local one."""
        async with connection(setup) as (client, server):
            assert client.remote == server.local
            assert server.remote == client.local
            assert client.remote.host == setup.host

    async def test_half_close(self, setup: Setup) -> None:
        """After FIN in one direction the other one goes on."""
        async with connection(setup) as (client, server):
            await client.send_all(b"question")
            await client.send_eof()
            assert await receive_all(server) == b"question"
            await server.send_all(b"answer")
            await server.aclose()
            assert await receive_all(client) == b"answer"
            with pytest.raises(Unreachable):
                await client.send_all(b"more")

    async def test_unread_bytes_at_close(self, setup: Setup) -> None:
        """Closing with unread bytes in hand says FIN after what was sent, not a reset."""
        content = some_bytes(3_000_000)
        async with connection(setup) as (client, server):
            await client.send_all(b"never read" * 1_000)
            await trio.sleep(0.02)

            async def answer_and_leave() -> None:
                await server.send_all(content)
                await server.aclose()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_and_leave)
                got = await receive_all(client, pause_s=0.005)
                assert got == content
                await client.aclose()

    async def test_refused(self, setup: Setup) -> None:
        """A dial to a port where nobody listens is Unreachable at once."""
        listener = await setup.server.listen(Address.of(setup.host, 0))
        await listener.aclose()
        with trio.fail_after(5), pytest.raises(Unreachable, match="refused"):
            await setup.client.connect(listener.address)

    async def test_sending_to_a_closed_end(self, setup: Setup) -> None:
        """Who goes on sending to an end that has closed is told Unreachable, and so is a sender that was waiting."""
        async with connection(setup) as (client, server), trio.open_nursery() as nursery:
            with trio.fail_after(10):
                nursery.start_soon(server.aclose)
                with pytest.raises(Unreachable):
                    await send_without_end(client)

    async def test_used_port(self, setup: Setup) -> None:
        """Listening on, or binding, a port that is in use is an OSError."""
        listener = await setup.server.listen(Address.of(setup.host, 0))
        port = await setup.server.open_datagrams(Address.of(setup.host, 0))
        with pytest.raises(OSError, match="in use"):
            await setup.server.listen(listener.address)
        with pytest.raises(OSError, match="in use"):
            await setup.server.open_datagrams(port.address)
        await listener.aclose()
        await port.aclose()
        again = await setup.server.listen(listener.address)
        await again.aclose()

    async def test_datagrams(self, setup: Setup) -> None:
        """Datagrams go both ways, whole, empty ones too, with the right source."""
        one = await setup.client.open_datagrams(Address.of(await setup.client.source_host(Address(setup.host, 9)), 0))
        other = await setup.server.open_datagrams(Address.of(setup.host, 0))
        async with inbox(one) as ours, inbox(other) as theirs:
            for data in (b"ping", b"", some_bytes(1_200), some_bytes(20_000)):
                one.send(data, other.address)
                with trio.fail_after(5):
                    assert await theirs.receive() == (data, one.address)
                other.send(data, one.address)
                with trio.fail_after(5):
                    assert await ours.receive() == (data, other.address)
        await one.aclose()
        await other.aclose()

    async def test_what_takes_a_datagram_may_fail(self, setup: Setup) -> None:
        """An error in what takes datagrams in comes out of `deliver`, which can be called again; none is lost."""
        one = await setup.client.open_datagrams(Address.of(await setup.client.source_host(Address(setup.host, 9)), 0))
        other = await setup.server.open_datagrams(Address.of(setup.host, 0))
        one.send(b"first", other.address)

        def fail(data: bytes, source: Address) -> None:
            raise ValueError(data)

        with trio.fail_after(5), pytest.raises(ValueError, match="first"):
            await other.deliver(fail)
        one.send(b"second", other.address)
        async with inbox(other) as received:
            with trio.fail_after(5):
                assert await received.receive() == (b"second", one.address)
        await one.aclose()
        await other.aclose()

    async def test_datagrams_to_nobody(self, setup: Setup) -> None:
        """What cannot be delivered or sent is lost without an error, and the port goes on."""
        one = await setup.client.open_datagrams(Address.of("::", 0))
        other = await setup.server.open_datagrams(Address.of(setup.host, 0))
        gone = await setup.server.open_datagrams(Address.of(setup.host, 0))
        await gone.aclose()
        one.send(b"x", gone.address)
        one.send(bytes(70_000), other.address)
        one.send(b"here", other.address)
        async with inbox(other) as received:
            with trio.fail_after(5):
                data, source = await received.receive()
        gone.send(b"closed", other.address)
        assert (data, source.port) == (b"here", one.address.port)
        assert source.is_ipv6 == other.address.is_ipv6
        await one.aclose()
        await other.aclose()

    async def test_closing_ends_a_wait(self, setup: Setup) -> None:
        """Closing a listener or a stream ends a waiting accept or receive with an error, and a port its delivery."""
        async with connection(setup) as (client, _):
            port = await setup.server.open_datagrams(Address.of(setup.host, 0))
            listener = await setup.server.listen(Address.of(setup.host, 0))

            async def expect(wait: Callable[[], object]) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await wait()  # type: ignore[misc]
                with pytest.raises(trio.ClosedResourceError):
                    await wait()  # type: ignore[misc]

            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(port.deliver, lambda _data, _source: None)
                    nursery.start_soon(expect, listener.accept)
                    nursery.start_soon(expect, lambda: client.receive_some(10))
                    await trio.sleep(0.02)
                    for thing in (port, listener, client):
                        nursery.start_soon(thing.aclose)

    async def test_any_address(self, setup: Setup) -> None:
        """A listener on `::` is reached by the host's own family; 0.0.0.0 means IPv4 alone."""
        both = await setup.server.listen(Address.of("::", 0))
        stream = await setup.client.connect(Address.of(setup.host, both.address.port))
        accepted = await both.accept()
        assert accepted.local == stream.remote
        assert accepted.remote == stream.local
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.aclose)
            nursery.start_soon(accepted.aclose)
        await both.aclose()
        four = await setup.server.listen(Address.of("0.0.0.0", 0))
        dial = Address.of(setup.host, four.address.port)
        if dial.is_ipv6:
            with pytest.raises(Unreachable):
                await setup.client.connect(dial)
        else:
            stream = await setup.client.connect(dial)
            accepted = await four.accept()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.aclose)
                nursery.start_soon(accepted.aclose)
        await four.aclose()

    @pytest.mark.parametrize(("offset", "count"), [(0, 3_000_000), (1_048_575, 1_048_578), (2_999_999, 1), (17, 0)])
    async def test_send_file(self, setup: Setup, make_file: Callable[[bytes], File], offset: int, count: int) -> None:
        """A file, or any part of it, arrives byte for byte between what was sent before and after it."""
        content = some_bytes(3_000_000)
        file = make_file(content)
        async with connection(setup) as (client, server), trio.open_nursery() as nursery:

            async def send() -> None:
                await server.send_all(b"<")
                await server.send_file(file, offset, count)
                await server.send_all(b">")
                await server.send_eof()

            nursery.start_soon(send)
            assert await receive_all(client) == b"<" + content[offset : offset + count] + b">"

    async def test_send_file_to_a_slow_reader(self, setup: Setup, make_file: Callable[[bytes], File]) -> None:
        """A file larger than every buffer waits for a slow reader and arrives whole."""
        content = some_bytes(BIG)
        file = make_file(content)
        async with connection(setup) as (client, server), trio.open_nursery() as nursery:

            async def send() -> None:
                await server.send_file(file, 0, BIG)
                await server.send_eof()

            nursery.start_soon(send)
            await trio.sleep(0.05)
            assert await receive_all(client, pause_s=0.001) == content

    async def test_file_that_ends_early(self, setup: Setup, make_file: Callable[[bytes], File]) -> None:
        """A file shorter than announced is Unreachable; the stream can only be closed, and closes with FIN."""
        file = make_file(some_bytes(100_000))
        async with connection(setup) as (client, server):
            with pytest.raises(Unreachable, match="ended"):
                await server.send_file(file, 50_000, 100_000)
            with pytest.raises(Unreachable, match="cut short"):
                await server.send_all(b"x")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.aclose)
                assert await receive_all(client) == some_bytes(100_000)[50_000:]
                await client.aclose()

    async def test_file_truncated_meanwhile(self, setup: Setup, tmp_path: Path) -> None:
        """A file that is cut while it is sent is Unreachable: what arrived is a true prefix."""
        content = some_bytes(BIG)
        path = tmp_path / "content"
        path.write_bytes(content)
        file = DiskFile(path)
        async with connection(setup) as (client, server), trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(Unreachable, match="ended"):
                    await server.send_file(file, 0, BIG)
                await server.aclose()

            nursery.start_soon(send)
            first = await client.receive_some(1_000)
            os.truncate(path, BIG - 1)
            got = first + await receive_all(client)
            assert len(got) < BIG
            assert content.startswith(got)
            await client.aclose()
        file.close()

    async def test_throughput(self, setup: Setup, tmp_path: Path) -> None:
        """64 MiB of a file arrive whole."""
        size = 64 << 20
        path = tmp_path / "content"
        path.write_bytes(some_bytes(1 << 20) * 64)
        file = DiskFile(path)
        buffer = memoryview(bytearray(1 << 20))
        async with connection(setup) as (client, server), trio.open_nursery() as nursery:
            nursery.start_soon(server.send_file, file, 0, size)
            left = size
            while left:
                left -= await client.receive_into(buffer[: min(left, len(buffer))])
        file.close()

    async def test_cancelled_dial(self, setup: Setup) -> None:
        """A dial that is cancelled anywhere leaves nothing open."""
        listener = await setup.server.listen(Address.of(setup.host, 0))
        before = setup.open_things()

        async def dial_and_close() -> None:
            stream = await setup.client.connect(listener.address)
            await close_at_once(stream)

        async def check() -> None:
            with trio.move_on_after(0.05):
                while True:
                    accepted = await listener.accept()
                    await close_at_once(accepted)
            assert setup.open_things() == before

        assert await cancel_at_every_checkpoint(dial_and_close, check) > 0
        await listener.aclose()

    async def test_cancelled_receive(self, setup: Setup) -> None:
        """A receive that is cancelled anywhere loses no byte."""
        async with connection(setup) as (client, server):
            got = []

            async def send_and_receive() -> None:
                got.append(await server.receive_some(1))

            async def check() -> None:
                pass

            await client.send_all(b"abcdefgh")
            cancelled = await cancel_at_every_checkpoint(send_and_receive, check)
            await client.send_eof()
            assert cancelled > 0
            assert b"".join(got) + await receive_all(server) == b"abcdefgh"

    @pytest.mark.parametrize("whole", [False, True], ids=["file", "bytes"])
    async def test_cancelled_send(self, setup: Setup, make_file: Callable[[bytes], File], whole: bool) -> None:
        """A send that is cancelled anywhere has sent a prefix, and the stream can only be closed."""
        content = some_bytes(1_500_000)
        file = make_file(content)
        before = setup.open_things()

        async def send_and_compare() -> None:
            async with connection(setup) as (client, server), trio.open_nursery() as nursery:

                async def receive() -> None:
                    with trio.CancelScope(shield=True):
                        assert content.startswith(await receive_all(client))

                nursery.start_soon(receive)
                try:
                    await (server.send_all(content) if whole else server.send_file(file, 0, len(content)))
                except trio.Cancelled:
                    with trio.CancelScope(shield=True), pytest.raises(Unreachable, match="cut short"):
                        await server.send_all(b"x")
                    raise
                finally:
                    await close_at_once(server)

        async def check() -> None:
            assert setup.open_things() == before

        assert await cancel_at_every_checkpoint(send_and_compare, check) > 0
        file.close()

    async def test_cancelled_listener(self, setup: Setup) -> None:
        """Listening, accepting, taking and sending a little, cancelled anywhere, leave no port and no stream open."""
        before = setup.open_things()

        async def serve_one() -> None:
            listener = await setup.server.listen(Address.of(setup.host, 0))
            try:
                client = await setup.client.connect(listener.address)
                try:
                    server = await listener.accept()
                    try:
                        await client.send_all(b"abc")
                        await client.send_eof()
                        assert await server.receive_into(memoryview(bytearray(2))) == 2
                        assert await receive_all(server) == b"c"
                    finally:
                        await close_at_once(server)
                finally:
                    await close_at_once(client)
            finally:
                await close_at_once(listener)

        async def check() -> None:
            await trio.lowlevel.checkpoint()
            assert setup.open_things() == before

        assert await cancel_at_every_checkpoint(serve_one, check) > 4

    async def test_cancelled_datagrams(self, setup: Setup) -> None:
        """Opening a port for datagrams and delivering from it, cancelled anywhere, leave no port open."""
        before = setup.open_things()

        async def open_and_deliver() -> None:
            datagrams = await setup.server.open_datagrams(Address.of(setup.host, 0))
            try:
                with trio.move_on_after(0):
                    await datagrams.deliver(lambda data, source: None)
            finally:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await datagrams.aclose()

        async def check() -> None:
            await trio.lowlevel.checkpoint()
            assert setup.open_things() == before

        assert await cancel_at_every_checkpoint(open_and_deliver, check) > 0

    async def test_names(self, setup: Setup) -> None:
        """A numeric host is itself; a name without addresses is Unreachable in one line."""
        assert await setup.client.resolve(setup.host, 80) == [Address.of(setup.host, 80)]
        with pytest.raises(Unreachable) as caught:
            await setup.client.resolve("no-such-host.invalid", 80)
        assert "no-such-host.invalid" in str(caught.value)
        assert "\n" not in str(caught.value)
