"""Flights, and those who ask of them, cancelled anywhere: nothing stays open, and nothing was given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from p2pmirror.errors import NotHere
from p2pmirror.resolve.sharing import next_piece, piece_map
from p2pmirror.resolve.turns import Turns
from p2pmirror.resolve.want import Arriving
from p2pmirror.store.cache.progress import BESIDE
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.cancellation import cancel_at_every_checkpoint
from tests.resolve.fakes import Script, Told, node
from tests.resolve.registry import World
from tests.resolve.test_swarm import DATA, DIGEST, PIECE_BYTES, WRONG, honest, leader, node_among, pulled

LONG = pytest.mark.long
SHORT = DATA[: 3 * PIECE_BYTES - 5]  # what is cancelled some hundred times has few pieces
SOURCES: dict[str, dict[int, Script]] = {
    "a registry": {},
    "a leader": {1: leader()},
    "a registry and peers": {1: honest(have={0, 2}), 2: honest(have={1})},
    "a leader and peers": {1: leader(), 2: honest(have={0, 2})},
    "a peer that has all": {1: Script(DATA, chunk=400_000)},
    "a leader that lies, and another": {1: Script(WRONG, told=Told(PIECE_BYTES, spreads=True)), 2: leader()},
}


AT_ONCE = ["a registry", "a peer that has all", "a leader"]  # the others have many more checkpoints


@pytest.mark.parametrize("sources", [each if each in AT_ONCE else pytest.param(each, marks=LONG) for each in SOURCES])
async def test_a_whole_flight(sources: str, autojump_clock: Any) -> None:
    """Wherever it is when its node ends, no answer of a peer is left open, no task, and no half but one with notes."""
    files, worlds, tasks = MemoryFiles(), list[World](), trio.lowlevel.current_statistics().tasks_living

    async def fly() -> None:
        scripts = {
            number: replace(
                script, data=script.data[: len(SHORT)], asked=[], told=script.told and replace(script.told, given=[])
            )
            for number, script in SOURCES[sources].items()
        }
        async with node_among(scripts, has_registry="registry" in sources, files=files, data=SHORT) as world:
            worlds.append(world)
            await pulled(world)

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert sum(world.peers.open for world in worlds) == 0
        worlds.clear()
        assert not [path for path, content in files.entries.items() if content.holder is not None]
        halves = {path.name.removesuffix(BESIDE) for path in files.entries if "incoming" in path.name}
        assert len(halves) <= 1, "of one digest"
        assert not halves or {path.name for path in files.entries} >= {half + BESIDE for half in halves}
        files.entries.clear()

    assert await cancel_at_every_checkpoint(fly, check) > 20


async def test_questions_about_a_flight(autojump_clock: Any) -> None:
    """Whoever leaves while he waits for news or for a piece has been given none; the next one has what there is."""
    async with node_among({}, has_registry=True) as world:
        world.conduct.bytes_per_s = 100_000
        found = await world.find_blob(DIGEST)
        assert isinstance(found, Arriving)
        (flight,) = world.flights.all()
        lacks, turns = b"\xff\xf0", Turns()

        async def ask_map() -> None:
            told = await piece_map(flight, node(99), node(1), since=flight.seq, wait_s=3.0)
            assert told.size == len(DATA)

        async def ask_piece() -> None:
            piece = await next_piece(flight, turns, node(1), first=0, lacks=lacks, wait_s=3.0)
            assert piece is not None
            piece.file.close()
            piece.ended(False)

        async def check() -> None:
            await trio.lowlevel.checkpoint()
            assert turns.held == 0
            assert not any(flight.spreading("").is_given(index) for index in range(12))

        assert await cancel_at_every_checkpoint(ask_map, check) > 0
        assert await cancel_at_every_checkpoint(ask_piece, check) > 0
        found.close()


async def test_questions_to_a_resolver(autojump_clock: Any) -> None:
    """The same through the resolver, where there is a flight and where there is none."""
    async with node_among({}, has_registry=True) as world:
        with pytest.raises(NotHere):
            await world.resolver.flight_map(DIGEST, node(1), since=0, wait_s=1.0)
        world.conduct.bytes_per_s = 100_000
        found = await world.find_blob(DIGEST)
        assert isinstance(found, Arriving)
        (flight,) = world.flights.all()

        async def ask() -> None:
            await world.resolver.flight_map(DIGEST, node(1), since=flight.seq, wait_s=3.0)
            piece = await world.resolver.flight_piece(DIGEST, node(1), first=0, lacks=b"\xff\xf0", wait_s=3.0)
            assert piece is not None
            piece.file.close()
            piece.ended(False)

        async def check() -> None:
            await trio.lowlevel.checkpoint()
            assert not any(flight.spreading("").is_given(index) for index in range(12))

        assert await cancel_at_every_checkpoint(ask, check) > 1
        found.close()
