"""A connection whose other end is scripted: it says its pieces one after the other, then FIN, keeps what it hears."""

from collections.abc import Callable, Iterable

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import File

US = Address("10.0.0.1", 29999)
THEM = Address("10.0.0.9", 40000)


class ScriptedStream:
    """See `wire.network.Stream`: gives no piece before it is asked for, and at most what it is asked for."""

    def __init__(self, said: Iterable[bytes], *, local: Address = US, remote: Address = THEM) -> None:
        self.local = local
        self.remote = remote
        self.heard = bytearray()
        self.is_open = True
        self._said = list(reversed([piece for piece in said if piece]))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self.heard += data

    async def send_file(self, file: File, offset: int, count: int, moved: Callable[[int], None] | None = None) -> None:
        await self.send_all(await file.read_at(offset, count))
        if moved is not None:
            moved(count)

    async def receive_some(self, count_max: int, gather_s: float = 0.0) -> bytes:
        await trio.lowlevel.checkpoint()
        self._check()
        if not self._said:
            return b""
        piece = self._said.pop()
        if len(piece) > count_max:
            self._said.append(piece[count_max:])
        return piece[:count_max]

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        data = await self.receive_some(len(buffer), gather_s)
        buffer[: len(data)] = data
        return len(data)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.is_open = False
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self.is_open = False

    def _check(self) -> None:
        if not self.is_open:
            raise Unreachable("the connection is closed")


class ScriptedNetwork:
    """A network where whoever is dialled says what `script` holds then; every connection is kept for a look."""

    def __init__(self) -> None:
        self.script: list[bytes] = []
        self.dialled: list[ScriptedStream] = []

    async def connect(self, address: Address) -> ScriptedStream:
        await trio.lowlevel.checkpoint()
        self.dialled.append(ScriptedStream(self.script, local=THEM, remote=address))
        return self.dialled[-1]
