"""A host that lies to its peers: it stands at a node's registry port, before a whole agent that knows nothing of it.

Laws: the agent is production code and listens on loopback, so that its own client is told the truth; a lie changes what
goes out to peers, and nothing else; before it `begins` all is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.oci import Digest
from p2pmirror.peers.piecemap import MAP_BYTES_MAX, Bitmap, PieceMap, decode, encode
from p2pmirror.wire.address import Address
from p2pmirror.wire.http import PumpBody, Request, Response, Sink
from p2pmirror.wire.http_answer import ClientResponse
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from p2pmirror.wire.identity import PIECE_HEADER
from p2pmirror.wire.ranges import parse_content_range
from simulations.nodes import EPOCH_S, REGISTRY_PORT, WholeNode

PREFIX = "/p2p/v1/flights/"
PART_BYTES = 64 << 10
PASSED_ON = frozenset({"content-type", "content-range", "docker-content-digest", "retry-after", "p2pmirror-leader"})


@dataclass(frozen=True)
class Lie:
    """What becomes of an agent's words: `map` of its maps, `bytes_of` of a blob's bytes, `hash_of` of a piece's hash.

    `gives`: whether it gives anything at all; a lie that does not lets everybody wait.
    """

    map: Callable[[PieceMap, bytes], PieceMap] = lambda told, _: told
    bytes_of: Callable[[bytes], bytes] = bytes
    hash_of: Callable[[str, bytes], str] = lambda text, _: text
    gives: bool = True


def changed(data: bytes) -> bytes:
    """Return bytes of which every 4096th is wrong: one at least in every piece."""
    wrong = bytearray(data)
    wrong[::4096] = bytes(byte ^ 1 for byte in wrong[::4096])
    return bytes(wrong)


def _rehashed(told: PieceMap, data: bytes) -> PieceMap:
    """Claim the hashes of other bytes, as who has verified them."""
    pieces = [index for index in range(told.have.count) if index in told.have]
    return replace(told, hashes={index: _hash(data, told.piece_bytes, index) for index in pieces}, author=None)


def _hash(data: bytes, piece_bytes: int, index: int) -> bytes:
    return sha256(data[index * piece_bytes : (index + 1) * piece_bytes]).digest()


def _has_all(told: PieceMap, data: bytes) -> PieceMap:
    if told.size is None:
        return told
    pieces = range(told.have.count)
    hashes = {index: _hash(data, told.piece_bytes, index) for index in pieces}
    return replace(told, have=Bitmap.full(told.have.count), hashes=hashes)


def _is_longer(told: PieceMap, _: bytes) -> PieceMap:
    if told.size is None:
        return told
    return replace(told, size=told.size + told.piece_bytes, have=Bitmap(told.have.count + 1))


def _goes_on(told: PieceMap, _: bytes) -> PieceMap:
    return replace(told, seq=told.seq + (1 << 40), have=Bitmap(told.have.count))


LIES: Mapping[str, Lie] = {
    "bytes": Lie(bytes_of=changed),
    "bytes-and-hashes": Lie(
        map=lambda told, data: _rehashed(told, changed(data)),
        bytes_of=changed,
        hash_of=lambda _, data: sha256(data).hexdigest(),
    ),
    "hashes": Lie(
        map=lambda told, data: _rehashed(told, changed(data)), hash_of=lambda text, _: "00" * (len(text) // 2)
    ),
    "bitmap": Lie(map=_has_all),
    "size": Lie(map=_is_longer),
    "progress": Lie(map=_goes_on, gives=False),
    "nothing": Lie(gives=False),
}
"""By name: `data` is the blob as it is; `bytes_of` is given whole pieces, or parts at multiples of 4096."""


class Liar:
    """What stands before one node."""

    @staticmethod
    def settings(host: str) -> dict[str, str]:
        """Return what makes a host's agent leave its address to the liar."""
        return {"registry_addr": f"127.0.0.1:{REGISTRY_PORT}", "advertise_addr": host}

    def __init__(self, node: WholeNode, blobs: Mapping[Digest, bytes]) -> None:
        """Know what every blob is in truth."""
        self.lie: Lie | None = None
        self._node = node
        self._blobs = blobs
        self._client = HttpClient(node.network, ClientOptions())

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Stand there until cancelled."""
        server = HttpServer(self._answer, ServerOptions(), wall_s=lambda: EPOCH_S + trio.current_time())
        listener = await self._node.network.listen(Address(self._node.host, REGISTRY_PORT))
        await server.run(listener, task_status=task_status)

    async def _answer(self, request: Request) -> Response:
        lie = self.lie or Lie()
        is_of_flight = request.path.startswith(PREFIX)
        if not lie.gives and is_of_flight and request.path.endswith("/next"):
            await trio.sleep_forever()
        target = f"{request.path}?{request.query}" if request.query else request.path
        headers = {
            "Host": request.headers.get("host", "a"),
            **{k: v for k, v in request.headers.items() if k != "host"},
        }
        agent = Address("127.0.0.1", REGISTRY_PORT)
        answer = await self._client.open(agent, request.method, target, headers)
        fields = {name: value for name, value in answer.headers.items() if name in PASSED_ON}
        try:
            if is_of_flight and answer.status == 200:
                return await self._map(request, answer, lie, fields)
            if answer.status not in {200, 206} or request.method == "HEAD" or not answer.length:
                body = b"" if request.method == "HEAD" else await answer.read(1 << 20)
                fields["Content-Length"] = str(answer.length or 0)
                answer.close()
                return Response(answer.status, fields, body)
            return await self._blob(answer, lie, fields)
        except BaseException:
            answer.close()
            raise

    async def _map(self, request: Request, answer: ClientResponse, lie: Lie, fields: dict[str, str]) -> Response:
        text = await answer.read(MAP_BYTES_MAX)
        answer.close()
        if text:
            digest = Digest.parse(request.path.removeprefix(PREFIX).partition("/")[0])
            text = encode(lie.map(decode(text), self._blobs[digest]))
        return Response(200, fields, text)

    async def _blob(self, answer: ClientResponse, lie: Lie, fields: dict[str, str]) -> Response:
        """Pass bytes on; the head of a piece tells the hash of what follows, so the piece is read first."""
        assert answer.length is not None
        count = answer.length
        if not lie.gives:
            await trio.sleep_forever()
        piece_hash = answer.headers.get(PIECE_HEADER.lower())
        if piece_hash is not None:
            data = lie.bytes_of(await answer.read(count))
            answer.close()
            fields[PIECE_HEADER] = lie.hash_of(piece_hash, data)
            return Response(answer.status, fields, data)
        offset = 0
        if "content-range" in answer.headers:
            offset = parse_content_range(answer.headers["content-range"])[0].offset

        async def pump(sink: Sink) -> None:
            buffer, at = memoryview(bytearray(PART_BYTES)), offset
            while at < offset + count:
                got = await answer.receive_into(buffer)
                if not got:
                    raise Unreachable("the agent ended early")
                # positions that are wrong stay the same however the bytes are cut
                before = at % 4096
                await sink.send_all(lie.bytes_of(bytes(before) + bytes(buffer[:got]))[before:])
                at += got

        return Response(answer.status, fields, PumpBody(count, pump, answer.close))
