"""Zones: what another zone has comes over the border once, by one node, and from there to the others of its zone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.oci import Digest
from p2pmirror.resolve.flight import PieceSizes
from simulations.registry import NAME, SimulatedRegistry
from tests.node.cluster import Cluster, Member, cluster
from tests.node.test_seed import fetched, pull_everywhere

DATA = Random(2).randbytes(960 << 10)
DIGEST = Digest.of(DATA)
PATH = f"/v2/app/blobs/{DIGEST}"
SIZES = PieceSizes(96 << 10, 192 << 10)
RATE = 2 * len(DATA)  # of each node's link: the blob takes half a second


@asynccontextmanager
async def zoned(*zones: str, **settings: Any) -> AsyncIterator[tuple[Cluster, SimulatedRegistry]]:
    """Run a node for each of these zones, and a registry that has `DATA`."""
    async with cluster() as nodes, trio.open_nursery() as nursery:
        nodes.world.traffic.step_bytes = 16 << 10  # an eighth of a piece
        registry = SimulatedRegistry(nodes.world, rate=RATE)
        await nursery.start(registry.run)
        registry.put(DATA)
        for zone in zones:
            member = nodes.make(
                zone=zone, store="none", cache_dir="/cache", registries=registry.settings, piece_sizes=SIZES, **settings
            )
            nodes.world.set_rates(member.network, upload_rate=RATE, download_rate=RATE)
            await nodes.start(member)
        await nodes.ready()
        yield nodes, registry
        await nodes.end()
        nursery.cancel_scope.cancel()


async def crossed(nodes: Cluster, zone: str) -> int:
    """Return how many bytes have come from other zones to the nodes of one."""
    told = [await nodes.page_json(member, "/api/v1/status") for member in nodes.members]
    own = [each for each in told if each["members"][0]["zone"] == zone]
    return sum(each["cross_zone_bytes"] for each in own)


async def led(nodes: Cluster) -> str:
    """Return the zone of the node that had it from the registry."""
    zones = []
    for member in nodes.members:
        if await fetched(nodes, member):
            status = await nodes.page_json(member, "/api/v1/status")
            zones.append(status["members"][0]["zone"])
    (zone,) = zones
    return str(zone)


@pytest.mark.parametrize(
    "zones", ["aabb", pytest.param("aabbcc", marks=pytest.mark.long), pytest.param("abbbbb", marks=pytest.mark.long)]
)
async def test_a_cold_blob_crosses_each_border_once(zones: str, autojump_clock: MockClock) -> None:
    """The registry sends it once; every zone but the leader's takes one copy from outside, and that zone takes none."""
    async with zoned(*zones) as (nodes, registry):
        await pull_everywhere(nodes, nodes.members, DATA)
        assert registry.sent_bytes <= 1.05 * len(DATA)
        own = await led(nodes)
        for zone in set(zones):
            count = await crossed(nodes, zone)
            assert count == 0 if zone == own else len(DATA) <= count <= 1.2 * len(DATA), (zone, own, count)


async def test_what_a_far_node_holds_crosses_once(autojump_clock: MockClock) -> None:
    """A zone that pulls what another one has takes one copy over the border, whoever in it asks first."""
    async with zoned(*"aabbb") as (nodes, registry):
        await pull_everywhere(nodes, nodes.members[:2], DATA)
        await nodes.until_known(nodes.members[2], DIGEST, {each.id for each in nodes.members[:2]}, 60.0)
        registry.is_gone = True
        await pull_everywhere(nodes, nodes.members[2:], DATA)
        assert len(DATA) <= await crossed(nodes, "b") <= 1.2 * len(DATA)
        assert await crossed(nodes, "a") == 0


async def test_the_zone_goes_on_when_its_node_at_the_border_dies(autojump_clock: MockClock) -> None:
    """Whoever brings it in dies half-way: another node does it, and every pull ends right."""
    async with zoned(*"aabbb") as (nodes, registry):
        await pull_everywhere(nodes, nodes.members[:2], DATA)
        await nodes.until_known(nodes.members[2], DIGEST, {each.id for each in nodes.members[:2]}, 60.0)
        registry.is_gone = True
        border: list[Member] = []

        async def kill() -> None:
            while not border:
                await trio.sleep(0.02)
                for member in nodes.members[2:]:
                    status = await nodes.page_json(member, "/api/v1/status")
                    if status["cross_zone_bytes"] > len(DATA) // 4:
                        border.append(member)
            nodes.kill(border[0])

        async def pull(member: Member) -> None:
            answer = await nodes.get(member, PATH, ns=NAME)
            assert member in border or (answer.status, answer.cut, answer.body == DATA) == (200, False, True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            for member in nodes.members[2:]:
                nursery.start_soon(pull, member)
        assert len(border) == 1


async def test_without_zones_nothing_is_far(autojump_clock: MockClock) -> None:
    """Nodes that do not say where they are take from whoever has it, and none of it counts as crossing."""
    async with zoned(*[""] * 4) as (nodes, registry):
        await pull_everywhere(nodes, nodes.members, DATA)
        assert registry.sent_bytes <= 1.05 * len(DATA)
        assert await crossed(nodes, "") == 0
