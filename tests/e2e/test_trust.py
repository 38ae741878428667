"""Agents under different keys, on hosts of their own: they do not hear one another; a key is changed while they run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from p2pmirror.wire.identity import PEER_HEADER
from tests.lab.agent import REGISTRY_PORT
from tests.lab.containerd import Build, PullFailed
from tests.lab.images import Image
from tests.lab.lab import Lab, Node
from tests.lab.process import wait_until
from tests.lab.registry import NAME

pytestmark = [pytest.mark.lab, pytest.mark.any_containerd]

KIB = 1024
KNOWN_S = 2.0
APART_S = 15.0  # in which agents that hear one another would have met several times
SECOND_ADDRESS = "10.97.0.201"  # of a host that has one already
OLD, NEW, OTHER = (f"{name}-key-0123456789abcdef" for name in ("old", "new", "other"))


def give_key(node: Node, *lines: str) -> None:
    """Put keys where a node's agent reads them, as Kubernetes does: behind a link that is turned over."""
    volume = node.host.directory / "secret"
    content = volume / f"..{time.monotonic_ns()}"
    content.mkdir(parents=True)
    (content / "key").write_text("\n".join(lines) + "\n")
    (volume / "..next").symlink_to(content.name)
    (volume / "..next").rename(volume / "..data")
    if not (volume / "key").is_symlink():
        (volume / "key").symlink_to(Path("..data", "key"))
        node.agent.settings["peer_key_file"] = str(volume / "key")


@pytest.fixture(scope="module", params=[(OTHER,), ()], ids=["another-key", "no-key"])
def parted(build: Build, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Make three nodes, of which the first two have a key and the third another one, or none."""
    with Lab(3, build) as lab:
        for node, keys in zip(lab.nodes, [(OLD,), (OLD,), request.param], strict=True):
            if keys:
                give_key(node, *keys)
        start(lab)
        for node in lab.nodes[:2]:
            node.agent.wait_for_members(2)
        yield lab


@pytest.fixture(scope="module")
def paired(build: Build) -> Iterator[Lab]:
    """Make two nodes with one key."""
    with Lab(2, build) as lab:
        for node in lab.nodes:
            give_key(node, OLD)
        start(lab)
        for node in lab.nodes:
            node.agent.wait_for_members(2)
        yield lab


def start(lab: Lab) -> None:
    """Start everything, and wait for each agent by itself."""
    lab.registry.start()
    lab.start_containerds()
    for node in lab.nodes:
        node.agent.launch()
    for node in lab.nodes:
        node.agent.wait()


def pushed(lab: Lab, holder: Node, *others: Node) -> Image:
    """Return an image that one node has pulled and `others` have heard of; the registry is down afterwards."""
    image = lab.image([100 * KIB, 300 * KIB])
    lab.registry.stop()
    lab.registry.start()
    lab.registry.push(image)
    holder.containerd.pull(image.name(NAME))
    for node in (holder, *others):
        for key in (image.name(NAME), *image.here):
            known = partial(_names, node, key, holder)
            wait_until(known, f"{node.host.name} knows who has {key}", timeout_s=KNOWN_S)
    lab.registry.stop()
    return image


def _names(node: Node, key: str, holder: Node) -> bool:
    return holder.host.address in node.agent.find(key)


def alive(node: Node) -> set[str]:
    """Return the addresses of the members that a node knows to live."""
    members = node.agent.status()["members"]
    return {one["address"].rpartition(":")[0] for one in members if one["state"] == "alive"}


def test_those_with_another_key_are_no_members(parted: Lab) -> None:
    """The two with one key know one another; the third knows nobody and is known to nobody, however long they run."""
    one, two, other = parted.nodes
    time.sleep(APART_S)
    pair = {one.host.address, two.host.address}
    assert alive(one) | {one.host.address} == alive(two) | {two.host.address} == pair
    assert alive(other) <= {other.host.address}


def test_those_with_another_key_are_not_served(parted: Lab) -> None:
    """An image that one of the pair holds reaches the other one's containerd, and not the third's."""
    one, two, other = parted.nodes
    image = pushed(parted, one, two)

    two.containerd.pull(image.name(NAME))
    assert two.containerd.verified(image)
    assert other.agent.find(image.layers[0]) == set()
    with pytest.raises(PullFailed):
        other.containerd.pull(image.name(NAME))


def test_the_registry_port_is_for_members_and_this_node(parted: Lab) -> None:
    """From the third host everything is 403; a node's own containerd is served at each of the node's addresses."""
    one, _, other = parted.nodes
    image = pushed(parted, one)
    blob = f"/v2/{image.repository}/blobs/{image.layers[0]}?ns={NAME}"
    impostor = one.agent.status()["node_id"]
    for target in (blob, "/v2/", f"/v2/{image.repository}/manifests/{image.tag}?ns={NAME}"):
        for headers in ({}, {PEER_HEADER: "ab" * 20}, {PEER_HEADER: impostor}):
            reply = other.host.request(REGISTRY_PORT, target, headers=headers, address=one.host.address)
            assert (reply.status, b'"DENIED"' in reply.body) == (403, True)
    one.host.run(["ip", "address", "add", f"{SECOND_ADDRESS}/24", "dev", "eth0"])  # dialled from the first one
    for address in ("127.0.0.1", one.host.address, SECOND_ADDRESS):
        assert one.host.request(REGISTRY_PORT, blob, address=address).status == 200
    assert one.agent.metric("front_denied_total", reason="client") >= 3
    assert one.agent.metric("front_denied_total", reason="unsigned") >= 6


def test_the_third_serves_its_own_containerd(parted: Lab) -> None:
    """What the third node holds its own agent serves to its own containerd, key or no key."""
    other = parted.nodes[2]
    image = pushed(parted, other)
    blob = f"/v2/{image.repository}/blobs/{image.layers[0]}?ns={NAME}"
    assert other.host.request(REGISTRY_PORT, blob).status == 200


def test_a_key_is_changed_while_images_are_pulled(paired: Lab) -> None:
    """Old; old and new; new and old; new, one node after the other: a pull from the peer succeeds at every step."""
    one, two = paired.nodes
    image = pushed(paired, one, two)
    for step in ((OLD, NEW), (NEW, OLD), (NEW,)):
        for node in paired.nodes:
            before = _seen(node)
            give_key(node, *step)
            wait_until(lambda node=node, before=before: _seen(node) > before, "the new key is read", timeout_s=10)
            two.containerd.pull(image.name(NAME))
            assert two.containerd.verified(image)
            two.containerd.remove_all()
    assert one.agent.metric("front_denied_total") == 0
    assert two.agent.metric("peers_failures_total", reason="forbidden") == 0


def _seen(node: Node) -> int:
    """Return how often a node's agent has said that it accepts keys."""
    assert node.agent.process is not None
    return node.agent.process.log.read_text().count('"keys.accepted"')
