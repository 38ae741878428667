"""Promises of patience: time in which the process was frozen does not count, within limits."""

import time

import trio
from trio.testing import MockClock

from p2pmirror.wire.patience import LOST_S_MAX, Patience


async def freeze_after(clock: MockClock, delay_s: float, frozen_s: float, event: trio.Event | None = None) -> None:
    """Wait, then let time jump in one step, as a frozen process sees it; what arrived meanwhile is read after it."""
    await trio.sleep(delay_s)
    clock.jump(frozen_s)
    if event is not None:
        await trio.sleep(0.001)
        event.set()


async def test_an_event_ends_the_wait(autojump_clock: MockClock) -> None:
    """What is waited for is not waited for longer than it takes."""
    patience, event = Patience(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(freeze_after, autojump_clock, 0.012, 0.0, event)
        began = trio.current_time()
        await patience.wait(event, patience.now() + 0.03)
        assert trio.current_time() - began < 0.015


async def test_a_wait_without_a_freeze_ends_in_time(autojump_clock: MockClock) -> None:
    """Patience is no excuse for a dear miss."""
    patience, began = Patience(), trio.current_time()
    await patience.wait(trio.Event(), patience.now() + 0.03)
    assert abs(trio.current_time() - began - 0.03) < 1e-6


async def test_what_arrived_during_a_freeze_is_read_before_the_deadline_counts(autojump_clock: MockClock) -> None:
    """A process that was frozen past its deadline still sees the answer that lay in its socket."""
    patience, event = Patience(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(freeze_after, autojump_clock, 0.003, 0.1, event)
        await patience.wait(event, patience.now() + 0.03)
        assert event.is_set()


async def test_freezing_without_end_is_not_waited_out(autojump_clock: MockClock) -> None:
    """What is given back has a limit."""
    patience, began = Patience(), trio.current_time()

    async def freeze_for_ever() -> None:
        while True:
            await freeze_after(autojump_clock, 0.001, 0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(freeze_for_ever)
        await patience.wait(trio.Event(), patience.now() + 0.03)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < LOST_S_MAX + 0.3


async def test_a_real_freeze_is_noticed() -> None:
    """On the real clock, a step that blocks the loop for a while does not use the wait up."""
    patience, event = Patience(), trio.Event()

    async def block() -> None:
        await trio.sleep(0.001)
        time.sleep(0.2)  # noqa: ASYNC251 - the freeze that this is about
        await trio.sleep(0.001)
        event.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(block)
        await patience.wait(event, patience.now() + 0.03)
        assert event.is_set()


async def test_a_freeze_between_two_looks_is_noticed(autojump_clock: MockClock) -> None:
    """A process that is frozen before it waits at all has lost nothing either."""
    patience, began = Patience(), trio.current_time()
    until = patience.now() + 0.03
    autojump_clock.jump(0.2)
    assert patience.now() < until
    await patience.wait(trio.Event(), until)
    assert trio.current_time() - began >= 0.2 + 0.03 - 0.001
