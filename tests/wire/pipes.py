"""A small network inside one task tree: pipes without sockets, as slow and as broken as a test wants them."""

from contextlib import asynccontextmanager, suppress

import trio
import trio.testing

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_server import HttpServer, ServerOptions

SERVER = Address("10.0.0.1", 80)
EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"
FILE_STEP_BYTES = 64 << 10  # of a file at a time


class Pipe:
    """One end of a connection; counts what went through and how often it was closed."""

    def __init__(self, pipe, local, remote):
        self._pipe = pipe
        self.local = local
        self.remote = remote
        self.sends = []
        self.closes = 0

    async def send_all(self, data):
        try:
            await self._pipe.send_all(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Unreachable("the other end is gone") from error
        self.sends.append(len(data))

    async def send_file(self, file, offset, count, moved=None):
        end = offset + count
        while offset < end:
            step = min(FILE_STEP_BYTES, end - offset)
            data = await file.read_at(offset, step)
            await self.send_all(data)
            if moved is not None:
                moved(len(data))
            offset += len(data)
            if len(data) < step:
                raise Unreachable("the file ended early")

    async def receive_some(self, count_max, gather_s=0.0):
        assert count_max > 0
        try:
            return bytes(await self._pipe.receive_some(count_max))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Unreachable("the connection broke") from error

    async def receive_into(self, buffer, gather_s=0.0):
        data = await self.receive_some(len(buffer), gather_s)
        buffer[: len(data)] = data
        return len(data)

    async def send_eof(self):
        await self._pipe.send_eof()

    async def aclose(self):
        self.closes += 1
        with suppress(trio.BrokenResourceError):
            await self._pipe.aclose()

    def abort(self):
        self.closes += 1
        self._pipe.send_stream.close()
        self._pipe.receive_stream.close()


class PipeListener:
    def __init__(self, address):
        self.address = address
        self._push, self._pull = trio.open_memory_channel(1000)

    async def accept(self):
        return await self._pull.receive()

    async def aclose(self):
        self._push.close()


class PipeNetwork:
    """Connections that take what is sent at once, or (`lockstep`) only as the other side reads."""

    def __init__(self, *, lockstep=False):
        self._pair = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        self._listeners = {}
        self.silent = set()
        self.dialled = []  # our ends
        self.accepted = []  # the servers' ends

    async def connect(self, address):
        await trio.lowlevel.checkpoint()
        if address in self.silent:
            await trio.sleep_forever()
        ours, theirs = self._pair()
        ours = Pipe(ours, Address("10.0.0.2", 1000 + len(self.dialled)), address)
        theirs = Pipe(theirs, address, ours.local)
        try:
            self._listeners[address]._push.send_nowait(theirs)
        except (KeyError, trio.ClosedResourceError):
            raise Unreachable("refused") from None
        self.dialled.append(ours)
        self.accepted.append(theirs)
        return ours

    async def listen(self, address):
        await trio.lowlevel.checkpoint()
        self._listeners[address] = PipeListener(address)
        return self._listeners[address]


class MemoryFile:
    """A file of bytes; `size_said` may be a lie."""

    def __init__(self, content, size_said=None):
        self._content = content
        self.size = len(content) if size_said is None else size_said
        self.closes = 0

    def fileno(self):
        return None

    async def read_at(self, offset, count):
        await trio.lowlevel.checkpoint()
        return self._content[offset : offset + count]

    def close(self):
        self.closes += 1


class Host:
    """A running server and the way to it."""

    def __init__(self, network, server, address):
        self.network = network
        self.server = server
        self.address = address

    async def dial(self):
        return await self.network.connect(self.address)

    async def talk(self, *pieces):
        """Send pieces, then everything that comes back until the server's FIN."""
        stream = await self.dial()
        try:
            for piece in pieces:
                await stream.send_all(piece)
            return await read_to_fin(stream)
        finally:
            await stream.aclose()


async def read_to_fin(stream):
    parts = []
    while part := await stream.receive_some(65536):
        parts.append(part)
    return b"".join(parts)


async def read_count(stream, count):
    data = b""
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        assert part, f"FIN after {len(data)} of {count} bytes"
        data += part
    return data


@asynccontextmanager
async def serving(handler, options=None, *, network=None, address=SERVER):
    """Run a server on a network; it is cut at the end of the block."""
    network = network or PipeNetwork()
    server = HttpServer(handler, options or ServerOptions(), wall_s=lambda: 0.0)
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(server.run, await network.listen(address))
        yield Host(network, server, bound)
        nursery.cancel_scope.cancel()


def answer(status, *fields, body=b"", length=None):
    """Return what the server is expected to send, to the byte."""
    last = [field for field in fields if field.startswith("Connection")]
    lines = [f"HTTP/1.1 {status}", f"Date: {EPOCH}", *(field for field in fields if field not in last)]
    if length != "none":
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    lines += last
    return "\r\n".join([*lines, "", ""]).encode() + body
