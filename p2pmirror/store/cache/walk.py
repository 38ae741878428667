"""One look at everything in a cache's directory.

Laws: nothing is changed and nothing is hashed; what anybody removed meanwhile is just not there; records that were read
before are not read again; other tasks get their turn every few hundred files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from p2pmirror.errors import NotHere
from p2pmirror.oci import Digest, Invalid, TagName
from p2pmirror.store.cache.records import (
    RECORD_BYTES_MAX,
    Facts,
    Places,
    TagRecord,
    read_facts,
    read_pin,
    read_tag,
)
from p2pmirror.store.files import Files, Stat
from p2pmirror.store.newfile import INCOMING

BATCH: Final = 500  # files in one thread call, some 5 ms, and steps of ours without a turn for others, some 1 ms


@dataclass(frozen=True, slots=True)
class Recorded:
    """A blob's record: the state of its file, and what it says; None: as it was when that state was read before."""

    stat: Stat
    facts: Facts | None


@dataclass(slots=True)
class Snapshot:
    """What was found. `strange` are blobs without a readable record, `orphans` records without a blob."""

    blobs: dict[Digest, int] = field(default_factory=dict)
    recorded: dict[Digest, Recorded] = field(default_factory=dict)
    orphans: dict[Digest, Recorded] = field(default_factory=dict)
    strange: set[Digest] = field(default_factory=set)
    tags: dict[TagName, tuple[Digest, TagRecord]] = field(default_factory=dict)
    pins: frozenset[str] = frozenset()
    incoming: dict[str, int] = field(default_factory=dict)  # bytes of files being written, ours and others', by name


class Walker:
    """Walks one directory."""

    def __init__(self, places: Places, files: Files) -> None:
        """Nothing is read yet."""
        self._places = places
        self._files = files

    async def walk(self, known: Mapping[Digest, Stat | None]) -> Snapshot:
        """Look at everything; records whose state is `known` are not read again. Raises `Unreachable`."""
        found = Snapshot()
        records = await self._content("facts")  # before the blobs, which come later and go earlier than their records
        blobs = await self._content("blobs")
        facts = await self._facts([digest for digest, stat in records.items() if known.get(digest) != stat])
        for number, (digest, stat) in enumerate(records.items()):
            if number % BATCH == 0:
                await trio.lowlevel.checkpoint()
            read = facts.get(digest)
            if read is not None or digest not in facts:
                (found.recorded if digest in blobs else found.orphans)[digest] = Recorded(stat, read)
        found.blobs = {digest: stat.size for digest, stat in blobs.items()}
        found.strange = found.blobs.keys() - found.recorded.keys()
        tags = [read_tag(data) for data in await self._small(self._places.tags)]
        found.tags = {tag[0]: tag[1:] for tag in tags if tag is not None}
        pins = [read_pin(data) for data in await self._small(self._places.pins)]
        found.pins = frozenset(pin for pin in pins if pin is not None)
        found.incoming = await self._incoming()
        return found

    async def _content(self, kind: str) -> dict[Digest, Stat]:
        """Return what is in `blobs` or in `facts`; names that are no digests are not ours."""
        found: dict[Digest, Stat] = {}
        for algorithm, directory in self._places.content(kind):
            for number, (name, stat) in enumerate((await self._files_in(directory)).items()):
                if number % BATCH == 0:
                    await trio.lowlevel.checkpoint()
                digest = _digest(algorithm, name)
                if digest is not None:
                    found[digest] = stat
        return found

    async def _facts(self, digests: list[Digest]) -> dict[Digest, Facts | None]:
        found: dict[Digest, Facts | None] = {}
        for start in range(0, len(digests), BATCH):
            batch = digests[start : start + BATCH]
            data = await self._files.read_many([self._places.facts(each) for each in batch], RECORD_BYTES_MAX)
            found |= zip(batch, map(read_facts, data), strict=True)
        return found

    async def _small(self, directory: Path) -> list[bytes | None]:
        names = list(await self._files_in(directory))
        found: list[bytes | None] = []
        for start in range(0, len(names), BATCH):
            paths = [directory / name for name in names[start : start + BATCH]]
            found += await self._files.read_many(paths, RECORD_BYTES_MAX)
        return found

    async def _incoming(self) -> dict[str, int]:
        found = await self._files_in(self._places.root)
        return {name: stat.size for name, stat in found.items() if name.startswith(INCOMING)}

    async def _files_in(self, directory: Path) -> dict[str, Stat]:
        try:
            return await self._files.contents(directory)
        except NotHere:
            return {}


def _digest(algorithm: str, name: str) -> Digest | None:
    try:
        return Digest(algorithm, name)
    except Invalid:
        return None
