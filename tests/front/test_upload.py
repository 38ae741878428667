"""What goes out to peers: in slots and at a rate, which this node's own clients never meet."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.front import Front, FrontMetrics, FrontOptions
from p2pmirror.front.slots import Slots
from p2pmirror.oci import Digest
from p2pmirror.oci.filters import Filters
from p2pmirror.resolve.sharing import Piece
from p2pmirror.resolve.want import Arriving, Content, Held
from p2pmirror.wire.http import Response, Sink
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.pacing import Pace
from tests.front.setting import THERE, Bench, FakeFile, FakeSink, send
from tests.front.test_flights import told

DATA = Random(1).randbytes(200_000)
DIGEST = Digest.of(DATA)
BLOB = f"/v2/app/blobs/{DIGEST}"
NEXT = f"/p2p/v1/flights/{DIGEST}/next?lacks=80"
OTHER = NodeId(b"\x03" * 20)
RATE = 1_000_000


class Slotted(Bench):
    """A front with two slots, one a peer, whose store has `DATA`."""

    def build_slotted(self, *, pace: Pace | None = None, slots: Slots | None = None) -> Slotted:
        self.registry = CollectorRegistry()
        self.front = Front(
            resolver=self.resolver,
            filters=Filters(),
            options=FrontOptions(),
            metrics=FrontMetrics(self.registry),
            pace=pace,
            slots=slots or Slots(2, per_peer=1),
        )
        return self

    def held(self, data: bytes = DATA) -> FakeFile:
        file = FakeFile(data)
        self.resolver.found[DIGEST] = Held(Content(DIGEST, len(data), None), file)
        return file

    async def ask_as(self, peer: NodeId | None, target: str = BLOB, method: str = "GET", **headers: str) -> Response:
        """Ask for all of it as a piece, as far as `headers` do not say otherwise."""
        named = {} if peer is None else {"P2PMirror_Peer": peer.hex()}
        return await self.ask(target, method, **{"Range": f"bytes=0-{len(DATA) - 1}", **named, **headers})


@pytest.fixture
def slotted() -> Slotted:
    return Slotted().build_slotted()


async def test_beyond_the_slots_a_peer_is_told_to_come_back(slotted: Slotted) -> None:
    """503 with Retry-After, nothing stays open, and as soon as an answer has ended there is room again."""
    slotted.held()
    first = await slotted.ask_as(THERE)
    assert first.status == 206
    file = slotted.held()
    refused = await slotted.ask_as(THERE)
    assert (refused.status, refused.headers["Retry-After"], file.closed) == (503, "1", 1)
    assert slotted.metric("upload_slots", state="taken") == 1
    assert await send(first) == DATA
    slotted.held()
    assert await send(await slotted.ask_as(THERE)) == DATA
    assert slotted.metric("upload_slots", state="taken") == 0
    assert slotted.metric("uploads_refused_total") == 1


async def test_who_has_it_by_now_is_named(slotted: Slotted) -> None:
    """Those who took the same before, and not the one who asks."""
    for number in (7, 8):
        slotted.held()
        assert await send(await slotted.ask_as(NodeId(bytes([number]) * 20))) == DATA
    for asker in (THERE, OTHER):
        slotted.held()
        await slotted.ask_as(asker)
    slotted.held()
    refused = await slotted.ask_as(NodeId(b"\x08" * 20))
    assert (refused.status, refused.headers["P2PMirror-Holders"]) == (503, "07" * 20)


async def test_who_took_half_of_it_is_named_to_nobody(slotted: Slotted) -> None:
    """An answer that broke gives its slot back, and that is all."""
    slotted.held()
    await send(await slotted.ask_as(OTHER), sink=FakeSink(trio.BrokenResourceError()))
    for asker in (THERE, OTHER):
        slotted.held()
        assert (await slotted.ask_as(asker)).status == 206
    slotted.held()
    refused = await slotted.ask_as(NodeId(b"\x08" * 20))
    assert refused.status == 503
    assert "P2PMirror-Holders" not in refused.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_nodes_own_containerd_is_never_refused(slotted: Slotted, method: str) -> None:
    """Whatever goes out to peers, and however much it asks for at once; none of it takes a slot."""
    for asker in (THERE, OTHER):
        slotted.held()
        await slotted.ask_as(asker)
    answers = []
    for _ in range(20):
        slotted.held()
        answers.append(await slotted.ask_as(None, method=method))
    assert {each.status for each in answers} == {200 if method == "HEAD" else 206}
    assert slotted.metric("upload_slots", state="taken") == 2


@pytest.mark.parametrize("byte_range", ["", "bytes=0-", "bytes=1000-", "bytes=-5000"])
async def test_who_wants_all_that_follows_is_served(slotted: Slotted, byte_range: str) -> None:
    """However many there are: nobody else may have it, and what lasts minutes would take the pieces' slots."""
    answers = []
    for number in range(20):
        slotted.held()
        answers.append(await slotted.ask_as(NodeId(bytes([number % 3]) * 20), Range=byte_range))
    assert {each.status for each in answers} <= {200, 206}
    assert slotted.metric("upload_slots", state="taken") == 0
    slotted.held()
    assert (await slotted.ask_as(THERE)).status == 206


