"""The shared cache: agents outside any cluster, on a port of their own, over one directory, for many machines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.builds import distribution_build
from tests.lab.hosts import write_hosts
from tests.lab.lab import Lab
from tests.lab.process import wait_until
from tests.lab.registry import NAME
from tests.lab.through import NOBODY, Upstream, fetch_through, pull

pytestmark = pytest.mark.lab

KIB = 1024
PORT = 30500


@pytest.fixture
def lab(lab_run: object) -> Iterator[Lab]:
    """Make two replicas of a cache, and a node without an agent that asks one and then the other."""
    build = distribution_build()
    assert build is not None
    with Lab(3, build, store="none", registry_addr=f":{PORT}", fallback="false") as lab:
        one, two, client = lab.nodes
        lab.registry.start()
        for node in (one, two):
            fetch_through(node.agent, Upstream(lab.registry.url), cache=lab.directory / "cache")
            del node.agent.settings["bootstrap"]
            node.agent.start()
        mirrors = [f"http://{node.host.address}:{PORT}" for node in (one, two)]
        write_hosts(client.containerd.certs, NAME, upstream=NOBODY, mirrors=mirrors)
        client.containerd.start()
        yield lab


async def test_two_replicas_serve_from_one_directory(lab: Lab) -> None:
    """Both are healthy and no cluster; what one fetched, the other serves when the first one and the registry are gone.

    By digest at once; by tag with what the registry last said.
    """
    one, two, client = lab.nodes
    image = lab.image([300 * KIB, 3 * KIB], gzipped=True)
    lab.registry.push(image)
    for node in (one, two):
        assert client.host.request(PORT, "/v2/", method="HEAD", address=node.host.address).status == 200
        assert node.agent.readiness() == ""

    await pull(client, image.name(NAME))
    assert client.containerd.verified(image)
    one.agent.kill()
    await pull(client, image.name(NAME), fresh=True)
    assert client.containerd.verified(image)
    assert [lab.registry.asked(digest) for digest in image.layers] == [1, 1]

    lab.registry.stop()
    for name in (image.name_by_digest(NAME), image.name(NAME)):
        await pull(client, name, fresh=True)
        assert client.containerd.verified(image)


async def test_what_one_learns_the_other_knows(lab: Lab) -> None:
    """A tag that one replica asked for is known to the other within seconds, when the registry has gone since."""
    one, two, client = lab.nodes
    image = lab.image([10 * KIB])
    lab.registry.push(image)
    await pull(client, image.name(NAME))
    assert client.containerd.verified(image)
    one.agent.kill()
    lab.registry.stop()

    target = f"/v2/{image.repository}/manifests/{image.tag}?ns={NAME}"
    wait_until(
        lambda: client.host.request(PORT, target, address=two.host.address, timeout_s=30).status == 200,
        "the other replica knows the tag",
    )
    await pull(client, image.name(NAME), fresh=True)
    assert client.containerd.verified(image)
