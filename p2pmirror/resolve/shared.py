"""Questions that several ask at once, asked once.

Laws: the work belongs to no asker: whoever is cancelled leaves it to the others; all who waited get the same outcome;
nothing is remembered once it has ended.
"""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from p2pmirror.errors import Unreachable

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


@dataclass(slots=True)
class _Question(Generic[_Value]):
    """One piece of work, and what came of it: a list of one value, or an error."""

    done: trio.Event = field(default_factory=trio.Event)
    values: list[_Value] = field(default_factory=list)
    error: Exception | None = None


class Shared(Generic[_Key, _Value]):
    """Work under way, by key; it is done while `run` runs."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._questions: dict[_Key, _Question[_Value]] = {}
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._questions)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let work be done until cancelled; whoever waits then gets `Unreachable`."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def ask(self, key: _Key, work: Callable[[], Awaitable[_Value]]) -> _Value:
        """Return what `work` returns, or raise what it raises; `work` is not begun while that of the same key runs.

        Raises `Unreachable` when the node stops. Cancellation: the work goes on.
        """
        question = self._questions.get(key)
        if question is None:
            if self._nursery is None:
                raise Unreachable("this node is starting or stopping")
            question = self._questions[key] = _Question()
            self._nursery.start_soon(self._work, key, question, work)
        await question.done.wait()
        if question.error is not None:
            raise question.error
        if not question.values:
            raise Unreachable("this node is stopping")
        return question.values[0]

    async def _work(self, key: _Key, question: _Question[_Value], work: Callable[[], Awaitable[_Value]]) -> None:
        try:
            question.values.append(await work())
        except Exception as error:  # noqa: BLE001  # a bug too is told to whoever asked
            question.error = error
        finally:
            del self._questions[key]
            question.done.set()
