"""The private parts of trio that a reproducible run needs; no other file touches them.

Laws: a switch is put back as it was found, so that one process may hold many runs; what is only read is never changed.

Why private parts: trio shuffles every batch of runnable tasks on purpose and offers no public way to seed that; asking
its public statistics for the run queue costs more than delivering a datagram. All of this may go when trio has a public
seeded scheduler, and tells a clock of one's own whether anything is runnable (python-trio/trio issues 32 and 2022);
until then `tests/simulations/test_determinism.py` fails with the first trio that moves one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass

from trio._core import _run

# Sorts each batch of runnable tasks by age before it is shuffled: the order in which they became runnable may come from
# the order of a set, and so from addresses in memory. trio sets it for hypothesis. Goes with a seeded scheduler.
_SORTED_BATCHES = "_ALLOW_DETERMINISTIC_SCHEDULING"


@contextmanager
def seeded_scheduler(seed: str) -> Iterator[None]:
    """Let trio's order of tasks depend on `seed` alone, until the block ends."""
    sorted_before, shuffle_before = getattr(_run, _SORTED_BATCHES), _run._r.getstate()  # noqa: SLF001  # see the module
    setattr(_run, _SORTED_BATCHES, True)
    _run._r.seed(seed)  # noqa: SLF001  # the generator of the shuffle
    try:
        yield
    finally:
        setattr(_run, _SORTED_BATCHES, sorted_before)
        _run._r.setstate(shuffle_before)  # noqa: SLF001  # see above


@dataclass(frozen=True, slots=True)
class Loop:
    """The running loop, to look at: what is runnable, who waits until all is quiet, the next deadline of a scope."""

    runnable: Sized
    quiet_waiters: Sized
    next_deadline: Callable[[], float]

    @classmethod
    def running(cls) -> Loop:
        """Return the loop of the run that this thread is in."""
        runner = _run.GLOBAL_RUN_CONTEXT.runner
        return cls(runner.runq, runner.waiting_for_idle, runner.deadlines.next_deadline)
