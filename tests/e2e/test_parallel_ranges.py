"""containerd 2.x that fetches a layer in ranges: each asks for the rest of the layer and is left early, on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.containerd import Build
from tests.lab.lab import Lab
from tests.lab.plugin import find_build
from tests.lab.registry import NAME
from tests.lab.through import Upstream, ask_the_agent_alone, fetch_through, outcomes, pull

pytestmark = pytest.mark.lab

KIB, MIB = 1024, 1024 * 1024
BUFFER_BYTES = 512 * KIB


@pytest.fixture(scope="module")
def build(lab_run: object) -> Build:
    """Only 2.x does this."""
    return find_build("2.x")


@pytest.fixture(scope="module")
def lab(build: Build) -> Iterator[Lab]:
    """Make a node whose containerd fetches in ranges."""
    with Lab(1, build) as lab:
        node = lab.nodes[0]
        node.containerd.fetch_buffer_bytes = BUFFER_BYTES
        ask_the_agent_alone(node)
        fetch_through(node.agent, Upstream(lab.registry.url))
        lab.start()
        yield lab


async def test_ranges_that_are_left_early_cost_one_copy(lab: Lab) -> None:
    """A layer fetched in some twenty ranges, each left early, is right, cold and from the cache, and is fetched once.

    None of them counts as a failure.
    """
    node = lab.nodes[0]
    image = lab.image([10 * MIB], gzipped=True)
    layer = image.layers[0]
    lab.registry.push(image)

    for fresh in (False, True):
        seen = _ranges(lab)
        await pull(node, image.name(NAME), fresh=fresh)
        assert node.containerd.verified(image)
        assert _ranges(lab) - seen >= 10, "containerd fetched in ranges"

    assert lab.registry.asked(layer) == 1
    assert lab.registry.sent_bytes() < 1.1 * image.size
    assert outcomes(node.agent, "cut") == outcomes(node.agent, "error") == 0
    assert outcomes(node.agent, "left") >= 10
    assert node.agent.metric("resolve_flights") == 0


def _ranges(lab: Lab) -> int:
    """Return how many ranges the agent has answered with."""
    process = lab.nodes[0].agent.process
    assert process is not None
    return process.log.read_text().count('"status":206')
