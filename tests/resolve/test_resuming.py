"""A blob that was half here when its flight ended: only the rest is fetched, old bytes count when hashed again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pmirror.oci import Digest
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.want import Arriving
from p2pmirror.store.cache import CacheOptions, CacheStore
from p2pmirror.store.cache.progress import BESIDE
from p2pmirror.store.cache.scratch import FirstWithRoom, Scratch
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.resolve.fakes import KeptSink, Script, Told, node
from tests.resolve.registry import World
from tests.resolve.test_swarm import (
    DATA,
    DIGEST,
    PIECE_BYTES,
    WRONG,
    answered,
    banned,
    honest,
    leader,
    node_among,
    pulled,
)

RATE = 10 * PIECE_BYTES  # of the registry: all of it takes 1.2 s
LATE = 7 * PIECE_BYTES  # of a first try, when it ends in the middle of a piece


@pytest.fixture
def files() -> MemoryFiles:
    return MemoryFiles(wall_s=time.time)


@asynccontextmanager
async def first_try(files: MemoryFiles, scripts: dict[int, Script] | None = None, **more: Any) -> AsyncIterator[World]:
    """Let a node fetch until it has a little more than half, and end it; the block sees it before it begins."""
    async with node_among(scripts or {}, files=files, has_registry=not scripts, **more) as world:
        world.conduct.bytes_per_s = RATE
        yield world
        await ends_when(world, lambda flight: flight.arrived > LATE)


async def ends_when(world: World, condition: Callable[[Flight], bool]) -> None:
    """Ask, and leave when it is so of the flight."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answered, world)
        while not any(condition(flight) for flight in world.flights.all()):  # noqa: ASYNC110  # a reader would poll too
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()


def halves(files: MemoryFiles) -> list[Path]:
    return [path for path in files.entries if path.name.startswith(".incoming") and not path.name.endswith(BESIDE)]


async def test_a_registry_is_asked_for_the_rest(files: MemoryFiles, autojump_clock: Any) -> None:
    """One question, which begins at the first missing piece; and the blob is kept, with nothing beside it."""
    async with first_try(files):
        pass
    assert len(halves(files)) == 1
    async with node_among({}, files=files, has_registry=True) as world:
        assert await answered(world) == DATA
        assert world.registries.sent_bytes == len(DATA) - 7 * PIECE_BYTES
        assert world.registries.count("blob") == 1
        await trio.sleep(1)
        assert halves(files) == []
        assert world.count("upstream_wrong_digests") == 0


async def test_when_nobody_waits_any_more(files: MemoryFiles, autojump_clock: Any) -> None:
    """A flight that is given up for want of readers is gone on with by whoever asks for it again, in the same agent."""
    async with node_among({}, files=files, has_registry=True) as world:
        world.conduct.bytes_per_s = len(DATA) / 200
        with trio.move_on_after(60):
            await answered(world)
        await trio.sleep(37)
        assert world.flights.all() == []
        sent = world.registries.sent_bytes
        assert sent > 4 * PIECE_BYTES
        world.conduct.bytes_per_s = None
        assert await answered(world) == DATA
        assert world.registries.sent_bytes <= len(DATA) + PIECE_BYTES


async def test_when_nobody_is_left_to_fetch_from(files: MemoryFiles, autojump_clock: Any) -> None:
    """A registry that breaks off, and comes back later, sends each piece once, and two of them twice at most."""
    async with node_among({}, files=files, has_registry=True) as world:
        world.conduct.bytes_per_s = RATE
        world.conduct.cuts = [LATE + 1000]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answered, world)
            await trio.sleep(0.5)
            world.conduct.is_down = True
        assert world.flights.all() == []
        world.conduct.is_down = False
        assert await answered(world) == DATA
        assert world.registries.sent_bytes <= len(DATA) + 2 * PIECE_BYTES


async def test_all_of_it_was_here(files: MemoryFiles, autojump_clock: Any) -> None:
    """Killed before it was kept: the registry is asked for one byte, since a source must answer before a client is."""
    cache = CacheStore(Path("/cache"), files, CacheOptions(free_bytes_min=0))
    incoming = await cache.receive(DIGEST, len(DATA), None, "", piece_bytes=PIECE_BYTES)
    for offset in range(0, len(DATA), PIECE_BYTES):
        await incoming.write(DATA[offset : offset + PIECE_BYTES])
    await incoming.leave()
    async with node_among({}, files=files, has_registry=True) as world:
        assert await answered(world) == DATA
        assert world.registries.sent_bytes <= 1
        assert world.registries.count("blob") == 1


