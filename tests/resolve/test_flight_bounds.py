"""Flights of nothing, of a byte and of far too much, and askers by the thousand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from p2pmirror.errors import MirrorError
from p2pmirror.resolve.sharing import FOLLOWERS_KEPT_MAX, piece_map
from p2pmirror.resolve.want import Arriving
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.identity import NodeId
from tests.resolve.fakes import KeptSink, Script, Told, node
from tests.resolve.test_swarm import DATA, DIGEST, PIECE_BYTES, SIZES, banned, node_among, pulled

POLLERS = 1500
MUCH = 100 << 30


@pytest.mark.parametrize("has_registry", [False, True])
@pytest.mark.parametrize("size", [0, 1])
async def test_the_smallest_blobs(autojump_clock: Any, size: int, has_registry: bool) -> None:
    """Nothing, and one byte, come from a leader as from a registry, in the first answer."""
    data = DATA[:size]
    scripts = {} if has_registry else {1: Script(data, told=Told(SIZES.of(size), spreads=True))}
    async with node_among(scripts, has_registry=has_registry, data=data) as world:
        assert await pulled(world) == 1


async def test_one_that_says_much_and_ends_early(autojump_clock: Any) -> None:
    """A peer that announces 100 GiB and sends a megabyte costs no memory, and another one is asked next time."""
    files = MemoryFiles()
    scripts = {1: Script(DATA, size=MUCH, chunk_s=0.0), 2: Script(DATA)}
    async with node_among(scripts, files=files) as world:
        began = trio.current_time()
        await pulled(world)
        assert trio.current_time() - began < 20
        assert sum(len(each.now) for each in files.entries.values()) < 10 * len(DATA)


async def test_a_registry_that_says_much_and_ends_early(autojump_clock: Any) -> None:
    """The answer is cut where the bytes end, soon, and nothing is left of it."""
    files = MemoryFiles()
    async with node_among({}, has_registry=True, files=files) as world:
        world.conduct.cuts = [PIECE_BYTES] * 20
        found = await world.find_blob(DIGEST)
        assert isinstance(found, Arriving)
        sink = KeptSink()
        with pytest.raises(MirrorError), trio.fail_after(60):
            await found.pump(sink)
        found.close()
        assert sink.sent < len(DATA)
        await trio.sleep(1)
        assert not [path for path in files.entries if path.is_relative_to(Path("/cache/blobs"))]


async def test_polls_by_the_thousand(autojump_clock: Any) -> None:
    """All wait for as long as they said, all hear of the same piece, and what is remembered of them has a limit."""
    async with node_among({}, has_registry=True) as world:
        world.conduct.bytes_per_s = 10_000
        found = await world.find_blob(DIGEST)
        (flight,) = world.flights.all()
        told: list[int] = []

        async def poll(number: int) -> None:
            asker = NodeId(number.to_bytes(20, "big"))
            told.append(len((await piece_map(flight, node(99), asker, since=flight.seq, wait_s=30.0)).have))

        async with trio.open_nursery() as nursery:
            for number in range(POLLERS):
                nursery.start_soon(poll, number)
            await trio.sleep(1)
            assert len(flight.followers) == FOLLOWERS_KEPT_MAX
            await trio.sleep(4)
            assert told == []
        assert (len(told), set(told)) == (POLLERS, {0})
        async with trio.open_nursery() as nursery:
            for number in range(POLLERS):
                nursery.start_soon(poll, number)
            await trio.sleep(1)
            world.conduct.bytes_per_s = 1_000_000
        assert set(told[POLLERS:]) != {0}
        assert not banned(world, 1)
        found.close()  # type: ignore[union-attr]
