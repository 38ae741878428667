"""Questions to containerd, to peers and to the table, cancelled at every checkpoint: nothing is left of them."""

from contextlib import closing
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from google.protobuf.empty_pb2 import Empty
from prometheus_client import CollectorRegistry

from p2pmirror.config.keyfile import KeyFile
from p2pmirror.config.nodeid import NODE_ID_FILE, load_node_id
from p2pmirror.oci import Digest
from p2pmirror.peers.client import HttpPeers
from p2pmirror.peers.metrics import PeersMetrics
from p2pmirror.peers.piecemap import Bitmap, PieceMap, encode
from p2pmirror.peers.protocol import FlightQuestion, Question
from p2pmirror.routing.bootstrap.fetching import Source, fetch
from p2pmirror.store.containerd.api import containerd_pb2 as api
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.identity import NODE_ID_BYTES, NodeId
from tests.cancellation import cancel_at, cancel_at_every_checkpoint
from tests.hostile.scripted import US, ScriptedNetwork
from tests.hostile.test_peers import ANSWERS, LISTS, PATH, fetched
from tests.routing.conformance import find_all, key
from tests.routing.traffic import cluster, live
from tests.store_containerd.fake_server import FakeServer
from tests.store_containerd.test_grpc_faults import BODY, serving
from tests.store_containerd.test_grpc_faults import PATH as CALL

THERE = NodeId(b"t" * 20)
FLIGHT = FlightQuestion(Digest.of(b"blob"), "docker.io", "a/b")


async def test_calls_of_containerd(autojump_clock: Any) -> None:
    """A call, cancelled anywhere, leaves no call behind, and the connection carries the next one."""

    async def serve(server: FakeServer) -> None:
        answered: set[int] = set()
        await server.flush()
        while await server.read():
            for stream_id in set(server.requests) - answered:
                if server.requests[stream_id] and stream_id not in server.resets:
                    answered.add(stream_id)
                    await server.answer(stream_id, BODY)

    async with serving(serve) as (channel, servers):

        async def call() -> None:
            assert (await channel.unary(CALL, Empty(), api.VersionResponse)).version == "1.2.3"

        async def check() -> None:
            assert channel._connection is None or not channel._connection._calls
            await call()

        assert await cancel_at_every_checkpoint(call, check) > 3
        assert len(servers) <= 2  # a dial may be what was cancelled; no call breaks a connection


async def test_questions_to_peers(autojump_clock: Any) -> None:
    """Asking a peer and reading its answer, cancelled anywhere, leaves no connection open."""
    network = ScriptedNetwork()
    network.script = [ANSWERS[0][at : at + 50] for at in range(0, len(ANSWERS[0]), 50)]

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        assert not [stream for stream in network.dialled if stream.is_open]

    assert await cancel_at_every_checkpoint(lambda: fetched(network, Question(PATH, "docker.io")), check) > 8


@pytest.mark.parametrize("body", [encode(PieceMap(3, 300, 300, Bitmap.full(1), {0: bytes(32)})), bytes(300)])
async def test_questions_about_flights(body: bytes, autojump_clock: Any) -> None:
    """Asking a peer for its map or for a piece, cancelled anywhere, leaves no connection open."""
    network, is_map = ScriptedNetwork(), len(body) != 300
    part = b"Content-Length: %d\r\n\r\n" % len(body) + body
    head = b"HTTP/1.1 200 OK\r\n" if is_map else b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-299/300\r\n"
    network.script = [(head + part)[at : at + 50] for at in range(0, len(head + part), 50)]

    async def ask() -> None:
        client = HttpClient(network, ClientOptions())  # type: ignore[arg-type]
        peers = HttpPeers(client, THERE, PeersMetrics(CollectorRegistry()))
        try:
            if is_map:
                assert (await peers.map(THERE, US, FLIGHT, since=0, wait_s=1.0)).complete
                return
            answer = await peers.next(THERE, US, FLIGHT, first=0, lacks=b"\x80", wait_s=1.0)
            assert answer is not None
            with closing(answer):
                assert await answer.receive_into(memoryview(bytearray(300))) > 0
        finally:
            await client.aclose()

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        assert not [stream for stream in network.dialled if stream.is_open]

    assert await cancel_at_every_checkpoint(ask, check) >= 5


async def test_questions_for_members(autojump_clock: Any) -> None:
    """Asking a bootstrap URL, cancelled anywhere, leaves no connection open."""
    network = ScriptedNetwork()
    network.script = [LISTS[1][at : at + 20] for at in range(0, len(LISTS[1]), 20)]

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        assert not [stream for stream in network.dialled if stream.is_open]

    source = Source("x", "/api/v1/peers")
    assert await cancel_at_every_checkpoint(lambda: fetch([US], source, network, Random(1)), check) > 5  # type: ignore[arg-type]


async def test_look_ups(autojump_clock: Any) -> None:
    """Finding, tracing and wanting, cancelled anywhere, leave no question open for longer than a question lives."""
    async with cluster(keyed=False) as (target, _):
        await live(target)
        tasks = trio.lowlevel.current_statistics().tasks_living

        async def check() -> None:
            left = set(target.rpc._pending)
            await trio.sleep(5)
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
            assert not left & set(target.rpc._pending)
            assert await find_all(target.router, key(11))

        async def want(number: int) -> None:
            await target.router.want(key(number))

        far = next(n for n in range(99) if target.router._view.closest(key(n), 1) != [target.router.node_id])
        for look_up in (
            lambda: find_all(target.router, key(99)),
            lambda: target.router.trace(key(11)),
            lambda: want(far),
        ):
            assert await cancel_at_every_checkpoint(look_up, check) > 0


async def test_leaving(autojump_clock: Any) -> None:
    """A goodbye, cancelled anywhere, keeps no task and is not said again; the router ends as after a whole one."""
    for number in count(1):
        async with cluster(keyed=False) as (target, _):
            await live(target)
            tasks = trio.lowlevel.current_statistics().tasks_living
            was_cancelled = await cancel_at(number, target.router.leave)
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
            with trio.fail_after(0):
                await target.router.leave()
        if not was_cancelled:
            break
    assert number > 3


async def test_first_files(autojump_clock: Any) -> None:
    """Reading the key and making the node's id, cancelled anywhere, leave a directory in which the next start works."""
    files, directory = MemoryFiles(), Path("/data")
    await files.make_directory(directory)
    writer = await files.create(directory / "new")
    await writer.append(b"k" * 32)
    await writer.commit(directory / "key")
    await files.unlink(directory / "new")
    known: list[bytes] = []

    async def start() -> None:
        await KeyFile.load(files, directory / "key")
        known.append(await load_node_id(directory, files, Random(len(known))))

    async def check() -> None:
        names = await files.names(directory)
        assert set(names) <= {"key", NODE_ID_FILE}, names
        if NODE_ID_FILE in names:
            assert len(await files.read_whole(directory / NODE_ID_FILE, NODE_ID_BYTES)) == NODE_ID_BYTES

    assert await cancel_at_every_checkpoint(start, check) > 3
    first = await load_node_id(directory, files, Random(9))
    assert await load_node_id(directory, files, Random(10)) == first
