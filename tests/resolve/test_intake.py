"""What a node takes in a second: from peers, from registries, in pieces and in a stream, all of it together."""

from random import Random
from typing import Any

import pytest
import trio

from p2pmirror.resolve.intake import Intake, MeteredDownload
from tests.cancellation import cancel_at_every_checkpoint

RATE = 1_000_000


class Parts:
    """A download that gives what it has at once."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)
        self.size = sum(map(len, parts))

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.parts.pop(0) if self.parts else b""


async def take(intake: Intake, count: int, *, part: int = 10_000) -> None:
    """Take so many bytes as a receiver does to whom they come at once."""
    meter, taken = intake.meter(), 0
    while taken < count:
        await meter.ready()
        room = meter.room(memoryview(bytearray(min(part, count - taken))))
        meter.took(len(room))
        taken += len(room)


@pytest.mark.parametrize("receivers", [1, 3, 20])
async def test_all_receivers_share_the_rate(receivers: int, autojump_clock: Any) -> None:
    """However many there are, together they take what one would, and none is served before the others are."""
    intake, ended = Intake(RATE), list[float]()

    async def receiver() -> None:
        await take(intake, 3_000_000 // receivers)
        ended.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(receivers):
            nursery.start_soon(receiver)
    assert max(ended) - began == pytest.approx(3.0, rel=0.1)
    assert min(ended) - began == pytest.approx(3.0, rel=0.2)


async def test_without_a_limit_nothing_waits(autojump_clock: Any) -> None:
    """What comes is taken at once and in the buffer's whole length."""
    intake = Intake()
    assert len(intake.meter().room(memoryview(bytearray(1 << 24)))) == 1 << 24
    began = trio.current_time()
    await take(intake, 1 << 30, part=1 << 20)
    assert trio.current_time() == began


async def test_the_time_waited_is_told(autojump_clock: Any) -> None:
    """Whoever judges a source knows for how long it was this node that did not take."""
    meter = Intake(RATE).meter()
    meter.took(500_000)
    meter.took(500_000)
    assert await meter.ready() == pytest.approx(0.5, abs=0.1)
    assert await meter.ready() == 0.0


@pytest.mark.parametrize(("rate", "pieces"), [(0, 6), (1, 1), (1_000_000, 1), (4 << 20, 2), (8 << 20, 4), (1 << 30, 6)])
def test_slow_nodes_have_few_pieces_under_way(rate: int, pieces: int) -> None:
    """So many that each takes two seconds at most, one at least, and never more than without a limit."""
    assert Intake(rate).pieces_at_once(4 << 20, 6) == pieces


async def test_a_download_is_paced_and_whole(autojump_clock: Any) -> None:
    """Every byte of it comes, in order, at the rate."""
    data = Random(1).randbytes(1_000_000)
    parts = [data[at : at + 50_000] for at in range(0, len(data), 50_000)]
    download = MeteredDownload(Parts(*parts), Intake(RATE).meter())
    assert download.size == len(data)
    began, taken = trio.current_time(), b""
    while part := await download.receive():
        taken += part
    assert trio.current_time() - began == pytest.approx(1.0, rel=0.15)
    assert taken == data


async def test_cancelled_anywhere(autojump_clock: Any) -> None:
    """A receiver that is cancelled at any checkpoint owes nothing, and the others go on at the rate."""
    intake = Intake(RATE)

    async def receive() -> None:
        meter = intake.meter()
        meter.took(50_000)
        meter.took(50_000)
        await meter.ready()
        await MeteredDownload(Parts(b"x" * 10), meter).receive()

    async def goes_on() -> None:
        began = trio.current_time()
        await take(intake, 500_000)
        assert 0.4 <= trio.current_time() - began <= 0.7

    assert await cancel_at_every_checkpoint(receive, goes_on) >= 2
