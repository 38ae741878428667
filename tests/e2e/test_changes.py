"""What others hear of a node follows what the node holds: images come and go, containerd and whole nodes too."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.lab.agent import OBSERVABILITY_PORT, REGISTRY_PORT
from tests.lab.images import Image
from tests.lab.lab import Lab, Node
from tests.lab.process import wait_until
from tests.lab.registry import NAME

pytestmark = pytest.mark.lab

KIB = 1024
KNOWN_S = 2.0
GONE_S = 10.0  # what left a node, or a node that left, is named no longer than this
BACK_S = 10.0  # containerd's absence is asked about every 2 s at the latest; then everything is walked again


@pytest.fixture
def held(cluster: Lab) -> Image:
    """Give an image that node 1 has pulled and all others know of; the registry is down."""
    image = cluster.image([100 * KIB, 200 * KIB])
    cluster.registry.push(image)
    cluster.nodes[0].containerd.pull(image.name(NAME))
    _wait_for_all(cluster, image, {cluster.nodes[0]}, timeout_s=KNOWN_S)
    cluster.registry.stop()
    return image


@pytest.mark.parametrize("end", ["restart", "kill"])
def test_the_agent_goes_on_after_containerd_went_and_came_back(cluster: Lab, held: Image, end: str) -> None:
    """After a restart or a crash of containerd what it holds is still offered, and what it gets next is too."""
    first, second, *_ = cluster.nodes
    if end == "kill":
        first.containerd.kill()
        time.sleep(1)  # long enough for the agent to have noticed
        first.containerd.start()
    else:
        first.containerd.restart()
    wait_until(lambda: first.agent.readiness() == "", "the agent is ready again", timeout_s=BACK_S)

    second.containerd.pull(held.name(NAME))
    image = cluster.image([150 * KIB])
    first.containerd.import_tar(image.tar(cluster.directory / f"{end}.tar", NAME))

    _wait_for_all(cluster, image, {first}, timeout_s=BACK_S)


def test_what_is_held_is_served_while_containerd_restarts(cluster: Lab, held: Image, *, long: bool) -> None:
    """While containerd restarts again and again, its node's blobs go on being served, here and to peers, each exact."""
    first, second, *_ = cluster.nodes
    (layer, _) = held.layers
    expected = held.blob(layer).read_bytes()
    statuses: list[int] = []
    restarts = 10 if long else 3
    with ThreadPoolExecutor(1) as threads:
        restarting = threads.submit(lambda: [first.containerd.restart() for _ in range(restarts)])
        while not restarting.done():
            for node in (first, second):
                reply = node.host.request(REGISTRY_PORT, f"/v2/{held.repository}/blobs/{layer}?ns={NAME}")
                statuses.append(reply.status)
                assert reply.status != 200 or reply.body == expected
        restarting.result()

    assert set(statuses) == {200}
    wait_until(lambda: first.agent.readiness() == "", "the agent is ready again", timeout_s=BACK_S)
    second.containerd.pull(held.name(NAME))
    assert second.containerd.verified(held)


def test_a_removed_image_is_asked_of_nobody(cluster: Lab, held: Image) -> None:
    """Within 10 s of CRI's RemoveImage nobody is named for the tag or for any blob of the image."""
    cluster.nodes[0].containerd.images.remove(held.name(NAME))

    _wait_for_all(cluster, held, set(), timeout_s=GONE_S)


def test_a_dead_node_is_named_no_more(cluster: Lab, held: Image) -> None:
    """Within 10 s of a node's death (its processes killed, its cable pulled) no answer names it, and pulls go on."""
    first, second, third, last = cluster.nodes
    last.containerd.pull(held.name(NAME))
    _wait_for_all(cluster, held, {first, last}, timeout_s=KNOWN_S)

    last.agent.kill()
    last.containerd.kill()
    last.host.link(up=False)

    second.containerd.pull(held.name(NAME))
    for node in (first, third):
        gone = _all_keys(node, held, lambda found: last.host.address not in found)
        wait_until(gone, f"{node.host.name} names the dead node no more", timeout_s=GONE_S)


def test_a_stopped_agent_says_goodbye(cluster: Lab, held: Image) -> None:
    """An agent ends with code 0 on SIGTERM, and within 2 s it is named no more."""
    first, *others = cluster.nodes

    assert first.agent.stop() == 0

    for node in others:
        wait_until(_all_keys(node, held, lambda found: not found), "nobody is named", timeout_s=KNOWN_S)


def test_an_imported_image_is_offered_to_peers(cluster: Lab) -> None:
    """`ctr images import` of a tar, without a registry: the others know it within 2 s and can pull it."""
    first, second, third, _ = cluster.nodes
    image = cluster.image([100 * KIB, 300 * KIB], gzipped=True)
    cluster.registry.stop()

    first.containerd.import_tar(image.tar(cluster.directory / "offered.tar", NAME))

    _wait_for_all(cluster, image, {first}, timeout_s=KNOWN_S)
    second.containerd.pull(image.name(NAME))
    third.containerd.pull(image.name_by_digest(NAME), "ctr")
    assert second.containerd.verified(image)
    assert third.containerd.verified(image)


def test_an_agent_waits_for_containerd_and_says_so(cluster: Lab) -> None:
    """Without containerd the agent lives, is not ready and says why; it goes on by itself when containerd comes."""
    node = cluster.nodes[0]
    node.agent.stop()
    node.containerd.stop()

    node.agent.launch()
    wait_until(lambda: bool(node.agent.readiness()), "it answers that it is not ready")
    assert "containerd" in (node.agent.readiness() or "")
    assert node.agent.get("/livez", OBSERVABILITY_PORT).status == 200
    node.containerd.start()

    wait_until(lambda: node.agent.readiness() == "", "it is ready", timeout_s=BACK_S)


def _wait_for_all(cluster: Lab, image: Image, holders: set[Node], *, timeout_s: float) -> None:
    """Wait until each running agent names exactly the holders for the image's tag and each of its blobs."""
    addresses = {holder.host.address for holder in holders}
    deadline = time.monotonic() + timeout_s
    for node in cluster.nodes:
        exactly = _all_keys(node, image, partial(addresses.__eq__))
        what = f"{node.host.name} names {sorted(addresses)} for {image.repository}"
        wait_until(exactly, what, timeout_s=max(deadline - time.monotonic(), 0.1))


def _all_keys(node: Node, image: Image, holds: Callable[[set[str]], bool]) -> Callable[[], bool]:
    keys = [image.name(NAME), *image.here]
    return lambda: all(holds(node.agent.find(key)) for key in keys)
