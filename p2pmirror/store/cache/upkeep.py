"""What a cache does by itself: follows its directory, notes last uses, lets go of what is old or too much.

Laws: whatever the disk refuses is said once, and tried again later; a look at the directory costs one stat of each of
its directories until one of them has changed.
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from math import inf
from typing import Protocol

import trio

from p2pmirror.errors import MirrorError, StoreFull, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.cache.halves import Halves
from p2pmirror.store.cache.options import CacheOptions
from p2pmirror.store.cache.room import Room
from p2pmirror.store.cache.shelf import Shelf
from p2pmirror.store.cache.tags import CacheTags

JUMP_S = 60.0  # the clock of the day has been set: more than any correction that lets it run slower or faster
STEP_S = 1.0  # a use that is this much later than the one on the disk is worth a write


class Looks(Protocol):
    """Whoever looks at the directory."""

    async def look(self) -> None:
        """Walk it."""
        ...

    async def adopt(self) -> int:
        """Hash what has no record. Raises `StoreFull`."""
        ...

    async def probe(self) -> None:
        """Try whether it can be written. Raises `StoreFull`."""
        ...

    @property
    def strange(self) -> Collection[Digest]:
        """What has no record."""
        ...

    def complain(self, error: MirrorError) -> None:
        """Say what is wrong, once."""
        ...


class Upkeep:
    """The upkeep of one cache, from one `run` to its end."""

    def __init__(
        self,
        shelf: Shelf,
        directory: CacheDirectory,
        halves: Halves,
        *,
        room: Room,
        tags: CacheTags,
        options: CacheOptions,
        wall_s: Callable[[], float],
    ) -> None:
        """Begin with a walk."""
        self._shelf = shelf
        self._directory = directory
        self._halves = halves
        self._room = room
        self._tags = tags
        self._options = options
        self._wall_s = wall_s
        self._marks: list[int | None] | None = None
        self._was_changing = True
        self._walk_due = self._walk_at_most = self._sweep_due = -float("inf")  # trio's clock
        self._strange = trio.Event()
        self._clocks = (wall_s(), trio.current_time())

    async def run(self, looks: Looks, *, task_status: trio.TaskStatus[None]) -> None:
        """Go on until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._adopt, looks)
            task_status.started()
            await self._trying(looks, self._directory.prepare)
            await self._trying(looks, looks.probe)
            while True:
                await self._follow(looks)
                if trio.current_time() >= self._sweep_due:
                    self._sweep_due = trio.current_time() + self._options.sweep_s
                    await self._trying(looks, looks.probe)
                    await self._trying(looks, self._sweep)
                await trio.sleep(self._options.poll_s)

    async def _follow(self, looks: Looks) -> None:
        """Walk when something has changed, once more when it has settled, and now and then."""
        now = trio.current_time()
        marks = await self._directory.marks()
        is_due = now >= self._walk_due
        if now < self._walk_at_most or not (is_due or marks != self._marks or self._was_changing):
            return
        if is_due:
            await self._trying(looks, partial(self._halves.remove_old, self._wall_s()))
            self._walk_due = now + self._options.walk_s
        self._walk_at_most = now + self._options.walk_s_min
        self._was_changing, self._marks = marks != self._marks, marks
        await looks.look()
        if looks.strange:
            self._strange.set()

    async def _sweep(self) -> None:
        self._heed_jumps()
        await self._save_uses()
        await self._room.expire()
        await self._room.trim()
        await self._tags.expire(self._options.ttl_s or inf)

    async def _save_uses(self) -> None:
        """Put last uses on the disk, so that they survive a restart."""
        used: dict[Digest, float] = {}
        for entry in self._shelf:
            if entry.used_s - entry.saved_s > STEP_S:
                used[entry.digest] = entry.saved_s = entry.used_s
                if entry.record is not None:
                    entry.record = replace(entry.record, mtime_ns=int(entry.used_s * 1e9))
        if used:
            await self._directory.touch(used)

    def _heed_jumps(self) -> None:
        """Age nothing by a clock that was set forward; make nothing younger than now by one that was put back."""
        wall, now = self._wall_s(), trio.current_time()
        jump = (wall - self._clocks[0]) - (now - self._clocks[1])
        self._clocks = (wall, now)
        if abs(jump) > JUMP_S:
            for entry in self._shelf:
                entry.used_s = min(wall, entry.used_s + max(0.0, jump))
                entry.kept_s = min(wall, entry.kept_s)

    async def _adopt(self, looks: Looks) -> None:
        while True:
            await self._strange.wait()
            self._strange = trio.Event()
            await self._trying(looks, looks.adopt)

    async def _trying(self, looks: Looks, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (StoreFull, Unreachable) as error:
            looks.complain(error)
