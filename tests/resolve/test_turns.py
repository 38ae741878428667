"""Promises of the turns at a node's link: no flight falls behind, and nobody who goes away keeps the others waiting."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from p2pmirror.resolve.turns import Turn, Turns
from tests.cancellation import cancel_at_every_checkpoint

LONG_S = 1000.0


class Queue:
    """Those who wait for turns of a node that has one, and in which order they got it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.turns = Turns(1)
        self.got: list[str] = []
        self.held: Turn | None = None
        self._nursery = nursery

    async def wait(self, name: str, backlog: list[int]) -> None:
        async def take() -> None:
            self.held = await self.turns.take(lambda: backlog[0], LONG_S)
            self.got.append(name)

        self._nursery.start_soon(take)
        await wait_all_tasks_blocked()

    async def end(self) -> None:
        assert self.held is not None
        self.turns.end(self.held)
        await wait_all_tasks_blocked()


async def test_a_few_at_once(autojump_clock: Any) -> None:
    """As many as may be are held at once; the next one waits until one is over, and ending one twice counts once."""
    turns = Turns(2)
    first, second = await turns.take(lambda: 1, LONG_S), await turns.take(lambda: 1, LONG_S)
    assert turns.held == 2
    with trio.move_on_after(100) as scope:
        await turns.take(lambda: 1, LONG_S)
    assert scope.cancelled_caught
    turns.end(first)
    turns.end(first)
    assert turns.held == 1
    await turns.take(lambda: 1, LONG_S)
    assert turns.held == 2
    turns.end(second)


async def test_whoever_waited_longest_is_next(autojump_clock: Any) -> None:
    """Among those with as much to give."""
    async with trio.open_nursery() as nursery:
        queue = Queue(nursery)
        for name in "abc":
            await queue.wait(name, [1])
        await queue.end()
        await queue.end()
    assert queue.got == ["a", "b", "c"]


async def test_the_flight_that_lags_is_next(autojump_clock: Any) -> None:
    """What counts is how much each has to give when a turn is free, not when it began to wait."""
    async with trio.open_nursery() as nursery:
        queue = Queue(nursery)
        small, large = [1], [2]
        for name, backlog in (("a", small), ("b", small), ("c", large), ("d", small)):
            await queue.wait(name, backlog)
        await queue.end()
        large[0], small[0] = 0, 5
        await queue.wait("e", large)
        await queue.end()
        await queue.end()
        await queue.end()
    assert queue.got == ["a", "c", "b", "d", "e"]


async def test_a_turn_of_which_nothing_is_heard(autojump_clock: Any) -> None:
    """It counts for as long as was said, then whoever waits goes on."""
    turns, began = Turns(1), trio.current_time()
    lost = await turns.take(lambda: 1, 3.0)
    await turns.take(lambda: 1, LONG_S)
    assert trio.current_time() == began + 3
    turns.end(lost)
    assert turns.held == 1


async def test_whoever_leaves_while_he_waits_has_taken_none(autojump_clock: Any) -> None:
    """Wherever he is cancelled; whoever comes after him is not kept by him."""
    turns = Turns(1)

    async def take() -> None:
        first = await turns.take(lambda: 1, 1.0)
        turns.end(await turns.take(lambda: 1, LONG_S))
        turns.end(first)

    async def check() -> None:
        await trio.sleep(1.0)
        assert turns.held == 0
        turns.end(await turns.take(lambda: 0, LONG_S))

    assert await cancel_at_every_checkpoint(take, check) > 0
