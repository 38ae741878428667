"""The disk behind files in memory: what is there, what of it would survive a crash, and what the test has broken."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import trio

from p2pmirror.errors import NotHere, StoreFull, Unreachable
from p2pmirror.store.files import NotWritable, Stat


class PowerOff(Exception):
    """The simulated machine is off: nothing works until `MemoryFiles.crash`."""


@dataclass(eq=False)
class Content:
    """One inode: what it holds, and what of that is on the disk."""

    inode: int
    now: bytearray
    durable: bytes
    mtime_ns: int
    holder: object = None  # the live writer that has locked it

    def stat(self) -> Stat:
        """Return its present state."""
        return Stat(len(self.now), self.mtime_ns, self.inode)


class Disk:
    """Names, contents and faults; `MemoryFiles` is its seam.

    `bytes_free`: None is without end. `read_only`: nothing can be changed. `unreadable`: paths that cannot be opened.
    `put`, `get` and `remove` act as another program would, at once, and what they do is on the disk. `room_s`: how long
    it takes to make room for a file. `wall_s`: the time of day, by which changes are stamped; None: they are numbered.
    """

    def __init__(self, *, bytes_free: int | None = None, wall_s: Callable[[], float] | None = None) -> None:
        """Start with the root directory alone."""
        self.wall_s = wall_s
        self.bytes_free = bytes_free
        self.read_only = False
        self.room_s: Callable[[], float] = lambda: 0.0
        self.unreadable: set[Path] = set()
        self.entries: dict[Path, Content] = {}
        self._durable: dict[Path, Content] = {}
        self.directories: set[Path] = {Path("/")}
        self.locks: dict[Path, trio.Semaphore] = {}
        self._ticks = 0
        self._stamped = 0
        self._steps_left: int | None = None

    # --- the hand of the test ---

    @property
    def is_on(self) -> bool:
        """Whether the machine is on."""
        return self._steps_left is None or self._steps_left > 0

    def power_off_after(self, steps: int) -> None:
        """Let this many more operations happen and none after them."""
        self._steps_left = steps

    def crash(self, chance: Random) -> None:
        """Lose or tear what was not put on the disk, as `chance` decides, and switch the machine on again."""
        for content in {id(each): each for each in (*self.entries.values(), *self._durable.values())}.values():
            content.now = bytearray(_torn(bytes(content.now), content.durable, chance))
            content.durable = bytes(content.now)
            content.holder = None
        for path in sorted({*self.entries, *self._durable}):
            survivor = chance.choice((self.entries, self._durable)).get(path)
            if survivor is None:
                self._durable.pop(path, None)
            else:
                self._durable[path] = survivor
        self.entries = dict(self._durable)
        self.locks.clear()
        self._steps_left = None

    def put(self, path: Path, data: bytes) -> None:
        """Write a file as another program would: a new inode under this name, on the disk."""
        self.add_directory(path.parent)
        self.entries[path] = self._durable[path] = Content(self.tick(), bytearray(data), data, self.stamp())

    def get(self, path: Path) -> bytes | None:
        """Return a file's content, None where there is none."""
        content = self.entries.get(path)
        return bytes(content.now) if content is not None else None

    def remove(self, path: Path) -> None:
        """Remove a file, or a directory with all that is in it."""
        for names in (self.entries, self._durable):
            for each in [each for each in names if each == path or path in each.parents]:
                del names[each]
        self.directories = {each for each in self.directories if each != path and path not in each.parents}

    # --- for open files and writers ---

    async def step(self) -> None:
        """Do one more operation, unless the machine goes off."""
        await trio.lowlevel.checkpoint()
        if self._steps_left is not None:
            if self._steps_left <= 0:
                raise PowerOff
            self._steps_left -= 1

    async def step_of_writing(self, path: Path) -> None:
        """Do one more operation that changes something."""
        await self.step()
        if self.read_only:
            raise NotWritable(f"cannot write {path}: read-only file system")

    def check_readable(self, path: Path) -> None:
        """Raise `Unreachable` for what the test has closed."""
        if path in self.unreadable:
            raise Unreachable(f"cannot read {path}: permission denied")

    def take_room(self, count: int, path: Path) -> None:
        """Use up free bytes; `StoreFull` when there are too few."""
        if self.bytes_free is not None:
            if count > self.bytes_free:
                raise StoreFull(f"no room left to write {path}")
            self.bytes_free -= count

    def tick(self) -> int:
        """Return a number that was not returned before, such as an inode's."""
        self._ticks += 1
        return self._ticks

    def stamp(self) -> int:
        """Return a time of change, nanoseconds, that no change had before."""
        self._stamped = max(self._stamped + 1, self.tick() if self.wall_s is None else int(self.wall_s() * 1e9))
        return self._stamped

    async def take_name(self, old: Path, new: Path) -> None:
        """Rename, not yet on the disk."""
        await self.step_of_writing(new)
        if old not in self.entries:
            raise NotHere(f"there is no {old}")
        if new.parent not in self.directories:
            raise NotHere(f"there is no {new.parent}")
        content = self.entries.pop(old)
        if new in self.entries:
            self.drop_name(new)
        self.entries[new] = content

    async def sync_names(self, *paths: Path) -> None:
        """Put the names of these paths' directories on the disk."""
        await self.step_of_writing(paths[0])
        directories = {path.parent for path in paths}
        for path in {*self.entries, *self._durable}:
            if path.parent in directories:
                _copy_name(path, self.entries, self._durable)

    async def forget(self, path: Path, content: Content) -> None:
        """Remove a discarded writer's file, if the name is still its own."""
        await trio.lowlevel.checkpoint()
        if self.entries.get(path) is content:
            self.drop_name(path)

    def drop_name(self, path: Path) -> None:
        """Remove a name that is there, not yet on the disk; give its room back."""
        content = self.entries.pop(path)
        if self.bytes_free is not None and content not in self.entries.values():
            self.bytes_free += len(content.now)

    def check_directory(self, directory: Path) -> None:
        """Raise `NotHere` unless it is a directory."""
        if directory not in self.directories:
            raise NotHere(f"there is no {directory}")

    def add_directory(self, directory: Path) -> None:
        """Make a directory and those above it."""
        self.directories.update((directory, *directory.parents))


def _copy_name(path: Path, source: dict[Path, Content], target: dict[Path, Content]) -> None:
    content = source.get(path)
    if content is None:
        target.pop(path, None)
    else:
        target[path] = content


def _torn(now: bytes, durable: bytes, chance: Random) -> bytes:
    """Return what a crash leaves of content: all, what was on the disk, zeros for the new part, or a piece of it."""
    if now == durable:
        return now
    cut = chance.randint(0, len(now))
    return chance.choice((now, durable, now[:cut], now[:cut] + bytes(len(now) - cut), bytes(len(now))))
