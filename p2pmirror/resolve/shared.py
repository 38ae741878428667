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
class Work(Generic[_Value]):
    """One piece of work, and what came of it: a list of one value, or an error."""

    done: trio.Event = field(default_factory=trio.Event)
    values: list[_Value] = field(default_factory=list)
    error: Exception | None = None

    async def outcome(self) -> _Value:
        """Wait for the end; return what came of it, or raise that. Raises `Unreachable` when the node stops.

        Cancellation: the work goes on.
        """
        await self.done.wait()
        if self.error is not None:
            raise self.error
        if not self.values:
            raise Unreachable("this node is stopping")
        return self.values[0]


class Shared(Generic[_Key, _Value]):
    """Work under way, by key; it is done while `run` runs."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._works: dict[_Key, Work[_Value]] = {}
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._works)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let work be done until cancelled; whoever waits then gets `Unreachable`."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def get(self, key: _Key) -> Work[_Value] | None:
        """Return the work of a key that is under way."""
        return self._works.get(key)

    def begin(self, key: _Key, work: Callable[[], Awaitable[_Value]]) -> Work[_Value]:
        """Return the work of a key: what is under way, or what begins now.

        Raises `Unreachable` while the node starts or stops.
        """
        begun = self._works.get(key)
        if begun is None:
            if self._nursery is None:
                raise Unreachable("this node is starting or stopping")
            begun = self._works[key] = Work()
            self._nursery.start_soon(self._work, key, begun, work)
        return begun

    async def ask(self, key: _Key, work: Callable[[], Awaitable[_Value]]) -> _Value:
        """Return what `work` returns, or raise what it raises; `work` is not begun while that of the same key runs.

        Raises `Unreachable` when the node stops. Cancellation: the work goes on.
        """
        return await self.begin(key, work).outcome()

    async def _work(self, key: _Key, begun: Work[_Value], work: Callable[[], Awaitable[_Value]]) -> None:
        try:
            begun.values.append(await work())
        except Exception as error:  # noqa: BLE001  # a bug too is told to whoever asked
            begun.error = error
        finally:
            del self._works[key]
            begun.done.set()