async def test_small_content_takes_no_slot(slotted: Slotted) -> None:
    """A config of some kilobytes goes out at once, whoever asks, and so does an answer without a body."""
    for asker in (THERE, OTHER):
        slotted.held()
        await slotted.ask_as(asker)
    slotted.held(DATA[:60_000])
    assert await send(await slotted.ask_as(THERE, Range="bytes=0-59999")) == DATA[:60_000]
    slotted.held()
    assert (await slotted.ask_as(THERE, If_None_Match=f'"{DIGEST}"')).status == 304
    assert (await slotted.ask_as(THERE, "/v2/")).status == 200


async def test_a_peer_waits_for_no_piece_when_it_would_get_none(slotted: Slotted) -> None:
    """Before anything is chosen for him he is told; a piece that was chosen all the same was never given."""
    slotted.resolver.told[DIGEST] = told()
    for asker in (THERE, OTHER):
        slotted.held()
        await slotted.ask_as(asker)
    assert (await slotted.ask_as(THERE, NEXT)).status == 503
    assert slotted.resolver.flights_asked == []


async def test_a_piece_takes_a_slot_until_it_has_gone_out(slotted: Slotted) -> None:
    """It counts as a blob does, and its source is told when it went out, or did not."""
    slotted.resolver.told[DIGEST] = told()
    ended: list[bool] = []
    piece = Piece(FakeFile(DATA), 0, len(DATA), len(DATA), b"h" * 32, ended.append)
    slotted.resolver.pieces = [piece]
    answer = await slotted.ask_as(THERE, NEXT)
    assert slotted.metric("upload_slots", state="taken") == 1
    assert (await send(answer), ended) == (DATA, [True])
    assert slotted.metric("upload_slots", state="taken") == 0


def _held(bench: Slotted) -> None:
    bench.held()


def _arriving(bench: Slotted) -> None:
    async def pump(sink: Sink) -> None:
        await sink.send_all(DATA[:100_000])
        await sink.send_file(FakeFile(DATA), 100_000, 100_000)

    content = Content(DIGEST, len(DATA), None)
    bench.resolver.found[DIGEST] = Arriving(content, 0, len(DATA), pump, lambda: None)


@pytest.mark.parametrize("make", [_held, _arriving])
async def test_what_goes_out_to_peers_keeps_the_rate(make: Callable[[Slotted], None], autojump_clock: Any) -> None:
    """A file, or what comes by a pump as pieces of a flight do: both at the node's rate, every byte in its place."""
    bench = Slotted().build_slotted(pace=Pace(RATE))
    make(bench)
    began = trio.current_time()
    assert await send(await bench.ask_as(THERE)) == DATA
    assert 0.1 <= trio.current_time() - began <= 0.3
    make(bench)
    began = trio.current_time()
    assert await send(await bench.ask_as(None)) == DATA
    assert trio.current_time() == began


async def test_all_peers_share_the_rate(autojump_clock: Any) -> None:
    """Two at once take twice as long as one alone."""
    bench = Slotted().build_slotted(pace=Pace(RATE))

    async def pull(asker: NodeId, make: Callable[[Slotted], None]) -> None:
        make(bench)
        assert await send(await bench.ask_as(asker)) == DATA

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull, THERE, _held)
        nursery.start_soon(pull, OTHER, _arriving)
    assert 0.3 <= trio.current_time() - began <= 0.5
