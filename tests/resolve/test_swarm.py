"""Blobs in pieces from peers, of whom some lie: the right bytes soon, wrong ones never, and liars asked no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from p2pmirror.errors import MirrorError
from p2pmirror.oci import Digest
from p2pmirror.peers.piecemap import Bitmap, PieceMap
from p2pmirror.peers.protocol import Follow
from p2pmirror.resolve.flight import FOLLOWER_S, PieceSizes
from p2pmirror.resolve.flights import LINGER_S
from p2pmirror.resolve.want import Arriving, Found, Held, Trail, Want
from p2pmirror.routing.protocol import Offer, Provider, key_of
from p2pmirror.store.cache import CacheOptions, CacheStore
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.resolve.fakes import KeptSink, Script, ScriptedPeers, Told, address, node
from tests.resolve.registry import REGISTRY, REPOSITORY, World

PIECE_BYTES = 100_000
SIZES = PieceSizes(PIECE_BYTES, 2 * PIECE_BYTES)
DATA = Random(1).randbytes(12 * PIECE_BYTES - 5)
DIGEST = Digest.of(DATA)
WRONG = bytes(byte ^ (index % PIECE_BYTES == 7) for index, byte in enumerate(DATA))
ATTEMPTS_MAX = 6  # containerd asks again for what a response lacked, and the kubelet for the whole image


@asynccontextmanager
async def node_among(
    scripts: dict[int, Script],
    *,
    has_registry: bool = False,
    files: MemoryFiles | None = None,
    data: bytes = DATA,
) -> AsyncIterator[World]:
    """Run a node whose peers do as scripted: whoever `spreads` leads, the others have parts."""
    cache = CacheStore(Path("/cache"), files or MemoryFiles(), CacheOptions(free_bytes_min=0))
    peers = ScriptedPeers(scripts)
    async with trio.open_nursery() as nursery, World(cache=cache, peers=peers, sizes=SIZES) as world:
        digest = world.digest = Digest.of(data)
        await nursery.start(cache.run)
        if has_registry:
            world.registries.put_blob(REGISTRY, REPOSITORY, data)
        for number, script in scripts.items():
            leads = script.told is not None and script.told.spreads
            complete = script.told is None
            provider = Provider(node(number), address(number), complete=complete, leading=leads)
            world.routers.say(key_of(digest), provider)
            if leads:
                router = world.routers.router(node(number), address(number))
                router.advertise({key_of(digest): Offer(complete=False, leading=True)})
        yield world
        nursery.cancel_scope.cancel()


async def answered(world: World) -> bytes | None:
    """Ask once; return what came with a clean end, None when none did."""
    try:
        found = await world.find_blob(world.digest)
    except MirrorError:
        return None
    if isinstance(found, Held):
        with closing(found.file):
            return await found.file.read_at(0, found.file.size)
    assert isinstance(found, Arriving)
    sink = KeptSink()
    try:
        await found.pump(sink)
    except MirrorError:
        return None
    finally:
        found.close()
    assert len(sink.data) == found.end - found.start
    return bytes(sink.data)


async def pulled(world: World) -> int:
    """Ask until all of it has come, which must be right; return how often that took."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        data = await answered(world)
        if data is not None:
            assert world.digest == Digest.of(data)
            return attempt
        await trio.sleep(0.5)
    raise AssertionError(f"no right answer in {ATTEMPTS_MAX} attempts")


def honest(**told: Any) -> Script:
    return Script(DATA, chunk_s=0.0, told=Told(PIECE_BYTES, **told))


def leader(**told: Any) -> Script:
    return honest(spreads=True, **told)


def banned(world: World, number: int) -> bool:
    return world.scores.banned(node(number), DIGEST, trio.current_time())


async def test_what_has_just_come_is_given_to_one_peer_at_a_time(autojump_clock: Any) -> None:
    """Before it is kept as after: who is second follows the first, and has it from here once that one has."""
    async with node_among({1: Script(DATA)}) as world:
        assert await pulled(world) == 1
        assert world.flights is not None
        assert world.flights.all(), "it lingers, and is not in the cache yet"

        async def asked_by(number: int) -> Found:
            want = Want("blob", REGISTRY, REPOSITORY, DIGEST, from_peer=node(number), follows=True)
            return await world.resolver.find(want, Trail())

        first = await asked_by(2)
        with pytest.raises(Follow) as told:
            await asked_by(3)
        assert told.value.leader == node(2)
        first.close()  # type: ignore[union-attr]
        (await asked_by(3)).close()  # type: ignore[union-attr]


