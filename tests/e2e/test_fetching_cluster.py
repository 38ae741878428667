"""Three agents that fetch from a registry: one fetches, the others get it from there; what is private stays refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest
import trio

from tests.lab.agent import REGISTRY_PORT
from tests.lab.builds import distribution_build
from tests.lab.containerd import PullFailed
from tests.lab.hosts import write_hosts
from tests.lab.lab import Lab, at_once
from tests.lab.process import wait_until
from tests.lab.registry import NAME
from tests.lab.through import Upstream, ask_the_agent_alone, fetch_through, pull
from tests.registries.docker import PASSWORD, USER

pytestmark = pytest.mark.lab

KIB, MIB = 1024, 1024 * 1024
SECRET = (USER, PASSWORD)


@pytest.fixture(scope="module")
def shared(lab_run: object) -> Iterator[Lab]:
    """Make three nodes whose agents fetch."""
    build = distribution_build()
    assert build is not None
    with Lab(3, build) as lab:
        for node in lab.nodes:
            fetch_through(node.agent, Upstream(lab.registry.url))
        lab.start()
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """Give them with the registry open, and nobody else to ask."""
    for node in shared.nodes:
        node.agent.settings.pop("fallback", None)
        ask_the_agent_alone(node)
    shared.repair()
    yield shared
    shared.registry.stop()


async def test_what_one_fetched_the_others_get_from_it(lab: Lab) -> None:
    """A cold image is fetched by the first node that pulls; two others, at once, get every blob of it from a peer."""
    first, *others = lab.nodes
    image = lab.image([300 * KIB, 5 * MIB], gzipped=True, two_platforms=True)
    lab.registry.push(image)

    await pull(first, image.name(NAME))
    for digest in image.here:
        wait_until(partial(_is_known, lab, digest), f"{digest} is known")
    outcomes = await at_once(*(partial(node.containerd.pull, image.name(NAME)) for node in others))

    assert outcomes == [None, None]
    for node in lab.nodes:
        assert node.containerd.verified(image)
    assert [lab.registry.asked(digest) for digest in image.here] == [1] * len(image.here)


async def test_a_private_image_is_pulled_with_containerds_own_secret(lab: Lab) -> None:
    """The agents have no login: containerd is sent on at once and pulls with its own pull secret, if it has one."""
    node = lab.nodes[0]
    image = lab.image([300 * KIB], gzipped=True)
    lab.registry.push(image)
    lab.registry.stop()
    lab.registry.start_with_passwords()
    write_hosts(node.containerd.certs, NAME, upstream=lab.registry.url, mirrors=[node.agent.url])

    with pytest.raises(PullFailed):
        await pull(node, image.name(NAME))
    await trio.to_thread.run_sync(partial(node.containerd.pull, image.name(NAME), secret=SECRET))

    assert node.containerd.verified(image)
    reply = lab.nodes[1].host.request(REGISTRY_PORT, f"/v2/{image.repository}/manifests/absent?ns={NAME}")
    assert reply.status == 404
    assert "WWW-Authenticate" not in reply.headers, "nobody is asked for a secret"


async def test_without_a_fallback_the_code_is_the_honest_one(lab: Lab) -> None:
    """With `fallback = false` a private image is denied (403), one that is not there is not found (404)."""
    node = lab.nodes[0]
    image = lab.image([300 * KIB])
    lab.registry.push(image)
    node.agent.stop()
    node.agent.settings["fallback"] = "false"
    node.agent.start()
    absent = node.host.request(REGISTRY_PORT, f"/v2/{image.repository}/manifests/absent?ns={NAME}")
    assert (absent.status, _code(absent.body)) == (404, "MANIFEST_UNKNOWN")
    lab.registry.stop()
    lab.registry.start_with_passwords()

    denied = node.host.request(REGISTRY_PORT, f"/v2/{image.repository}/manifests/{image.tag}?ns={NAME}")
    assert (denied.status, _code(denied.body)) == (403, "DENIED")
    assert "WWW-Authenticate" not in denied.headers
    with pytest.raises(PullFailed, match="403 Forbidden"):
        await pull(node, image.name(NAME))

    lab.registry.stop()
    away = node.host.request(REGISTRY_PORT, f"/v2/{image.repository}-2/manifests/{image.tag}?ns={NAME}", timeout_s=30)
    assert (away.status, _code(away.body)) == (503, "UNAVAILABLE")
    assert int(away.headers["Retry-After"]) >= 1


def _is_known(lab: Lab, digest: str) -> bool:
    first, *others = lab.nodes
    return all(first.host.address in node.agent.find(digest) for node in others)


def _code(body: bytes) -> str:
    code: str = json.loads(body)["errors"][0]["code"]
    return code
