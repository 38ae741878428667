"""Nodes pull from one another while the registry is down; where no peer can help, the agent does no harm."""

from __future__ import annotations

import time
from functools import partial

import pytest

from tests.lab.agent import REGISTRY_PORT as AGENT_PORT
from tests.lab.containerd import PullFailed, Way
from tests.lab.images import Image
from tests.lab.lab import Lab, Node, at_once
from tests.lab.process import wait_until
from tests.lab.registry import NAME, PORT

pytestmark = pytest.mark.lab

KIB = 1024
MIB = 1024 * KIB

KNOWN_S = 2.0  # within this the others know what a node has pulled
ROUNDS, ROUNDS_LONG = 2, 10


@pytest.mark.parametrize("way", ["ctr", "cri"])
async def test_three_nodes_pull_at_once_from_a_peer_while_the_registry_is_down(
    cluster: Lab, way: Way, *, long: bool
) -> None:
    """What one node pulled, the others know within 2 s and pull, all at once, by tag and by digest, every time.

    The registry is stopped meanwhile, so each byte comes from a peer; the agents' metrics say so too.
    """
    first, *others = cluster.nodes
    image = cluster.image([300 * KIB, 5 * MIB, 12 * MIB], two_platforms=True)
    cluster.registry.push(image)

    first.containerd.pull(image.name(NAME), way)
    for node in others:
        wait_until(partial(_known, node, image, first), f"{node.host.name} knows", timeout_s=KNOWN_S)
    cluster.registry.stop()

    for number in range(ROUNDS_LONG if long else ROUNDS):
        for name in (image.name(NAME), image.name_by_digest(NAME)):
            before = [_bytes_from_peers(node) for node in others]
            outcomes = await at_once(*(partial(node.containerd.pull, name, way) for node in others))
            assert outcomes == [None] * len(others), f"round {number}, {name}"
            for node, bytes_before in zip(others, before, strict=True):
                assert node.containerd.verified(image)
                assert _bytes_from_peers(node) - bytes_before >= image.blob_bytes
                node.containerd.remove_all()


def test_what_nobody_has_is_answered_with_404_within_a_second(cluster: Lab) -> None:
    """Asked for a tag, a manifest or a blob that no node has, the agent says 404 in the registry API's words."""
    image = cluster.image([100 * KIB])
    for target in (f"manifests/{image.tag}", f"manifests/{image.digest}", f"blobs/{image.layers[0]}"):
        started = time.monotonic()
        reply = cluster.nodes[0].host.request(AGENT_PORT, f"/v2/{image.repository}/{target}?ns={NAME}")
        assert reply.status == 404
        assert b'"errors"' in reply.body
        assert time.monotonic() - started < 1


@pytest.mark.parametrize("way", ["ctr", "cri"])
def test_a_registry_that_fails_is_what_containerd_reports(cluster: Lab, way: Way) -> None:
    """Nobody has the image and the registry answers 500: that is what containerd says, not a word of the agent's."""
    image = cluster.image([100 * KIB])
    cluster.registry.stop()
    cluster.registry.answer_500()

    with pytest.raises(PullFailed, match="500 Internal Server Error"):
        cluster.nodes[0].containerd.pull(image.name(NAME), way)


@pytest.mark.parametrize("way", ["ctr", "cri"])
def test_a_registry_that_is_gone_is_what_containerd_reports(cluster: Lab, way: Way) -> None:
    """Nobody has the image and the registry is stopped: the agent is not what is blamed, and nobody waits for it.

    containerd 1.6 reports the refused connection. 2.2 ranks any 404 above a connection that failed, so it says "not
    found" for each mirror that says 404, and the refused connection stands in its log.
    """
    containerd = cluster.nodes[0].containerd
    image = cluster.image([100 * KIB])
    cluster.registry.stop()
    started = time.monotonic()

    with pytest.raises(PullFailed) as failure:
        containerd.pull(image.name(NAME), way)

    assert time.monotonic() - started < 3
    assert f":{AGENT_PORT}: connect" not in str(failure.value)
    refused = f"{cluster.registry.host.address}:{PORT}: connect: connection refused"
    if containerd.build.major == 1:
        assert refused in str(failure.value)
    else:
        assert containerd.process is not None
        assert "not found" in str(failure.value)
        assert refused in containerd.process.tail()


@pytest.mark.parametrize("way", ["ctr", "cri"])
def test_what_nobody_has_is_pulled_from_the_registry(cluster: Lab, way: Way) -> None:
    """With the registry up, a pull that no peer can help with succeeds by containerd's own fallback."""
    node = cluster.nodes[0]
    image = cluster.image([100 * KIB, MIB])
    cluster.registry.push(image)
    before = _bytes_from_peers(node)

    node.containerd.pull(image.name(NAME), way)

    assert node.containerd.verified(image)
    assert _bytes_from_peers(node) == before
    assert any(image.layers[1] in request.target for request in cluster.registry.requests())


def _known(node: Node, image: Image, holder: Node) -> bool:
    """Tell whether `node` knows that `holder` has the image, under its tag, and each blob of it."""
    keys = [image.name(NAME), *image.here]
    return all(holder.host.address in node.agent.find(key) for key in keys)


def _bytes_from_peers(node: Node) -> float:
    """Return the bytes that an agent had from peers: just now, or in a flight that lingers from the pull before."""
    return sum(node.agent.metric("front_bytes_total", source=source) for source in ("peer", "flight"))
