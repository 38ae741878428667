"""The node that serves a layer fails in the middle of it: killed, frozen, without its cable, or lying."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.groups import leave_out
from tests.lab import liar
from tests.lab.containerd import PullFailed
from tests.lab.lab import Lab, Node, at_once
from tests.lab.liar import Liar
from tests.lab.process import wait_until
from tests.lab.registry import NAME

pytestmark = pytest.mark.lab

MIB = 1024 * 1024
LAYER_BYTES = 32 * MIB
LINK_BITS_PER_S = 100_000_000  # the layer takes 2.7 s, so that "the middle" is easily met
MIDDLE_BYTES = LAYER_BYTES // 4
BACK_OFF_S = 10.0  # the kubelet's, before it pulls again
PULL_S = 20.0  # 2.7 s undisturbed; a second to notice; half of it twice, and what a slow machine adds


@pytest.fixture(params=["kill", "freeze", "unplug"])
def failure(request: pytest.FixtureRequest, cluster: Lab, *, long: bool) -> str:
    """How the node fails; each way with one containerd, and with the others in the long run."""
    if request.param != "kill" and cluster.nodes[0].containerd.build.major > 1 and not long:
        leave_out("long", "needs --long or P2PMIRROR_LONG=1", mendable=False)
    return str(request.param)


async def test_a_pull_goes_on_when_the_serving_node_fails(cluster: Lab, failure: str) -> None:
    """Kill -9 or SIGSTOP of the serving agent, or its link down, mid-layer: the other holder sends the rest."""
    one, two, puller, _ = cluster.nodes
    image = cluster.image([LAYER_BYTES])
    tar = image.tar(cluster.directory / f"{failure}.tar", NAME)
    for node in (one, two):
        node.containerd.import_tar(tar)
    both = {one.host.address, two.host.address}
    wait_until(lambda: all(puller.agent.find(key) >= both for key in (*image.here, image.name(NAME))), "known")
    cluster.registry.stop()
    for node in (one, two):
        node.host.shape(LINK_BITS_PER_S)
    resumes = puller.agent.metric("resolve_resumes_total")
    sent = {node: node.host.sent_bytes() for node in (one, two)}
    failed: list[Node] = []

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fail_in_the_middle, sent, failure, failed)
            with trio.fail_after(PULL_S):
                outcomes = await at_once(partial(puller.containerd.pull, image.name(NAME)))
    finally:
        for node in failed:
            if node.agent.process is not None:
                node.agent.process.resume()

    assert outcomes == [None]
    assert puller.containerd.verified(image)
    assert len(failed) == 1
    assert puller.agent.metric("resolve_resumes_total") - resumes >= 1


def test_containerd_keeps_nothing_wrong_and_can_pull_again(cluster: Lab) -> None:
    """What a liar sent of a layer is not committed; the pull that the kubelet makes next succeeds, every byte right."""
    lying, _, puller, _ = cluster.nodes
    image = cluster.image([4 * MIB])
    cluster.registry.push(image)
    before = dict(lying.agent.settings)
    lying.agent.stop()
    lying.agent.settings |= liar.settings(lying.host)
    try:
        with Liar(lying.host, liar.changes_a_layer) as peer:
            lying.agent.start()
            lying.containerd.import_tar(image.tar(cluster.directory / "lie.tar", NAME))
            wait_until(lambda: all(puller.agent.find(key) for key in (*image.here, image.name(NAME))), "known")
            with pytest.raises(PullFailed):
                puller.containerd.pull(image.name(NAME))
            assert not puller.containerd.verified(image)
            collected = partial(_has_no_half, puller)
            wait_until(collected, "containerd has collected what it could not commit", timeout_s=BACK_OFF_S)

            puller.containerd.pull(image.name(NAME))

        assert puller.containerd.verified(image)
        assert peer.asked[image.layers[0]] == 1
    finally:
        lying.agent.stop()
        lying.agent.settings = before


def _has_no_half(node: Node) -> bool:
    return not node.containerd.has_half()


async def _fail_in_the_middle(sent_before: dict[Node, int], failure: str, failed: list[Node]) -> None:
    """Let the node fail that has sent a quarter of the layer first."""
    while not failed:
        await trio.sleep(0.05)
        failed += [node for node, before in sent_before.items() if node.host.sent_bytes() - before > MIDDLE_BYTES][:1]
    node = failed[0]
    if failure == "kill":
        node.agent.kill()
    elif failure == "unplug":
        node.host.link(up=False)
    else:
        assert node.agent.process is not None
        node.agent.process.pause()
