"""Nodes without a cache share what arrives: one copy of what all pull at once, and nothing of it afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.resolve.flights import LINGER_S
from simulations.registry import NAME, SimulatedRegistry
from tests.node.cluster import Cluster, cluster
from tests.node.test_seed import DATA, PATH, pull_everywhere


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cache_dir": "/cache", "cache_max_bytes": "0"},
        {"cache_dir": "/cache", "cache_max_bytes": "1Mi"},  # the blob is larger
        {"data_dir": "/data"},
    ],
)
async def test_one_copy_for_all(settings: dict[str, Any], autojump_clock: MockClock) -> None:
    """The registry sends once what all pull, and pull again soon; a minute later nobody has it any more."""
    async with uncached(**settings) as (nodes, registry):
        await pull_everywhere(nodes, nodes.members)
        await pull_everywhere(nodes, nodes.members)
        assert registry.sent_bytes == len(DATA)
        await trio.sleep(2 * LINGER_S)
        for member in nodes.members:
            assert not [path for path in member.files.entries if path.name.startswith(".incoming")]
            assert (await nodes.page_json(member, "/api/v1/status"))["held"]["blobs"] == 0
        assert (await nodes.get(nodes.members[0], PATH, ns=NAME)).body == DATA
        assert registry.sent_bytes == 2 * len(DATA)


@pytest.mark.parametrize("scratch_max_bytes", ["0", "1Mi"])
async def test_without_any_room_every_pull_is_right(scratch_max_bytes: str, autojump_clock: MockClock) -> None:
    """Where a node has no room for it each reader is passed a copy of its own, as if there were no others."""
    async with uncached(scratch_max_bytes=scratch_max_bytes) as (nodes, registry):
        await pull_everywhere(nodes, nodes.members)
        assert 3 * len(DATA) <= registry.sent_bytes <= 6 * len(DATA)


@asynccontextmanager
async def uncached(**settings: Any) -> AsyncIterator[tuple[Cluster, SimulatedRegistry]]:
    """Run three nodes, and a registry that has `DATA`."""
    async with cluster() as nodes, trio.open_nursery() as nursery:
        registry = SimulatedRegistry(nodes.world, rate=20_000_000)
        await nursery.start(registry.run)
        registry.put(DATA)
        for _ in range(3):
            await nodes.add(registries=registry.settings, **settings)
        await nodes.ready()
        yield nodes, registry
        await nodes.end()
        nursery.cancel_scope.cancel()
