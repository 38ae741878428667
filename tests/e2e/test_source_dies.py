"""The agent that serves a layer is killed in the middle of it."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.lab.lab import Lab, Node, at_once
from tests.lab.process import wait_until
from tests.lab.registry import NAME

pytestmark = pytest.mark.lab

MIB = 1024 * 1024
LAYER_BYTES = 64 * MIB
LINK_BITS_PER_S = 100_000_000  # the layer takes more than 5 s, so that "the middle" is easily met
MIDDLE_BYTES = LAYER_BYTES // 4
PULL_S = 30.0  # 5 s undisturbed; half of it twice, and what a slow machine adds


async def test_a_pull_goes_on_when_the_serving_agent_is_killed(cluster: Lab) -> None:
    """Kill -9 of the serving agent mid-layer: the pull completes from the other holder, bytes exact."""
    one, two, puller, _ = cluster.nodes
    image = cluster.image([LAYER_BYTES])
    cluster.registry.push(image)
    for node in (one, two):
        node.containerd.pull(image.name(NAME))
    both = {one.host.address, two.host.address}
    wait_until(lambda: puller.agent.find(image.layers[0]) >= both, "both holders are known", timeout_s=10)
    cluster.registry.stop()
    for node in (one, two):
        node.host.shape(LINK_BITS_PER_S)
    resumes = puller.agent.metric("resolve_resumes_total")
    sent = {node: node.host.sent_bytes() for node in (one, two)}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_kill_in_the_middle, sent)
        with trio.fail_after(PULL_S):
            outcomes = await at_once(partial(puller.containerd.pull, image.name(NAME)))

    assert outcomes == [None]
    assert puller.containerd.verified(image)
    assert puller.agent.metric("resolve_resumes_total") - resumes >= 1
    assert [one.agent.process, two.agent.process].count(None) == 1, "one holder's agent was killed, the other's lives"


async def _kill_in_the_middle(sent_before: dict[Node, int]) -> None:
    """Kill the agent of the node that has sent a quarter of the layer first."""
    while True:
        for node, before in sent_before.items():
            if node.host.sent_bytes() - before > MIDDLE_BYTES:
                node.agent.kill()
                return
        await trio.sleep(0.05)
