"""Answers of peers with anything changed in them: checked bytes come out, or one error that says what to do next."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.errors import NotHere, PeerMisbehaved, Unreachable
from p2pmirror.peers.client import HttpPeers
from p2pmirror.peers.metrics import PeersMetrics
from p2pmirror.peers.protocol import Question
from p2pmirror.routing.bootstrap.fetching import NoList, Source, fetch
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.identity import NodeId
from tests.hostile.bearing import CASES, CASES_LONG, SEEDS, hold_line, pieces, shown
from tests.hostile.mutation import Mutants, of_bytes
from tests.hostile.scripted import US, ScriptedNetwork

HERE, THERE = NodeId(b"h" * 20), NodeId(b"t" * 20)
SIZE, OFFSET = 300, 100
PATH = "/v2/a/blobs/sha256:" + "0" * 64
BODY_BYTES_MAX = 1 << 20  # that a case may ever give: the script is shorter
PEERS_ERRORS = (NotHere, Unreachable, PeerMisbehaved)

OK = b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
ANSWERS = [
    OK + b"Content-Type: application/vnd.oci.image.layer.v1.tar\r\nContent-Length: 300\r\n\r\n" + bytes(300),
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-299/300\r\nContent-Length: 200\r\n\r\n" + bytes(200),
    OK + b"Transfer-Encoding: chunked\r\n\r\n12c\r\n" + bytes(300) + b"\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 300\r\nDocker-Content-Digest: x\r\n\r\n" + bytes(300),
    b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nP2PMirror-Upstream: 429\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Service Unavailable\r\nP2PMirror-Leader: " + b"74" * 20 + b"\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://10.66.0.1/\r\nContent-Length: 0\r\n\r\n",
]
PEERS = b'{"peers": ["10.0.0.1:29998", "[fd00::1]:29998", "node-3"]}'
LISTS = [
    OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(PEERS) + PEERS,
    OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(PEERS) + PEERS + b"\r\n0\r\n\r\n",
]
INSERTS = (
    b"\r\n",
    b"\0",
    b"Content-Length: 300\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Range: bytes 100-299/99999999999999999999\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
    b"ffffffffffffffff\r\n",
    b"X: y\r\n" * 3000,
    b"HTTP/1.0",
    b"[" * 3000,
    b'"\\ud800"',
    b"\xff",
)


async def fetched(network: ScriptedNetwork, question: Question) -> int:
    """Ask a peer for the content and read it to its end; return how many bytes came."""
    client = HttpClient(network, ClientOptions())  # type: ignore[arg-type]
    peers = HttpPeers(client, HERE, PeersMetrics(CollectorRegistry()))
    try:
        answer = await peers.ask(THERE, US, question)
        try:
            return await _count(answer, 0 if question.method == "HEAD" else answer.size - question.offset)
        finally:
            answer.close()
    finally:
        await client.aclose()


async def _count(answer: Any, expected: int) -> int:
    assert expected >= 0
    total, buffer = 0, memoryview(bytearray(4096))
    while count := await answer.receive_into(buffer):
        total += count
        assert total <= BODY_BYTES_MAX
    assert total == expected, f"{total} of {expected} bytes, and a clean end"
    return total


async def attack(
    ask: Callable[[ScriptedNetwork, Random], Any], mutants: Mutants, errors: Any, what: str, cases: int
) -> None:
    """Let a peer say mutants, cut anywhere, to as many questions; every connection is closed after each."""
    random = Random(what)
    for case in range(cases):
        how, data = mutants(random)
        network = ScriptedNetwork()
        network.script = list(pieces(data, random))
        told = f"{what}, case {case} ({how}): {shown(data)}"
        with trio.move_on_after(100) as patience:
            try:
                await ask(network, random)
            except errors as error:
                hold_line(error, told)
            except Exception as error:
                raise AssertionError(f"{told} raised {error!r}") from error
        assert not patience.cancelled_caught, f"{told} hangs"
        assert not [stream for stream in network.dialled if stream.is_open], f"{told}: left open"


@pytest.mark.parametrize("seed", SEEDS)
async def test_changed_answers(seed: int, long: bool, autojump_clock: Any) -> None:
    """Whatever a peer answers, exactly the announced bytes are handed out, or it is one of three errors."""

    async def ask(network: ScriptedNetwork, random: Random) -> None:
        question = Question(PATH, "docker.io", random.choice(("GET", "GET", "HEAD")), random.choice((0, OFFSET)))
        await fetched(network, question)

    cases = CASES_LONG // 2 if long else CASES // 2
    await attack(ask, of_bytes(ANSWERS, INSERTS), PEERS_ERRORS, f"peer, seed {seed}", cases)


@pytest.mark.parametrize("seed", SEEDS)
async def test_changed_lists_of_members(seed: int, long: bool, autojump_clock: Any) -> None:
    """Whatever a bootstrap URL answers, it is a list, or `NoList`; all is closed."""

    async def ask(network: ScriptedNetwork, random: Random) -> None:
        found = await fetch([US], Source("x", "/api/v1/peers"), network, random)  # type: ignore[arg-type]
        assert isinstance(found, list)

    cases = CASES_LONG // 3 if long else CASES // 3
    await attack(ask, of_bytes(LISTS, INSERTS), NoList, f"list, seed {seed}", cases)