@pytest.mark.parametrize("script", [leader(), Script(DATA)], ids=["in pieces", "whole"])
async def test_what_goes_in_pieces_is_not_given_whole(autojump_clock: Any, script: Script) -> None:
    """Whoever comes late is told to take pieces, since others do, or this node did; when that is long ago he has it."""
    async with node_among({1: script}) as world:
        assert await pulled(world) == 1
        if script.told is None:
            await world.resolver.flight_map(DIGEST, node(2), since=0, wait_s=0.0)
        want = Want("blob", REGISTRY, REPOSITORY, DIGEST, from_peer=node(3), follows=True)
        with pytest.raises(Follow) as told:
            await world.resolver.find(want, Trail())
        assert told.value.leader == world.router.node_id
        _let_go(await world.resolver.find(replace(want, follows=False), Trail()))
        await trio.sleep(FOLLOWER_S if script.told is None else LINGER_S + 1.0)
        _let_go(await world.resolver.find(want, Trail()))


def _let_go(found: Found) -> None:
    """Close an answer that nobody reads."""
    (found.file if isinstance(found, Held) else found).close()  # type: ignore[union-attr]


async def test_pieces_of_a_leader_and_of_others_make_a_blob(autojump_clock: Any) -> None:
    """What one peer has and what another has come together, and it ends with the last piece, not some time after."""
    scripts = {1: leader(have=set(range(6))), 2: honest(have=set(range(6, 12)))}
    async with node_among(scripts) as world:
        began = trio.current_time()
        assert await pulled(world) == 1
        assert trio.current_time() - began < 1.0
        assert world.peers.open == 0
        assert not banned(world, 1)


def says(**changes: Any) -> Callable[[PieceMap], PieceMap]:
    return lambda told: replace(told, **changes)


