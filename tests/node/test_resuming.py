"""A node that ends while a blob arrives has what came when it starts again: its registry sends the rest alone."""

import time
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
from tests.node.cluster import Cluster, CountingFiles, Member, cluster
from tests.node.test_seed import pull_everywhere

PIECE_BYTES = 96 << 10
SIZES = PieceSizes(PIECE_BYTES, 2 * PIECE_BYTES)
DATA = Random(3).randbytes(64 * PIECE_BYTES - 5)
PATH = f"/v2/app/blobs/{Digest.of(DATA)}"
RATE = len(DATA) / 2  # of the registry: it takes two seconds


@asynccontextmanager
async def world(count: int) -> AsyncIterator[tuple[Cluster, SimulatedRegistry]]:
    """Run so many nodes with caches, and a registry that has `DATA`."""
    async with cluster() as nodes, trio.open_nursery() as nursery:
        registry = SimulatedRegistry(nodes.world, rate=RATE)
        await nursery.start(registry.run)
        registry.put(DATA)
        for _ in range(count):
            await start(nodes, registry)
        await nodes.ready()
        yield nodes, registry
        await nodes.end()
        nursery.cancel_scope.cancel()


async def start(nodes: Cluster, registry: SimulatedRegistry, before: Member | None = None) -> Member:
    """Start a node, or one that ran `before` once more."""
    files = CountingFiles()
    files.wall_s = time.time
    again: dict[str, Any] = (
        {"files": files} if before is None else {"files": before.files, "network": before.network, "host": before.host}
    )
    node = nodes.make(store="none", cache_dir="/cache", registries=registry.settings, piece_sizes=SIZES, **again)
    return await nodes.start(node)


async def ended_half_way(nodes: Cluster, member: Member, how: str) -> None:
    """Ask a node for the blob, and end it when some more than half is there."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nodes.get, member, PATH)
        while await arrived(nodes, member) < 0.65 * len(DATA):  # noqa: ASYNC110  # the node tells nobody
            await trio.sleep(0.01)
        if how == "killed":
            nodes.kill(member)
        else:
            member.scope.cancel()  # as after its grace
        await member.ended.wait()
        nursery.cancel_scope.cancel()


async def arrived(nodes: Cluster, member: Member) -> int:
    """Return how much of the blob is on a node."""
    transfers = (await nodes.page_json(member, "/api/v1/transfers"))["transfers"]
    return max((each["sent_bytes"] for each in transfers), default=0)


async def counted(nodes: Cluster, member: Member, name: str) -> float:
    """Return a counter of a node, whatever its labels."""
    page = (await nodes.page(member, "/metrics")).body.decode()
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"p2pmirror_{name}"))


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_registry_sends_the_rest(how: str, autojump_clock: MockClock) -> None:
    """Ended half-way and started again: the next pull is right, and took hardly more than one copy in all."""
    async with world(1) as (nodes, registry):
        await ended_half_way(nodes, nodes.members[0], how)
        sent = registry.sent_bytes
        again = await start(nodes, registry, nodes.members[0])
        await nodes.ready(again)
        answer = await nodes.get(again, PATH, ns=NAME)
        assert (answer.status, answer.cut, answer.body == DATA) == (200, False, True)
        assert registry.sent_bytes - sent <= len(DATA) // 2
        assert registry.sent_bytes <= 1.1 * len(DATA)
        assert await counted(nodes, again, "cache_resumed_bytes_total") >= len(DATA) // 2
        assert [path for path in again.files.entries if path.name.startswith(".incoming")] == []


@pytest.mark.long
async def test_a_cluster_that_is_restarted_node_by_node(autojump_clock: MockClock) -> None:
    """While all pull each node is killed and started once: then every pull is right, of hardly more than one copy."""
    async with world(3) as (nodes, registry):
        async with trio.open_nursery() as nursery:
            for member in nodes.members:
                nursery.start_soon(nodes.get, member, PATH)
            for member in nodes.members[:3]:
                await trio.sleep(0.25 * len(DATA) / RATE)
                nodes.kill(member)
                await member.ended.wait()
                await start(nodes, registry, member)
            nursery.cancel_scope.cancel()
        running = nodes.members[3:]
        await nodes.ready(*running)
        await pull_everywhere(nodes, running, DATA)
        assert registry.sent_bytes <= 1.5 * len(DATA)


async def test_a_peer_sends_the_rest(autojump_clock: MockClock) -> None:
    """What a node had half of another one, and no registry has any more, it gets from where it was, byte for byte."""
    async with world(2) as (nodes, registry):
        holder, member = nodes.members
        await pull_everywhere(nodes, [holder], DATA)
        await nodes.until_known(member, Digest.of(DATA), {holder.id}, 60.0)
        registry.is_gone = True
        nodes.world.set_rates(holder.network, upload_rate=RATE)
        await ended_half_way(nodes, member, "killed")
        again = await start(nodes, registry, member)
        await nodes.ready(again)
        await nodes.until_known(again, Digest.of(DATA), {holder.id}, 60.0)
        await pull_everywhere(nodes, [again], DATA)
        assert await counted(nodes, again, "cache_resumed_bytes_total") >= len(DATA) // 2
        assert await counted(nodes, again, "resolve_peer_bytes_total") <= len(DATA) // 2
