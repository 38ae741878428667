"""The registries in memory keep every law of upstreams, and fail as they are told."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.errors import NotHere, Unreachable, UpstreamRefused
from p2pmirror.upstream.memory import MemoryRegistries, MemoryUpstream
from tests.registries.holdings import Holdings
from tests.upstream.conformance import REGISTRY, UpstreamConformance, read, read_into


class MemoryWorld:
    def __init__(self) -> None:
        self.holdings = held = Holdings()
        self.registries = MemoryRegistries(REGISTRY)
        for blob in held.blobs:
            self.registries.put_blob(REGISTRY, held.repository, blob)
        for data, media_type, tags in held.documents:
            self.registries.put_document(REGISTRY, held.repository, data, media_type, *tags)
        self.upstream = MemoryUpstream(self.registries)

    async def be_away(self) -> None:
        self.registries.conduct[REGISTRY].is_down = True

    async def be_back(self) -> None:
        self.registries.conduct[REGISTRY].is_down = False


@pytest.fixture
async def world(autojump_clock: MockClock) -> MemoryWorld:
    return MemoryWorld()


class TestMemoryUpstream(UpstreamConformance):
    """See the suite."""


async def test_it_is_slow_as_told(world: MemoryWorld) -> None:
    """An answer takes the latency, and a download its rate."""
    conduct = world.registries.conduct[REGISTRY]
    conduct.latency_s, conduct.bytes_per_s = 2.0, 100_000
    began = trio.current_time()
    async with world.upstream.blob(REGISTRY, world.holdings.repository, world.holdings.layer_digest) as download:
        assert trio.current_time() - began == 2.0
        await read(download)
    assert trio.current_time() - began == pytest.approx(5.0)


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_it_refuses_as_told(world: MemoryWorld, status: int) -> None:
    """Every question is refused with the status; a registry that fails has not answered."""
    world.registries.conduct[REGISTRY].status = status
    with pytest.raises(UpstreamRefused) as caught:
        await world.upstream.resolve(REGISTRY, world.holdings.repository, "v1")
    assert caught.value.status == status
    assert world.upstream.is_reachable(REGISTRY) == (status < 500)


async def test_it_cuts_and_lies_as_told(world: MemoryWorld) -> None:
    """A download breaks after its bytes, the next one does not, and both bring the bytes that were told."""
    held = world.holdings
    conduct = world.registries.conduct[REGISTRY]
    conduct.cuts, conduct.falsify = [100_000], lambda data: data[::-1]
    async with world.upstream.blob(REGISTRY, held.repository, held.layer_digest) as download:
        got = bytearray()
        with pytest.raises(Unreachable):
            await read_into(download, got)
    assert got == held.layer[::-1][:100_000]
    async with world.upstream.blob(REGISTRY, held.repository, held.layer_digest, start=100_000) as download:
        assert await read(download) == held.layer[::-1][100_000:]
    assert world.registries.sent[held.layer_digest] == len(held.layer)
    assert world.registries.count("blob") == world.registries.count("blob", held.layer_digest) == 2


async def test_it_is_silent_as_told_and_counts(world: MemoryWorld) -> None:
    """A silent registry keeps askers waiting; what was asked is known; a tag that is removed is not here."""
    held = world.holdings
    world.registries.conduct[REGISTRY].is_silent = True
    with trio.move_on_after(60) as scope:
        await world.upstream.resolve(REGISTRY, held.repository, "v1")
    assert scope.cancelled_caught
    world.registries.conduct[REGISTRY].is_silent = False
    world.registries.remove_tag(REGISTRY, held.repository, "v1")
    with pytest.raises(NotHere):
        await world.upstream.resolve(REGISTRY, held.repository, "v1")
    assert world.registries.count("resolve", "v1") == 2