@pytest.mark.parametrize("piece", [0, 3, 6])
async def test_what_is_torn_is_fetched_again(piece: int, files: MemoryFiles, autojump_clock: Any) -> None:
    """What comes after a changed bit is not believed, and everything before it is; the blob is right at once."""
    async with first_try(files):
        pass
    files.entries[halves(files)[0]].now[piece * PIECE_BYTES + 5] ^= 1
    async with node_among({}, files=files, has_registry=True) as world:
        world.conduct.bytes_per_s = RATE
        assert await answered(world) == DATA
        assert 0 <= world.registries.sent_bytes - (len(DATA) - piece * PIECE_BYTES) <= 2 * PIECE_BYTES
        assert world.count("flights_ended", outcome="failed") == 0


async def read_from_the_front(world: World) -> None:
    """Read all of it from a registry that takes a second for each piece: the first ones come soon."""
    world.conduct.bytes_per_s = PIECE_BYTES
    found = await world.find_blob(DIGEST)
    assert isinstance(found, Arriving)
    sink = KeptSink()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.pump, sink)
        await trio.sleep(3.5)
        assert len(sink.data) >= 2 * PIECE_BYTES
    found.close()
    assert sink.data == DATA


async def test_what_is_torn_comes_before_what_nobody_has_read(files: MemoryFiles, autojump_clock: Any) -> None:
    """A reader does not wait for the end of the blob because a piece near its beginning was torn."""
    async with first_try(files):
        pass
    files.entries[halves(files)[0]].now[PIECE_BYTES + 5] ^= 1
    async with node_among({}, files=files, has_registry=True) as world:
        await read_from_the_front(world)


async def test_a_half_of_another_length(files: MemoryFiles, autojump_clock: Any) -> None:
    """Who said before that it is longer is forgotten: the registry has no such byte, and is asked from the first."""
    cache = CacheStore(Path("/cache"), files, CacheOptions(free_bytes_min=0))
    incoming = await cache.receive(DIGEST, 20 * PIECE_BYTES, None, "", piece_bytes=PIECE_BYTES)
    for _ in range(15):
        await incoming.write(bytes(PIECE_BYTES))
    await incoming.leave()
    async with node_among({}, files=files, has_registry=True) as world:
        assert await answered(world) == DATA
        assert world.registries.sent_bytes == len(DATA)
        await trio.sleep(1)
        assert halves(files) == []


async def test_a_half_that_has_no_room_any_more(files: MemoryFiles, autojump_clock: Any) -> None:
    """Where it cannot be gone on with the blob comes from its first byte, in order: no reader waits for its end."""
    async with first_try(files):
        pass
    small = CacheStore(Path("/cache"), files, CacheOptions(free_bytes_min=0, bytes_max=len(DATA) - 1))
    scratch = Scratch(Path("/scratch"), MemoryFiles(), 2 * len(DATA), free_bytes_min=0)
    async with node_among({}, files=files, has_registry=True) as world:
        world.flights._room = FirstWithRoom(small, scratch)
        await read_from_the_front(world)


async def test_a_registry_that_refuses_is_asked_once(files: MemoryFiles, autojump_clock: Any) -> None:
    """A half makes no second question of one that was refused; and it is still there afterwards."""
    async with first_try(files):
        pass
    async with node_among({}, files=files, has_registry=True) as world:
        world.misbehave("401")
        assert await answered(world) is None
        assert world.registries.count("blob") == 1
    assert len(halves(files)) == 1


# --- old bytes that are wrong ---


@pytest.mark.parametrize("now", ["a registry", "a peer that has all", "a leader and a peer"])
async def test_nobody_is_blamed_for_old_bytes(now: str, files: MemoryFiles, autojump_clock: Any) -> None:
    """What came wrong before a restart is noted as it came: the digest tells, and then it is fetched anew and right.

    Nobody who sent the rest is banned or counted, neither the registry nor peers.
    """
    scripts: dict[int, Script] = {
        "a registry": {},
        "a peer that has all": {1: Script(DATA, chunk_s=0.0)},
        "a leader and a peer": {1: leader(have=set(range(6))), 2: honest(have=set(range(6, 12)))},
    }[now]
    async with first_try(files) as world:
        world.conduct.falsify = lambda _: WRONG
    async with node_among(scripts, files=files, has_registry=not scripts) as world:
        assert await pulled(world) <= 2
        assert not any(banned(world, number) for number in (1, 2))
        assert world.count("upstream_wrong_digests") == world.count("wrong_digests") == 0
        await trio.sleep(40)
        assert halves(files) == []


