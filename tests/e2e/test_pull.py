"""Nodes pull from one another while the registry is down; where no peer can help, the agent does no harm."""

from __future__ import annotations

import time
from functools import partial

import pytest

from tests.lab.agent import REGISTRY_PORT
from tests.lab.containerd import PullFailed, Way
from tests.lab.images import Image
from tests.lab.lab import Lab, Node, at_once
from tests.lab.process import wait_until
from tests.lab.registry import NAME

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
                assert _bytes_from_peers(node) - bytes_before >= image.size
                node.containerd.remove_all()


def test_what_nobody_has_is_answered_quickly_and_left_to_the_registry(cluster: Lab) -> None:
    """The agent says 404 within a second; containerd then reports the registry's failure, not the agent's."""
    node = cluster.nodes[0]
    image = cluster.image([100 * KIB])
    cluster.registry.push(image)
    cluster.registry.stop()

    for target in (f"manifests/{image.tag}", f"manifests/{image.digest}", f"blobs/{image.layers[0]}"):
        started = time.monotonic()
        reply = node.host.request(REGISTRY_PORT, f"/v2/{image.repository}/{target}?ns={NAME}")
        assert reply.status == 404
        assert b'"errors"' in reply.body
        assert time.monotonic() - started < 1
    for way in ("ctr", "cri"):
        with pytest.raises(PullFailed, match=rf"{cluster.registry.host.address}.*refused") as failure:
            node.containerd.pull(image.name(NAME), way)
        assert f":{REGISTRY_PORT}: connect" not in str(failure.value)


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
    return node.agent.metric("front_bytes_total", source="peer")
