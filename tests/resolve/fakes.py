"""Peers whose every answer a test writes, and a sink that keeps what it got."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.peers.piecemap import Bitmap, PieceMap, pieces_of
from p2pmirror.peers.protocol import Busy, FlightQuestion, Question
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import File


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 20)


def address(number: int) -> Address:
    return Address(f"10.0.0.{number}", 29999)


@dataclass
class Told:
    """What a peer tells of a blob that is arriving there; `lie` is what becomes of each map that it sends.

    `have`: the pieces that it says it has, None: all. It spreads what it has when it `spreads`, each piece once. It is
    busy until `busy_until`, and its flight ends at `ends_at`.
    """

    piece_bytes: int
    have: set[int] | None = None
    claims: bytes | None = None  # the hashes that it tells are those of these bytes; None: of its own
    is_open: bool = True
    spreads: bool = False
    author: NodeId | None = None  # None: itself
    followers: tuple[NodeId, ...] = ()
    lie: Callable[[PieceMap], PieceMap] = lambda told: told
    busy_until: float = 0.0
    ends_at: float = inf
    seq: int = 1
    maps: int = 0  # how many it was asked for
    given: list[int] = field(default_factory=list)

    def check(self) -> None:
        if trio.current_time() >= self.ends_at:
            raise NotHere("the flight has ended")
        if trio.current_time() < self.busy_until:
            raise Busy("busy on purpose")

    def pieces(self, size: int) -> list[int]:
        count = pieces_of(size, self.piece_bytes)
        return [index for index in range(count) if self.have is None or index in self.have]

    def hash_of(self, data: bytes, index: int) -> bytes:
        claimed = data if self.claims is None else self.claims
        return sha256(claimed[index * self.piece_bytes : (index + 1) * self.piece_bytes]).digest()

    def map(self, own: NodeId, data: bytes) -> PieceMap:
        author = self.author or own
        if not self.is_open:
            return self.lie(PieceMap(self.seq, None, 1, Bitmap(0), {}, author, self.spreads, self.followers))
        have = Bitmap(pieces_of(len(data), self.piece_bytes))
        for index in self.pieces(len(data)):
            have.add(index)
        hashes = {index: self.hash_of(data, index) for index in self.pieces(len(data))}
        told = PieceMap(self.seq, len(data), self.piece_bytes, have, hashes, author, self.spreads, self.followers)
        return self.lie(told)


@dataclass
class Script:
    """What one peer does: has `data`, says `size`, breaks or stalls at a byte, takes its time.

    `told`: the data is arriving there, and it tells peers of it. `missing`: pieces that it does not give when asked.
    """

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
    fails_until: float = inf
    told: Told | None = None
    missing: frozenset[int] = frozenset()
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
        self.count = self.size - question.offset if question.count is None else question.count
        self._end = min(len(script.data), self.offset + self.count)
        self.media_type = script.media_type
        self.digest = None
        self.piece_hash: bytes | None = None

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        script = self._script
        await trio.sleep(script.chunk_s)
        if script.stall_at is not None and self._position >= script.stall_at and not self._has_stalled:
            await trio.sleep(script.stall_s)
            self._has_stalled = True
        if script.break_at is not None and self._position >= script.break_at:
            if script.break_once:
                script.break_at = None
            raise Unreachable("broken on purpose")
        stops = [self._end, self._position + min(len(buffer), script.chunk)]
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
        if script.fails is not None and trio.current_time() < script.fails_until:
            raise script.fails
        if not script.data and script.size is None and script.told is None:
            raise NotHere("the script has nothing")
        if script.told is not None:
            script.told.check()
            if question.count is None or question.offset // script.told.piece_bytes in script.missing:
                raise NotHere("the script does not have all of it")
        return ScriptedAnswer(script, question, self)

    async def map(
        self, node_id: NodeId, _address: Address, _question: FlightQuestion, *, since: int, wait_s: float
    ) -> PieceMap:
        script, told = self._arriving(node_id)
        told.maps += 1
        await trio.sleep(script.head_s)
        told.check()
        if since >= told.seq:
            with trio.move_on_at(min(trio.current_time() + wait_s, told.ends_at)):
                while since >= told.seq:  # noqa: ASYNC110
                    await trio.sleep(0.1)  # a script may change `seq` at any moment
            told.check()
        return told.map(node_id, script.data)

    async def next(
        self, node_id: NodeId, _address: Address, question: FlightQuestion, *, first: int, lacks: bytes, wait_s: float
    ) -> ScriptedAnswer | None:
        script, told = self._arriving(node_id)
        await trio.sleep(script.head_s)
        told.check()
        if not told.spreads:
            raise NotHere("it is not spread")
        wanted = Bitmap.read(lacks, 8 * len(lacks))
        for index in told.pieces(len(script.data)):
            if 0 <= index - first < wanted.count and index - first in wanted and index not in told.given:
                told.given.append(index)
                offset = index * told.piece_bytes
                count = min(told.piece_bytes, len(script.data) - offset)
                answer = ScriptedAnswer(script, Question("", question.registry, offset=offset, count=count), self)
                answer.piece_hash = told.hash_of(script.data, index)
                return answer
        await trio.sleep(wait_s)
        return None

    def _arriving(self, node_id: NodeId) -> tuple[Script, Told]:
        script = self.scripts[node_id[0]]
        if script.fails is not None:
            raise script.fails
        if script.told is None:
            raise NotHere("nothing is arriving")
        return script, script.told


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