async def test_a_liar_after_a_restart_is_found_all_the_same(files: MemoryFiles, autojump_clock: Any) -> None:
    """Right old bytes and wrong new ones end wrong too; the blob that is begun anew shows who lies."""
    async with first_try(files):
        pass
    async with node_among({}, files=files, has_registry=True) as world:
        world.conduct.falsify = lambda _: WRONG
        for _ in range(3):
            assert await answered(world) is None
            await trio.sleep(1)
        assert world.count("upstream_wrong_digests") >= 1
        world.conduct.falsify = bytes
        assert await pulled(world) == 1


# --- peers ---


async def test_peers_are_asked_for_what_is_missing(files: MemoryFiles, autojump_clock: Any) -> None:
    """Pieces that peers gave, in whatever order, are not asked for again, and those of others are taken as before."""
    first = {1: honest(have={0, 2}), 2: leader(have={0, 1, 2, 3, 4, 5, 9, 11})}
    async with node_among(first, files=files) as world:
        await ends_when(world, lambda flight: len(flight.have) == 8)
    second = {3: honest(), 4: leader()}
    async with node_among(second, files=files) as world:
        assert await pulled(world) == 1
    offsets = {question.offset for question in second[3].asked if question.count} | {
        index * PIECE_BYTES for index in second[4].told.given
    }
    assert offsets == {index * PIECE_BYTES for index in (6, 7, 8, 10)}


async def test_a_peer_that_has_all_is_asked_for_the_rest(files: MemoryFiles, autojump_clock: Any) -> None:
    """Its stream is opened behind what is here; where it has no such byte it is asked from the first."""
    slow = Script(DATA, chunk=PIECE_BYTES, chunk_s=0.05)
    async with first_try(files, {1: slow}):
        pass
    script = Script(DATA, chunk_s=0.0)
    async with node_among({1: script}, files=files) as world:
        assert await answered(world) == DATA
    assert [question.offset for question in script.asked] == [0, 8 * PIECE_BYTES]


async def test_a_piece_that_differs_from_what_is_claimed_is_not_believed(
    files: MemoryFiles, autojump_clock: Any
) -> None:
    """An old piece with another hash than a peer claims is fetched again: whoever is right, nobody is given both."""
    first = {1: Script(WRONG, chunk_s=0.0, told=Told(PIECE_BYTES, spreads=True, have=set(range(1, 9))))}
    async with node_among(first, files=files) as world:
        await ends_when(world, lambda flight: len(flight.have) == 8)
    async with node_among({2: leader()}, files=files) as world:
        assert await pulled(world) == 1
        assert not banned(world, 2)
        assert not world.scores.banned(node(1), DIGEST, trio.current_time())


# --- readers ---


class SlowFiles(MemoryFiles):
    """A disk that takes a second to read anything of a half, once it is `slow`."""

    slow = False

    async def step(self) -> None:
        await super().step()
        if self.slow:
            await trio.sleep(0.1)


async def test_readers_follow_at_once(autojump_clock: Any) -> None:
    """They are given what has been hashed while the rest still is, and what the registry sends meanwhile counts."""
    files = SlowFiles(wall_s=time.time)
    async with first_try(files):
        pass
    async with node_among({}, files=files, has_registry=True) as world:
        files.slow = True
        began = trio.current_time()
        found = await world.find_blob(DIGEST)
        assert isinstance(found, Arriving)
        sink, at = KeptSink(), list[float]()

        async def watch() -> None:
            while not sink.data:  # noqa: ASYNC110  # the sink of a test tells nobody
                await trio.sleep(0.01)
            at.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await found.pump(sink)
        found.close()
        assert sink.data == DATA
        assert at[0] < (trio.current_time() - began) / 2
        assert world.registries.sent_bytes == len(DATA) - 7 * PIECE_BYTES


async def test_a_range_behind_it_does_not_wait(files: MemoryFiles, autojump_clock: Any) -> None:
    """A reader of what is to come is served while old bytes are hashed, and one of old bytes when those have been."""
    async with first_try(files):
        pass
    async with node_among({}, files=files, has_registry=True) as world:
        found = await world.find_blob(DIGEST, f"bytes={8 * PIECE_BYTES}-{9 * PIECE_BYTES - 1}")
        assert isinstance(found, Arriving)
        sink = KeptSink()
        await found.pump(sink)
        found.close()
        assert sink.data == DATA[8 * PIECE_BYTES : 9 * PIECE_BYTES]
        assert Digest.of(await answered(world) or b"") == DIGEST


async def test_a_disk_that_cannot_read_it_back(files: MemoryFiles, autojump_clock: Any) -> None:
    """A half that cannot be read any more costs nobody his pull."""
    async with first_try(files):
        pass
    async with node_among({}, files=files, has_registry=True) as world:
        files.unreadable.add(halves(files)[0])
        with trio.move_on_after(60):
            await answered(world)
        files.unreadable.clear()
        assert await pulled(world) <= 2
