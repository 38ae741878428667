"""Peers whose every answer a test writes, and a sink that keeps what it got."""

from dataclasses import dataclass, field

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.peers.piecemap import PieceMap
from p2pmirror.peers.protocol import FlightQuestion, Question
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import File


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 20)


def address(number: int) -> Address:
    return Address(f"10.0.0.{number}", 29999)


@dataclass
class Script:
    """What one peer does: has `data`, says `size`, breaks or stalls at a byte, takes its time."""

    data: bytes = b""
    media_type: str | None = None
    size: int | None = None
    head_s: float = 0.0
    chunk: int = 100_000
    chunk_s: float = 0.001
    break_at: int | None = None
    break_once: bool = False
    stall_at: int | None = None
    stall_s: float = 10_000.0
    fails: Exception | None = None
    asked: list[Question] = field(default_factory=list)


class ScriptedAnswer:
    def __init__(self, script: Script, question: Question, peers: "ScriptedPeers") -> None:
        self._script = script
        self._position = question.offset
        self._peers = peers
        self._open = True
        self._has_stalled = False
        peers.open += 1
        self.size = len(script.data) if script.size is None else script.size
        self.offset = question.offset
        self.count = self.size - question.offset
        self.media_type = script.media_type
        self.digest = None
        self.piece_hash = None

    async def receive_into(self, buffer: memoryview) -> int:
        script = self._script
        await trio.sleep(script.chunk_s)
        if script.stall_at is not None and self._position >= script.stall_at and not self._has_stalled:
            await trio.sleep(script.stall_s)
            self._has_stalled = True
        if script.break_at is not None and self._position >= script.break_at:
            if script.break_once:
                script.break_at = None
            raise Unreachable("broken on purpose")
        stops = [len(script.data), self._position + min(len(buffer), script.chunk)]
        stops += [stop for stop in (script.break_at, script.stall_at) if stop is not None and stop > self._position]
        data = script.data[self._position : min(stops)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._peers.open -= self._open
        self._open = False


class ScriptedPeers:
    """The `Peers` of a test; `open` counts the answers that nobody has closed."""

    def __init__(self, scripts: dict[int, Script]) -> None:
        self.scripts = scripts
        self.open = 0

    async def ask(self, node_id: NodeId, _address: Address, question: Question) -> ScriptedAnswer:
        script = self.scripts[node_id[0]]
        script.asked.append(question)
        await trio.sleep(script.head_s)
        if script.fails is not None:
            raise script.fails
        if not script.data and script.size is None:
            raise NotHere("the script has nothing")
        return ScriptedAnswer(script, question, self)

    async def map(self, _node_id: NodeId, _address: Address, _question: FlightQuestion, **_options: object) -> PieceMap:
        raise NotHere("nothing is arriving")

    async def next(self, _node_id: NodeId, _address: Address, _question: FlightQuestion, **_options: object) -> None:
        raise NotHere("nothing is arriving")


class KeptSink:
    """A sink that keeps what it got, taking `step_s` for each send."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.data = bytearray()
        self._step_s = step_s

    @property
    def sent(self) -> int:
        return len(self.data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(self._step_s)
        self.data += data

    async def send_file(self, file: File, offset: int, count: int) -> None:
        await self.send_all(await file.read_at(offset, count))