def of_size(size: int) -> Callable[[PieceMap], PieceMap]:
    """Lie about the length, and have all of that."""
    count = -(-size // SIZES.of(size))
    have = Bitmap.read(((1 << count) - 1 << -count % 8).to_bytes(-(-count // 8), "big"), count)
    return lambda told: replace(told, size=size, piece_bytes=SIZES.of(size), have=have, hashes={})


SIZES_TOLD = [0, 1, len(DATA) - 1, len(DATA) + 1, 2 * len(DATA), 100 << 30]


@pytest.mark.parametrize("spreads", [False, True])
@pytest.mark.parametrize("size", SIZES_TOLD)
async def test_who_lies_first_about_the_length(autojump_clock: Any, size: int, spreads: bool) -> None:
    """Whoever asks again after the lie gets the right bytes from the others, soon, and the liar is asked no more."""
    scripts = {1: Script(DATA, chunk_s=0.0, told=Told(PIECE_BYTES, spreads=spreads, lie=of_size(size))), 2: leader()}
    scripts[2].head_s = 0.3
    async with node_among(scripts) as world:
        began = trio.current_time()
        await pulled(world)
        assert trio.current_time() - began < 15
        assert banned(world, 1)
        assert not banned(world, 2)


@pytest.mark.parametrize("size", SIZES_TOLD)
async def test_who_lies_later_about_the_length(autojump_clock: Any, size: int) -> None:
    """A flight whose length is right goes on as if nothing had been said, and the liar is known in the end."""
    scripts = {1: Script(DATA, head_s=0.2, told=Told(PIECE_BYTES, lie=of_size(size))), 2: leader()}
    scripts[2].chunk_s = 0.1
    async with node_among(scripts) as world:
        assert await pulled(world) == 1
        assert banned(world, 1)
        assert not banned(world, 2)


@pytest.mark.parametrize("size", SIZES_TOLD)
async def test_the_registry_knows_better(autojump_clock: Any, size: int) -> None:
    """A peer that has parts lies about the length before the registry answers: the blob comes from there, once."""
    scripts = {1: Script(DATA, told=Told(PIECE_BYTES, lie=of_size(size)))}
    async with node_among(scripts, has_registry=True) as world:
        world.conduct.latency_s = 0.5
        await pulled(world)
        assert banned(world, 1)
        assert world.registries.sent_bytes <= 2 * len(DATA)


LIES: dict[str, Script] = {
    "wrong bytes": Script(WRONG, told=Told(PIECE_BYTES, claims=DATA)),
    "wrong bytes with their hashes": Script(WRONG, told=Told(PIECE_BYTES)),
    "wrong hashes": Script(DATA, told=Told(PIECE_BYTES, claims=WRONG)),
    "hashes of another author": Script(WRONG, told=Told(PIECE_BYTES, author=node(2))),
    "pieces of another length": Script(DATA, told=Told(PIECE_BYTES, lie=says(piece_bytes=PIECE_BYTES // 2))),
    "pieces that it does not give": Script(DATA, told=Told(PIECE_BYTES), missing=frozenset(range(12))),
    "pieces that end early": Script(DATA, break_at=50_000, told=Told(PIECE_BYTES)),
    "pieces that stand still": Script(DATA, stall_at=50_000, told=Told(PIECE_BYTES)),
    "progress without end": Script(DATA, told=Told(PIECE_BYTES, have=set(), lie=says(seq=1 << 40))),
    "followers that nobody knows": Script(DATA, told=Told(PIECE_BYTES, followers=tuple(map(node, range(20, 36))))),
}


@pytest.mark.parametrize("leads", [False, True])
@pytest.mark.parametrize("lie", LIES)
async def test_a_liar_among_honest_peers(autojump_clock: Any, lie: str, leads: bool) -> None:
    """Whatever one peer says or sends, also as a leader, the right bytes come within seconds, and no others."""
    script = LIES[lie]
    assert script.told is not None
    liar = replace(script, asked=[], told=replace(script.told, spreads=leads, given=[]))
    async with node_among({1: liar, 2: leader(), 3: honest()}) as world:
        began = trio.current_time()
        await pulled(world)
        assert trio.current_time() - began < 20
        assert world.peers.open == 0
        assert not banned(world, 2)


@pytest.mark.parametrize("lie", LIES)
async def test_a_liar_alone_and_a_registry(autojump_clock: Any, lie: str) -> None:
    """A leader that lies is got over: within what a client waits the bytes come from the registry."""
    script = LIES[lie]
    assert script.told is not None
    liar = replace(script, asked=[], told=replace(script.told, spreads=True, given=[]))
    async with node_among({1: liar}, has_registry=True) as world:
        began = trio.current_time()
        await pulled(world)
        assert trio.current_time() - began < 35
        assert world.registries.sent_bytes <= 2 * len(DATA)


async def test_those_who_believed_the_same_liar(autojump_clock: Any) -> None:
    """Peers that still pass a liar's claims and pieces on harm neither the next flight nor the honest leader."""
    stale = Script(WRONG, told=Told(PIECE_BYTES, author=node(1)))
    mixed = says(author=node(2), others={node(1): tuple(range(12))})
    scripts = {
        1: Script(WRONG, chunk_s=0.0, told=Told(PIECE_BYTES, spreads=True)),
        2: replace(leader(), head_s=0.5),
        3: stale,
        4: replace(stale, asked=[], told=Told(PIECE_BYTES, lie=mixed)),
    }
    async with node_among(scripts) as world:
        assert await pulled(world) == 2
        assert [banned(world, number) for number in (1, 2, 3, 4)] == [True, False, False, False]


async def test_those_who_pass_on_what_a_banned_liar_claims(autojump_clock: Any) -> None:
    """They are not taken for liars themselves, however often what they tell turns out wrong."""
    stale = Script(WRONG, chunk_s=0.0, told=Told(PIECE_BYTES, author=node(1)))
    scripts = {2: replace(leader(), head_s=0.5), 3: stale, 4: replace(stale, asked=[])}
    async with node_among(scripts) as world:
        world.scores.ban(node(1), DIGEST, trio.current_time(), "an earlier flight")
        await pulled(world)
        assert [banned(world, number) for number in (1, 2, 3, 4)] == [True, False, False, False]


async def test_whoever_waits_when_bytes_turn_out_wrong(autojump_clock: Any) -> None:
    """All who have read of wrong bytes end early; the flight begins anew by itself, without the liar."""
    liar = Script(WRONG, chunk_s=0.0, told=Told(PIECE_BYTES, spreads=True))
    async with node_among({1: liar, 2: replace(leader(), head_s=1.0)}) as world:
        assert await answered(world) is None
        assert banned(world, 1)
        assert [each.failed for each in world.flights.all()] == [None]
        assert sha256(await answered(world) or b"").digest() == sha256(DATA).digest()
