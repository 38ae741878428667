"""Promises of simulations/clock.py: the order of time, and how a run ends."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from simulations import clock
from simulations.clock import Deadlock, Overrun, VirtualClock


def test_an_hour_passes_at_once():
    """Virtual time costs no real time, and sleeping tasks wake exactly when they said."""
    began = time.monotonic()

    async def main() -> float:
        await trio.sleep(3600)
        return trio.current_time()

    assert clock.run(main, clock=VirtualClock(), seed="1") == 3600.0
    assert time.monotonic() - began < 5


@given(whens=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0000001, 2.5]) | st.floats(0, 10), max_size=30))
def test_entries_happen_in_the_order_of_time_and_then_of_adding(whens):
    """The agenda is in order of time, of one time in the order of adding, and each entry sees its own time."""
    happened: list[tuple[float, int]] = []

    async def main() -> None:
        virtual = time_of_run
        for number, when in enumerate(whens):
            virtual.at(when, partial(lambda number: happened.append((trio.current_time(), number)), number))
        await trio.sleep(20)

    time_of_run = VirtualClock()
    clock.run(main, clock=time_of_run, seed="1")
    assert happened == sorted((when, number) for number, when in enumerate(whens))


def test_a_woken_task_runs_before_the_next_entry():
    """An entry that makes a task runnable is the last one before that task has run, even among entries of one time."""
    happened: list[object] = []

    async def main() -> None:
        event = trio.Event()
        time_of_run.at(1.0, lambda: happened.append("before"))
        time_of_run.at(1.0, event.set)
        time_of_run.at(1.0, lambda: happened.append("after"))
        await event.wait()
        happened.append(trio.current_time())
        await trio.sleep(1)

    time_of_run = VirtualClock()
    clock.run(main, clock=time_of_run, seed="1")
    assert happened == ["before", 1.0, "after"]


def test_sleepers_and_entries_share_one_time():
    """A deadline between two entries is met between them."""
    happened: list[str] = []

    async def sleeper() -> None:
        await trio.sleep_until(1.5)
        happened.append(f"sleeper at {trio.current_time()}")

    async def main() -> None:
        time_of_run.at(1.0, lambda: happened.append("first"))
        time_of_run.at(2.0, lambda: happened.append("second"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeper)
            nursery.start_soon(trio.sleep, 3)

    time_of_run = VirtualClock()
    clock.run(main, clock=time_of_run, seed="1")
    assert happened == ["first", "sleeper at 1.5", "second"]


def test_an_entry_may_move_a_deadline_nearer():
    """A deadline that an entry set earlier is met when it says, not when it said before."""

    async def main() -> float:
        with trio.move_on_after(100) as scope:
            time_of_run.at(1.0, lambda: setattr(scope, "deadline", 2.0))
            time_of_run.at(3.0, lambda: None)
            await trio.sleep_forever()
        return trio.current_time()

    time_of_run = VirtualClock()
    assert clock.run(main, clock=time_of_run, seed="1") == 2.0


def test_a_time_that_has_passed_means_now():
    """An entry for the past happens now; time does not go back."""
    seen: list[float] = []

    async def main() -> None:
        await trio.sleep(5)
        time_of_run.at(1.0, lambda: seen.append(trio.current_time()))
        await trio.sleep(1)

    time_of_run = VirtualClock()
    clock.run(main, clock=time_of_run, seed="1")
    assert seen == [5.0]


@pytest.mark.parametrize("never", [math.inf, math.nan])
def test_what_never_happens_is_refused(never):
    """An entry at no time would hide a deadlock: ValueError."""
    with pytest.raises(ValueError, match="no time"):
        VirtualClock().at(never, lambda: None)


def test_nothing_left_to_happen_is_a_deadlock_that_says_who_waits():
    """A run in which everybody waits for ever ends with `Deadlock` and names where they wait."""

    async def waits_for_nobody() -> None:
        await trio.Event().wait()

    async def main() -> None:
        await trio.sleep(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits_for_nobody)

    with pytest.raises(Deadlock, match=r"at 2\.000000 s.*waits_for_nobody"):
        clock.run(main, clock=VirtualClock(), seed="1")


STUBBORN = """
import trio
from simulations import clock

async def stubborn():
    with trio.CancelScope(shield=True):
        await trio.Event().wait()

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stubborn)
        time_of_run.at(1.0, lambda: 1 / 0)

time_of_run = clock.VirtualClock()
clock.run(main, clock=time_of_run, seed="1")
"""


def test_a_deadlock_while_the_run_is_being_ended_ends_it_all_the_same():
    """A task that cannot even be cancelled does not keep a failed run alive, and the first failure is the one told."""
    done = subprocess.run([sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError: division by zero" in done.stderr


def test_what_an_entry_raises_ends_the_run_with_its_traceback():
    """An exception in a callback comes out of `run` as itself, with the frame that raised it, and tasks are ended."""
    ended: list[str] = []

    def breaks() -> None:
        raise LookupError("broken")

    async def main() -> None:
        time_of_run.at(1.0, breaks)
        try:
            await trio.sleep(10)
        finally:
            ended.append(f"at {trio.current_time()}")

    time_of_run = VirtualClock()
    with pytest.raises(LookupError, match="broken") as raised:
        clock.run(main, clock=time_of_run, seed="1")
    assert raised.traceback[-1].name == "breaks"
    assert ended == ["at 1.0"]


def test_the_one_exception_of_nested_groups_comes_out_alone():
    """Tasks that fail inside nurseries inside nurseries raise what they raised."""

    async def fails() -> None:
        raise LookupError("deep")

    async def main() -> None:
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as inner:
                inner.start_soon(fails)
            outer.start_soon(trio.sleep, 1)

    with pytest.raises(LookupError, match="deep"):
        clock.run(main, clock=VirtualClock(), seed="1")


@pytest.mark.parametrize("busy", ["tasks", "entries"])
def test_a_run_that_lasts_too_long_ends(busy):
    """A limit on virtual time ends a run that would go on for ever, whatever keeps it going."""

    def again() -> None:
        time_of_run.at(trio.current_time() + 1, again)

    async def main() -> None:
        if busy == "entries":
            again()
            await trio.sleep_forever()
        while True:  # noqa: ASYNC110  # it is to be busy
            await trio.sleep(1)

    time_of_run = VirtualClock(limit_s=100)
    with pytest.raises(Overrun, match="beyond 100 s"):
        clock.run(main, clock=time_of_run, seed="1")
    assert time_of_run.current_time() == 100.0


@pytest.mark.parametrize("busy", ["tasks", "entries"])
def test_ctrl_c_ends_a_run_whatever_keeps_it_busy(busy):
    """KeyboardInterrupt comes out of a run that is busy with tasks, and of one that never wakes any."""
    cleaned: list[bool] = []

    def again() -> None:
        time_of_run.at(trio.current_time() + 1e-6, again)

    async def main() -> None:
        time_of_run.at(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
        try:
            if busy == "entries":
                again()
                await trio.sleep_forever()
            while True:  # noqa: ASYNC110  # it is to be busy
                await trio.sleep(0.001)
        finally:
            cleaned.append(True)

    time_of_run = VirtualClock()
    with pytest.raises(KeyboardInterrupt):
        clock.run(main, clock=time_of_run, seed="1")
    assert cleaned == [True]


def test_quiet_waiters_are_served_before_time_goes_on():
    """`wait_all_tasks_blocked` returns without virtual time having passed."""

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 5)
            await trio.testing.wait_all_tasks_blocked()
            return trio.current_time()

    assert clock.run(main, clock=VirtualClock(), seed="1") == 0.0
