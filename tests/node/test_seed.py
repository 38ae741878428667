"""A node that is a seed fetches what the others want from registries, and is missed by nobody when it is gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.oci import Digest
from simulations.registry import NAME, SimulatedRegistry
from tests.node.cluster import Cluster, Member, cluster
from tests.resolve.registry import manifest_bytes

DATA = Random(1).randbytes(2_000_000)
DIGEST = Digest.of(DATA)
PATH = f"/v2/app/blobs/{DIGEST}"
MANIFEST = manifest_bytes("seeded")


@asynccontextmanager
async def seeded(**seed_settings: Any) -> AsyncIterator[tuple[Cluster, SimulatedRegistry]]:
    """Run three nodes and, last, a seed; and a registry that has `DATA`."""
    async with cluster() as nodes, trio.open_nursery() as nursery:
        registry = SimulatedRegistry(nodes.world, rate=20_000_000)
        await nursery.start(registry.run)
        assert registry.put(DATA) == DIGEST
        common: dict[str, Any] = {"registries": registry.settings, "cache_dir": "/cache"}
        for _ in range(3):
            await nodes.add(**common)
        await nodes.add(**{**common, "seed": "true", **seed_settings})
        await nodes.ready()
        yield nodes, registry
        await nodes.end()  # before the registry, which keeps their connections
        nursery.cancel_scope.cancel()


async def pull_everywhere(nodes: Cluster, members: list[Member], data: bytes = DATA) -> None:
    """Pull a blob on these nodes at the same moment, and compare every byte."""

    async def pull(member: Member) -> None:
        answer = await nodes.get(member, f"/v2/app/blobs/{Digest.of(data)}", ns=NAME)
        assert (answer.status, answer.cut, answer.body == data) == (200, False, True)

    async with trio.open_nursery() as nursery:
        for member in members:
            nursery.start_soon(pull, member)


async def fetched(nodes: Cluster, member: Member) -> float:
    """Return how many bytes a node had from registries."""
    page = (await nodes.page(member, "/metrics")).body.decode()
    lines = [line for line in page.splitlines() if line.startswith("p2pmirror_upstream_bytes_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_the_seed_fetches_for_all(autojump_clock: MockClock) -> None:
    """Nobody asks the seed for anything but the others' agents, and it alone fetches: once."""
    async with seeded() as (nodes, registry):
        *others, seed = nodes.members
        await pull_everywhere(nodes, others)
        assert registry.sent_bytes == len(DATA)
        assert [await fetched(nodes, each) for each in nodes.members] == [0, 0, 0, len(DATA)]
        await nodes.until_known(others[0], DIGEST, {each.id for each in (others[1], others[2], seed)}, 60.0)


async def test_the_seed_asks_for_all_what_a_tag_names(autojump_clock: MockClock) -> None:
    """Three nodes pull a tag at the same moment: the seed asks for it and its manifest, once each, and tells them."""
    async with seeded() as (nodes, registry):
        *others, seed = nodes.members
        manifest, registry.answer_s = registry.tag(MANIFEST, "1"), 0.1

        async def pull(member: Member) -> None:
            told = await nodes.get(member, "/v2/app/manifests/1", ns=NAME, method="HEAD")
            assert (told.status, told.headers["docker-content-digest"]) == (200, str(manifest))
            assert (await nodes.get(member, f"/v2/app/manifests/{manifest}", ns=NAME)).body == MANIFEST

        async with trio.open_nursery() as nursery:
            for member in others:
                nursery.start_soon(pull, member)
        assert dict(registry.asked) == {"tag": 1, "manifest": 1}
        page = (await nodes.page(seed, "/metrics")).body.decode()
        for kind in ("tag", "manifest"):
            assert f'p2pmirror_resolve_questions_total{{kind="{kind}",outcome="asked"}} 1.0' in page


async def test_without_its_seed_a_cluster_leads_itself(autojump_clock: MockClock) -> None:
    """A seed that has just died costs some seconds at most; every pull ends right, and there is one copy."""
    async with seeded() as (nodes, registry):
        *others, seed = nodes.members
        nodes.kill(seed)
        await pull_everywhere(nodes, others)
        assert registry.sent_bytes <= 2 * len(DATA)


@pytest.mark.parametrize("settings", [{"filters": "!.*"}, {"registries": [{"name": NAME, "mode": "peers"}]}])
async def test_a_seed_that_may_not_fetch_does_not(settings: dict[str, Any], autojump_clock: MockClock) -> None:
    """What its filters exclude, or its registries do not let it ask, it fetches for nobody."""
    async with seeded(**settings) as (nodes, _):
        await nodes.get(nodes.members[0], PATH, ns=NAME)
        assert await fetched(nodes, nodes.members[-1]) == 0


async def test_who_is_no_seed_fetches_nothing_for_peers(autojump_clock: MockClock) -> None:
    """A peer that asks an ordinary node for a flight is told that there is none."""
    async with seeded() as (nodes, registry):
        asked = nodes.members[0]
        path = f"/p2p/v1/flights/{DIGEST}"
        query = f"{path}?ns={NAME}&repository=app&wait_ms=0"
        answer = await nodes.get(asked, query, ns=None, P2PMirror_Peer=nodes.members[1].id)
        assert answer.status == 404
        assert registry.requests == 0
