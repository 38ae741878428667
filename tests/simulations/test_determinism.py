"""Promises of simulations/determinism.py: what it needs of trio is there, does what it should, and is put back."""

from __future__ import annotations

import os
import subprocess
import sys

import trio
from trio._core import _run

from simulations import clock
from simulations.clock import VirtualClock
from simulations.determinism import seeded_scheduler


def order_of_tasks(seed: str) -> list[int]:
    """Return in which order twenty tasks run that a set was asked for, for three rounds."""
    order: list[int] = []

    async def one(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            order.append(number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)

    clock.run(main, clock=VirtualClock(), seed=seed)
    return order


def test_the_order_of_tasks_depends_on_the_seed_alone():
    """One seed gives one order, another seed another one: the switches of this trio still do what they did."""
    assert order_of_tasks("one") == order_of_tasks("one")
    assert order_of_tasks("one") != order_of_tasks("another")


def test_one_event_wakes_its_waiters_in_an_order_of_the_seed():
    """Who waits for one event is kept in a set, whose order depends on addresses; the order of waking does not."""

    def wakings() -> list[int]:
        woken: list[int] = []

        async def waits(number: int, event: trio.Event) -> None:
            await event.wait()
            woken.append(number)

        async def main() -> None:
            event = trio.Event()
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(waits, number, event)
                await trio.sleep(1)
                event.set()

        clock.run(main, clock=VirtualClock(), seed="one")
        return woken

    first, ballast = wakings(), [bytes(number) for number in range(1000)]
    assert [wakings() for _ in range(5)] == [first] * 5
    del ballast


def test_the_switches_are_put_back():
    """After a run trio is as it was: its shuffle goes on where it stood."""
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()
    with seeded_scheduler("one"):
        assert _run._ALLOW_DETERMINISTIC_SCHEDULING is True
        assert _run._r.getstate() != before[1]
    assert (_run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()) == before


def test_chaos_is_the_same_chaos_in_any_process():
    """Churn, partitions, loss, resets, HTTP: two processes with different PYTHONHASHSEED see the same, to the byte."""

    def seen(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulations.chaos", "1"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    first = seen("1")
    digest, ok, failure, datagrams = first.split()
    assert (ok, failure) == ("True", "None")
    assert int(datagrams) > 2000
    assert seen("4711") == first
    assert len(digest) == 32
