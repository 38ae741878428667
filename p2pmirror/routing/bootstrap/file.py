"""Bootstrap by a file: one `HOST[:PORT]` a line, `#` comments; whoever changes it need not restart the agent.

Laws: a file that is not there, or cannot be read, names nobody; broken lines are named by their number and left out;
the state that a change is compared with was taken before the file was read, so that no change falls between.
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.routing.bootstrap.complaints import Complaints
from p2pmirror.routing.bootstrap.listing import LIST_BYTES_MAX, Listing, read_entries
from p2pmirror.routing.bootstrap.names import look_again_s
from p2pmirror.routing.bootstrap.places import Place
from p2pmirror.routing.bootstrap.resolver import Resolver
from p2pmirror.store.files import Files, Stat
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network

POLL_S = 2.0  # a change counts as soon as a person has looked for it; a poll costs one stat in a thread, 0.1 ms
READ_S_MAX = 5.0  # a disk that takes longer does not answer


@dataclass(frozen=True, slots=True)
class FileSetting:
    """`path` is absolute; `text` is the setting that it was read from."""

    text: str
    path: Path

    def __str__(self) -> str:
        return self.text

    def on(self, network: Network, files: Files, random: Random) -> "FileList":
        """See `protocol.BootstrapSetting`."""
        return FileList(self.path, files, Resolver(network, random), random)


class FileList:
    """See `protocol.Bootstrap`."""

    def __init__(self, path: Path, files: Files, resolver: Resolver, random: Random) -> None:
        """Read nothing yet."""
        self._path = path
        self._files = files
        self._resolver = resolver
        self._random = random
        self._complaints = Complaints()
        self._state: Stat | None = None  # before the file was read last; None: not there

    async def addresses(self) -> list[Address]:
        """Return the addresses of what the file names now."""
        state = await self._stat()
        found = await self._resolver.resolve(await self._places())
        self._state = state
        return found

    async def changed(self) -> None:
        """Return when the file has changed, appeared or vanished, or a name in it has a new address."""
        look_at = trio.current_time() + look_again_s(self._random)
        while True:
            await trio.sleep(POLL_S)
            if await self._stat() != self._state:
                return
            if trio.current_time() >= look_at:
                look_at = trio.current_time() + look_again_s(self._random)
                if await self._resolver.has_news():
                    return

    async def _places(self) -> list[Place]:
        subject = f"file {self._path}"
        why = f"cannot be read: no answer within {READ_S_MAX:g} s"
        with trio.move_on_after(READ_S_MAX):
            try:
                listing = await self._read()
            except NotHere:
                why = "is not there"
            except Unreachable as error:
                why = f"cannot be read: {error}"
            else:
                if listing.wrong:
                    self._complaints.wrong(subject, listing.wrong)
                else:
                    self._complaints.right(subject, "is read again")
                return listing.places
        self._complaints.wrong(subject, why)
        return []

    async def _stat(self) -> Stat | None:
        with trio.move_on_after(READ_S_MAX):
            return (await self._files.stat([self._path]))[0]
        return None

    async def _read(self) -> Listing:
        content = await self._files.read_whole(self._path, LIST_BYTES_MAX)
        lines = content.decode("utf-8-sig", "replace").split("\n")
        said = ((f"line {number}", line.partition("#")[0].strip()) for number, line in enumerate(lines, 1))
        return await read_entries([entry for entry in said if entry[1]], self._random)
