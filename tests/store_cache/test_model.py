"""Random lives of a cache, compared with a model of what must be there."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock as Clock

from p2pmirror.errors import NotHere, StoreFull
from p2pmirror.oci import Digest
from p2pmirror.store.cache import CacheHooks, CacheStore
from p2pmirror.store.cache.records import Places
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.store_cache.setting import DIRECTORY, Day, content, keep, listed, options, rests

BYTES_MAX = 6000
DATA = [bytes([number]) * (300 * number + 1) for number in range(10)]
DIGESTS = [Digest.of(data) for data in DATA]

Step = Literal["keep", "begin", "end", "open", "close", "wipe", "remove", "damage", "look", "restart", "crash"]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "keep",
                "keep",
                "keep",
                "begin",
                "end",
                "open",
                "close",
                "wipe",
                "remove",
                "damage",
                "look",
                "restart",
                "crash",
            ]
        ),
        st.integers(0, len(DATA) - 1),
    ),
    max_size=30,
)


@dataclass
class Life:
    """A cache, and what a person who watched it would say that it must and may have."""

    files: MemoryFiles
    day: Day
    store: CacheStore
    may: set[int] = field(default_factory=set)  # what was kept and not removed since; eviction may have taken it
    removed: set[int] = field(
        default_factory=set
    )  # of these the names may come back at a crash: unlinks are not synced
    open: list[tuple[int, object]] = field(default_factory=list)
    incoming: list[tuple[int, object]] = field(default_factory=list)

    async def restart(self) -> None:
        self.store = CacheStore(DIRECTORY, self.files, options(bytes_max=BYTES_MAX), CacheHooks(wall_s=self.day))
        await self.store.look()
        await self.store.adopt()
        await self.store._directory.prepare()
        await self.store._directory.remove_abandoned()
        await self.store._room.trim()  # as the first sweep does

    async def step(self, kind: Step, number: int, chance: Random) -> None:  # noqa: C901, PLR0915 (one branch a kind of step)
        data, digest = DATA[number], DIGESTS[number]
        if kind == "keep":
            try:
                await keep(self.store, data)
            except StoreFull:
                assert self.store._room.reserved_bytes or self.open
            else:
                self.may.add(number)
                assert await content(self.store, digest) == data
        elif kind == "begin":
            try:
                incoming = await self.store.receive(digest, len(data), None, "")
            except StoreFull:
                return
            await incoming.write(data[: len(data) // 2])
            self.incoming.append((number, incoming))
        elif kind == "end" and self.incoming:
            number, incoming = self.incoming.pop(0)
            async with incoming:  # type: ignore[attr-defined]
                await incoming.write(DATA[number][incoming.written :])  # type: ignore[attr-defined]
                try:
                    await incoming.keep()  # type: ignore[attr-defined]
                except StoreFull:  # it was wiped
                    return
                self.may.add(number)
        elif kind == "open":
            try:
                self.open.append((number, await self.store.open(digest)))
            except NotHere:
                assert digest not in listed(self.store)
        elif kind == "close" and self.open:
            number, blob = self.open.pop(0)
            assert await blob.file.read_at(0, 9999) == DATA[number]  # type: ignore[attr-defined]
            blob.file.close()  # type: ignore[attr-defined]
        elif kind == "wipe":
            self.files.remove(DIRECTORY)
            self.may.clear()
            self.removed.clear()
        elif kind == "remove":
            await self.store.remove([digest])
            self.removed |= self.may & {number}
            self.may.discard(number)
        elif kind == "damage" and number in self.may and number:
            self.files.put(Places(DIRECTORY).blob(digest), data[:-1])
            self.may.discard(number)
        elif kind == "look":
            await self.store.look()
        elif kind in {"restart", "crash"}:
            await self.end_writers(died=kind == "crash")
            if kind == "crash":
                self.files.crash(chance)
                self.may |= self.removed
            await self.restart()

    async def end_writers(self, *, died: bool) -> None:
        for _, incoming in self.incoming:
            if not died:
                async with incoming:  # type: ignore[attr-defined]
                    pass
        self.incoming.clear()

    async def check(self) -> None:
        """Look, and compare: nothing that must not be, nothing wrong, never too much, and the sums are right."""
        await self.store.look()
        held = listed(self.store)
        assert held <= {DIGESTS[number] for number in self.may}
        assert self.store.held_bytes == sum(info.size for info in self.store.inventory.blobs())
        assert self.store.held_bytes + self.store._room.reserved_bytes <= BYTES_MAX
        assert self.store._room.reserved_bytes == sum(len(DATA[number]) for number, _ in self.incoming)
        for digest in held:
            assert Digest.of(await content(self.store, digest)) == digest


async def live(walk: list[tuple[Step, int]], seed: int) -> None:
    files, day, chance = MemoryFiles(), Day(), Random(seed)
    life = Life(files, day, CacheStore(Path("/none"), files))
    await life.restart()
    for kind, number in walk:
        await life.step(kind, number, chance)
        await trio.sleep(1)
        await life.check()
    await life.end_writers(died=False)
    assert not rests(files)


@example([("begin", 1), ("wipe", 0), ("begin", 1), ("end", 0)], 0)  # the second one took the first one's name
@given(steps, st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_random_lives(walk: list[tuple[Step, int]], seed: int) -> None:
    """Whatever happens in whatever order: no wrong byte, no room given twice, nothing back but by a crash."""
    trio.run(live, walk, seed, clock=Clock(autojump_threshold=0))
