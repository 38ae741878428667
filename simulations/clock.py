"""Virtual time: a clock that stands still while anything is runnable and then goes to whatever happens next.

Laws:
- entries of the agenda happen in the order of their times, those of one time in the order in which they were added, and
  time never goes back;
- an entry that made a task runnable is the last one before that task runs;
- a run in which nothing is left to happen ends with `Deadlock`, one whose entry raised ends with what it raised.

trio asks a clock how long it may sleep whenever nothing is runnable: there the clock moves. So an entry costs a call of
a function, where a sleeping task costs a turn of trio's loop and a timer.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from heapq import heappop, heappush
from typing import TypeVar

import trio

from simulations.determinism import Loop, seeded_scheduler

ENTRIES_AT_ONCE_MAX = 1000  # entries between two looks at the outside world: some milliseconds, so that Ctrl-C is heard
TURNS_A_LOOK = 256  # turns of the loop, some milliseconds, between two looks of whoever watches
TASKS_NAMED_MAX, FRAMES_NAMED_MAX = 20, 4  # in the message of a deadlock: a screen of them
QUIET_S = 1.0  # real seconds, an upper limit: whoever waits for quiet, or for trio's own wake-up, is woken at once

_Result = TypeVar("_Result")


class Deadlock(Exception):
    """Every task waits, and nothing is left that could wake one."""


class Overrun(Exception):
    """A run has gone on for longer than it may."""


class VirtualClock(trio.abc.Clock):
    """A trio clock in virtual seconds from 0, with an agenda. For one run of `run`.

    A run that gets beyond `limit_s` ends with `Overrun`. `on_turn` is called now and then, for those who watch.
    """

    def __init__(self, *, limit_s: float = math.inf) -> None:
        self.failure: BaseException | None = None  # what ended the run
        self.on_turn: Callable[[], object] | None = None
        self._limit_s = limit_s
        self._turns = 0
        self._now = 0.0
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0  # of entries ever added: breaks ties
        self._failed = trio.Event()
        self._over = False  # time stands still while trio puts its own things away
        self._loop: Loop | None = None

    def at(self, when: float, callback: Callable[[], object]) -> None:
        """Have `callback` called, outside any task, when time reaches `when`; a time that has passed means now.

        It may set events, start tasks and add entries; it may not wait. ValueError for a time that never comes.
        """
        if not math.isfinite(when):
            raise ValueError(f"{when} is no time at which something happens")
        self._count += 1
        heappush(self._agenda, (when, self._count, callback))

    def start_clock(self) -> None:
        """Begin; called by trio."""
        self._loop = Loop.running()

    def current_time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Go on to what happens next, `deadline` at the latest; called by trio when nothing is runnable."""
        del deadline  # an entry may move it: the loop is asked again after each
        loop = self._loop
        assert loop is not None, "trio starts a clock before it asks"
        if loop.quiet_waiters or self._over:
            return QUIET_S
        self._turns += 1
        if self.on_turn is not None and self._turns % TURNS_A_LOOK == 0:
            self.on_turn()
        try:
            self._advance(loop)
        except Exception as error:  # noqa: BLE001  # raised by the run, in `guard`: here it would be a bug of trio
            self._fail(error)
        return 0.0

    async def guard(self, main: Callable[[], Awaitable[_Result]]) -> _Result:
        """Run `main`; raise what an entry of the agenda raised, and `Deadlock`, out of it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._raise_failure)
                result = await main()
                nursery.cancel_scope.cancel()
            return result
        finally:
            self._over = True

    def _advance(self, loop: Loop) -> None:
        agenda = self._agenda
        for _ in range(ENTRIES_AT_ONCE_MAX):
            deadline = loop.next_deadline()
            if not agenda or deadline < agenda[0][0]:
                self._jump(deadline)
                return
            when, _, callback = heappop(agenda)
            if when > self._now:
                self._go_to(when)
            callback()
            if loop.runnable:
                return

    def _jump(self, deadline: float) -> None:
        if deadline == math.inf:
            raise Deadlock(f"nothing is left to happen at {self._now:.6f} s, and tasks wait: {_waiting()}")
        self._go_to(max(self._now, deadline))

    def _go_to(self, when: float) -> None:
        if when > self._limit_s:
            limit_s, self._limit_s = self._limit_s, math.inf  # so that the tasks can be ended
            raise Overrun(f"the run goes on beyond {limit_s:g} s")
        self._now = when

    def _fail(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error
            self._failed.set()
        elif isinstance(error, Deadlock):
            raise error  # tasks that cannot even be cancelled: `run` raises the first failure
        else:
            self.failure.add_note(f"and while the run ended: {error!r}")

    async def _raise_failure(self) -> None:
        await self._failed.wait()
        assert self.failure is not None
        raise self.failure


def run(main: Callable[[], Awaitable[_Result]], *, clock: VirtualClock, seed: str) -> _Result:
    """Run `main` on virtual time, in an order of tasks drawn from `seed`; return its result.

    Raises what `main` raises, the sole exception of a group by itself; KeyboardInterrupt when the user wants it ended.
    """
    try:
        with seeded_scheduler(seed):
            return trio.run(partial(clock.guard, main), clock=clock, restrict_keyboard_interrupt_to_checkpoints=True)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # groups of anything: the one thing in them is raised
        cause = _cause(error, clock)
    raise cause  # out here, so that it keeps what caused it and is not said to come from the group around it


def _waiting() -> str:
    """Say where the youngest tasks wait."""
    root = trio.lowlevel.current_root_task()
    tasks = [] if root is None else [root]
    for task in tasks:
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    places = []
    for task in reversed(tasks[:-TASKS_NAMED_MAX:-1]):
        frames = [f"{frame.f_code.co_qualname}:{line}" for frame, line in task.iter_await_frames()]
        places.append(f"{task.name} at {' > '.join(frames[:FRAMES_NAMED_MAX])}")
    return "; ".join(places)


def _cause(error: BaseException, clock: VirtualClock) -> BaseException:
    """Return what ended a run: the user, the clock, or the one exception of a group."""
    if isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt) is not None:
        return KeyboardInterrupt()
    if clock.failure is not None:
        return clock.failure
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
