"""Names and directories in memory: open, list, stat, create, rename, clean up, lock."""

import zlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.store.files import AlreadyThere, NotWritable, Stat
from p2pmirror.store.memoryfiles.disk import Content, Disk
from p2pmirror.store.memoryfiles.opened import MemoryOpenFile, MemoryWriter


class MemoryFiles(Disk):
    """A host's files in memory; see `files.Files`, and `Disk` for what a test can do to it."""

    async def open(self, path: Path) -> MemoryOpenFile:
        """Open a file for reading."""
        await self.step()
        content = self.entries.get(path)
        if content is None:
            raise NotHere(f"there is no {path}")
        self.check_readable(path)
        return MemoryOpenFile(self, path, content)

    async def read_whole(self, path: Path, bytes_max: int) -> bytes:
        """Return a small file's content."""
        file = await self.open(path)
        if file.size > bytes_max:
            raise Unreachable(f"{path} has {file.size} bytes, more than the {bytes_max} that are read")
        return await file.read_at(0, file.size)

    async def read_many(self, paths: Sequence[Path], bytes_max: int) -> list[bytes | None]:
        """Return many small files."""
        await self.step()
        found = [self.get(path) if path not in self.unreadable else None for path in paths]
        return [data if data is not None and len(data) <= bytes_max else None for data in found]

    async def stat(self, paths: Sequence[Path]) -> list[Stat | None]:
        """Return the states of many files."""
        await self.step()
        found = [self.entries.get(path) for path in paths]
        return [content.stat() if content is not None else None for content in found]

    async def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted."""
        await self.step()
        self.check_directory(directory)
        self.check_readable(directory)
        return sorted(path.name for path in {*self.entries, *self.directories} if path.parent == directory != path)

    async def contents(self, directory: Path) -> dict[str, Stat]:
        """Return the files in a directory."""
        await self.step()
        self.check_directory(directory)
        self.check_readable(directory)
        return {path.name: each.stat() for path, each in self.entries.items() if path.parent == directory}

    async def marks(self, directories: Sequence[Path]) -> list[int | None]:
        """Return a number for the names in each directory and what has them."""
        await self.step()
        return [self._mark(directory) if directory in self.directories else None for directory in directories]

    def _mark(self, directory: Path) -> int:
        files = [(path.name, each.inode) for path, each in self.entries.items() if path.parent == directory]
        directories = [(path.name, 0) for path in self.directories if path.parent == directory]
        return zlib.crc32(repr(sorted(files + directories)).encode())

    async def free_bytes(self, directory: Path) -> int:
        """Return how much more may be written."""
        await self.step()
        self.check_directory(directory)
        return self.bytes_free if self.bytes_free is not None else 2**62

    async def make_directory(self, directory: Path) -> None:
        """Make sure that a directory exists, and its parents."""
        if directory in self.directories:
            await self.step()
            return
        await self.step_of_writing(directory)
        if any(each in self.entries for each in (directory, *directory.parents)):
            raise AlreadyThere(f"{directory} or one above it is a file")
        self.add_directory(directory)

    async def create(self, path: Path) -> MemoryWriter:
        """Begin a new file."""
        await self.step_of_writing(path)
        if path in self.entries or path in self.directories:
            raise AlreadyThere(f"{path} exists already")
        if path.parent not in self.directories:
            raise NotWritable(f"cannot write {path}: no such directory")
        content = self.entries[path] = Content(self.tick(), bytearray(), b"", self.stamp())
        return MemoryWriter(self, path, content)

    async def take_over(self, path: Path) -> MemoryWriter:
        """Go on writing a file that no live writer holds."""
        await self.step_of_writing(path)
        content = self.entries.get(path)
        if content is None:
            raise NotHere(f"there is no {path}")
        if content.holder is not None:
            raise NotWritable(f"cannot write {path}: somebody is writing it")
        return MemoryWriter(self, path, content)

    async def rename(self, old: Path, new: Path) -> None:
        """Give a file a new name, also after a crash."""
        await self.take_name(old, new)
        await self.sync_names(old, new)

    async def touch(self, when_s: Mapping[Path, float]) -> None:
        """Set times of change of files."""
        await self.step()
        for path, seconds in when_s.items():
            if path in self.entries and not self.read_only:
                self.entries[path].mtime_ns = int(seconds * 1e9)

    async def unlink(self, path: Path) -> None:
        """Remove a file; what is absent is no error."""
        await self.step_of_writing(path)
        content = self.entries.get(path)
        if content is not None:
            self.drop_name(path)

    async def remove_abandoned(self, directory: Path, prefix: str, spared: Collection[str] = ()) -> list[str]:
        """Remove files of dead writers."""
        await self.step_of_writing(directory)
        found = [path for path, each in self.entries.items() if path.parent == directory and each.holder is None]
        abandoned = sorted(path for path in found if path.name.startswith(prefix) and path.name not in spared)
        for path in abandoned:
            self.drop_name(path)
        return [path.name for path in abandoned]

    @asynccontextmanager
    async def locked(self, path: Path) -> AsyncIterator[None]:
        """Hold a lock file, which stays where it is afterwards."""
        await self.step_of_writing(path)
        if path not in self.entries:
            self.put(path, b"")
        lock = self.locks.setdefault(path, trio.Semaphore(1))
        async with lock:
            yield
