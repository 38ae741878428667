"""Cancels an operation at each of its checkpoints in turn, so that a test can say what every cancellation leaves."""

from collections.abc import Awaitable, Callable

import trio

CHECKPOINTS_MAX = 2000  # an operation with more than this is too long to be tested in this way


async def cancel_at_every_checkpoint(
    make_operation: Callable[[], Awaitable[object]], check: Callable[[], Awaitable[object]]
) -> int:
    """Run a fresh operation for n = 1, 2, … and cancel it at its n-th checkpoint, until one completes uncancelled.

    `check` runs after each, the completed one included, and asserts that nothing leaked. Checkpoints of tasks that the
    operation starts in its own nurseries count as well. The operation must complete when nobody cancels it. Returns at
    how many checkpoints it was cancelled.
    """
    for number in range(1, CHECKPOINTS_MAX):
        cancelled = await cancel_at(number, make_operation)
        await check()
        if not cancelled:
            return number - 1
    raise AssertionError(f"the operation has more than {CHECKPOINTS_MAX} checkpoints")


async def cancel_at(number: int, make_operation: Callable[[], Awaitable[object]]) -> bool:
    """Run an operation and cancel it at its n-th checkpoint; return whether it got so far."""
    scope = trio.CancelScope()
    counter = _Counter(trio.lowlevel.current_task(), number, scope)
    with scope:
        trio.lowlevel.add_instrument(counter)
        try:
            await make_operation()
        finally:
            trio.lowlevel.remove_instrument(counter)
    return scope.cancel_called


class _Counter(trio.abc.Instrument):
    """Cancels the scope when its task, or one below it, has yielded for the n-th time."""

    def __init__(self, task: trio.lowlevel.Task, number: int, scope: trio.CancelScope) -> None:
        self._task = task
        self._left = number
        self._scope = scope

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._belongs(task):
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()

    def _belongs(self, task: trio.lowlevel.Task | None) -> bool:
        while task is not None and task is not self._task:
            task = task.parent_nursery.parent_task if task.parent_nursery else None
        return task is not None
