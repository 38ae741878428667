"""What waits between a download and its file."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from p2pmirror.resolve.backlog import AHEAD_BYTES, STEP_BYTES, Backlog


async def _rest(backlog: Backlog) -> list[bytes]:
    steps = []
    while step := await backlog.step():
        steps.append(step)
    return steps


async def test_parts_come_in_order_joined_up_to_a_step() -> None:
    """Small parts are joined until they are worth a call, and no byte is lost, doubled or moved."""
    backlog = Backlog()
    parts = [bytes([number]) * (16 << 10) for number in range(40)]
    for part in parts:
        await backlog.put(part)
    backlog.end()
    steps = await _rest(backlog)
    assert b"".join(steps) == b"".join(parts)
    assert len(steps) == 3  # 40 parts, 16 a step
    assert await backlog.step() == b""


async def test_a_large_part_is_not_copied() -> None:
    """A part that is worth a call by itself comes out as the object that was put in, and alone."""
    backlog, large = Backlog(), bytes(STEP_BYTES)
    await backlog.put(large)
    await backlog.put(b"more")
    backlog.end()
    steps = await _rest(backlog)
    assert steps[0] is large
    assert steps[1:] == [b"more"]


async def test_what_waits_is_bounded(autojump_clock: Any) -> None:
    """Whoever puts waits once `AHEAD_BYTES` wait, and goes on when some of it is taken."""
    backlog, part = Backlog(), bytes(1 << 20)
    put = 0
    with trio.move_on_after(1):
        while True:
            await backlog.put(part)
            put += len(part)
    assert put == AHEAD_BYTES
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backlog.put, part)
        await trio.testing.wait_all_tasks_blocked()
        assert len(await backlog.step()) == len(part)
    backlog.end()
    assert sum(map(len, await _rest(backlog))) == put


async def test_a_cancelled_step_loses_nothing(autojump_clock: Any) -> None:
    """Who gives up waiting for a step, or for room, leaves everything as it was."""
    backlog = Backlog()
    with trio.move_on_after(1) as waiting:
        await backlog.step()
    assert waiting.cancelled_caught
    await backlog.put(bytes(AHEAD_BYTES))
    with trio.move_on_after(1) as putting:
        await backlog.put(b"not this")
    assert putting.cancelled_caught
    backlog.end()
    assert sum(map(len, await _rest(backlog))) == AHEAD_BYTES


@pytest.mark.parametrize("waits_first", [True, False])
async def test_the_end_is_told_to_who_waits(*, waits_first: bool) -> None:
    """The end comes to a task that waits already, and to one that comes later."""
    backlog, told = Backlog(), list[bytes]()

    async def take() -> None:
        told.append(await backlog.step())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            if waits_first:
                nursery.start_soon(take)
                await trio.testing.wait_all_tasks_blocked()
            backlog.end()
            if not waits_first:
                nursery.start_soon(take)
    assert told == [b""]
