"""One agent with a cache between a real containerd and a real registry: open, with passwords, behind a token server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.lab.containerd import Build
from tests.lab.images import Image, make_image
from tests.lab.lab import Lab, Node
from tests.lab.registry import NAME
from tests.lab.through import (
    Upstream,
    ask_the_agent_alone,
    begun_in,
    cache_of,
    fetch_through,
    login_file,
    login_helper,
    outcomes,
    pull,
    serve,
)
from tests.registries.docker import make_certificate
from tests.registries.tokens import TokenServer

pytestmark = pytest.mark.lab

KIB, MIB = 1024, 1024 * 1024


@pytest.fixture(scope="module")
def lab(build: Build) -> Iterator[Lab]:
    """Make a node whose containerd can ask its agent alone, and a registry; the agent is not started."""
    with Lab(1, build) as lab:
        lab.start_containerds()
        ask_the_agent_alone(lab.nodes[0])
        yield lab


@pytest.fixture
def node(lab: Lab) -> Iterator[Node]:
    """Give the node, with its agent stopped and nothing in its containerd."""
    node = lab.nodes[0]
    node.containerd.remove_all()
    yield node
    node.agent.kill()
    lab.registry.stop()


def held(lab: Lab, *layer_bytes: int) -> Image:
    """Return an image that the registry has; the registry is not running."""
    image = lab.image(layer_bytes, gzipped=True, two_platforms=True)
    lab.registry.start()
    lab.registry.push(image)
    lab.registry.stop()
    return image


async def pull_twice(lab: Lab, node: Node, image: Image) -> None:
    """Pull an image, and again with a containerd that has nothing: blobs are fetched once, and all of it is right."""
    await pull(node, image.name(NAME))
    assert node.containerd.verified(image)
    for digest in {image.config, *image.layers}:
        assert lab.registry.asked(digest) == 1, digest
    await pull(node, image.name(NAME), fresh=True)
    await pull(node, image.name_by_digest(NAME), fresh=True)
    assert node.containerd.verified(image)
    for digest in {image.config, *image.layers}:
        assert lab.registry.asked(digest) == 1, f"{digest} was fetched once more"
    for digest in {image.digest, image.manifest}:
        assert lab.registry.asked(digest) == 1, f"{digest} was fetched once more"
    assert node.agent.metric("front_bytes_total", source="cache") >= image.blob_bytes
    assert outcomes(node.agent, "cut") + outcomes(node.agent, "error") == 0


async def test_an_open_registry_is_asked_once(lab: Lab, node: Node) -> None:
    """What was pulled once is pulled again by a fresh containerd, by tag and digest, without a blob from upstream."""
    image = held(lab, 300 * KIB, 9 * MIB)
    lab.registry.start()
    fetch_through(node.agent, Upstream(lab.registry.url))
    node.agent.start()

    await pull_twice(lab, node, image)


async def test_a_tag_that_is_pushed_again_is_seen_by_the_next_pull(lab: Lab, node: Node) -> None:
    """A tag means to the next pull what it means at the registry; without tag_ttl no older meaning is given out."""
    image = held(lab, 300 * KIB)
    lab.registry.start()
    fetch_through(node.agent, Upstream(lab.registry.url))
    node.agent.start()
    await pull(node, image.name(NAME))
    again = make_image(lab.directory / "again", [200 * KIB], seed=4711, repository=image.repository, tag=image.tag)
    lab.registry.push(again)

    await pull(node, image.name(NAME), fresh=True)

    assert node.containerd.verified(again)
    assert image.layers[0] not in node.containerd.digests()


@pytest.mark.parametrize("kind", [pytest.param("file", marks=pytest.mark.long), "helper"])
async def test_a_registry_with_passwords_is_told_the_agents_own(lab: Lab, node: Node, kind: str) -> None:
    """A private image is pulled with the agent's login, from a file or a helper program; containerd needs none."""
    image = held(lab, 300 * KIB)
    lab.registry.start_with_passwords()
    login = login_file(node.host.directory) if kind == "file" else login_helper(node.agent)
    fetch_through(node.agent, Upstream(lab.registry.url, credentials=login))
    node.agent.start()

    await pull_twice(lab, node, image)

    if kind == "helper":
        assert (node.host.directory / "asked").read_text().strip() in {NAME, lab.registry.url.removeprefix("http://")}
        node.agent.run_by = []


async def test_a_registry_behind_a_token_server_is_asked_with_its_tokens(
    lab: Lab, node: Node, nursery: trio.Nursery
) -> None:
    """A registry that wants tokens gets them; the agent fetches one with its login and uses it for all of a pull."""
    image = held(lab, 300 * KIB, 400 * KIB)
    tokens = TokenServer(*make_certificate(lab.directory), needs_login=True)
    realm = await serve(lab.registry.host, tokens.handle, nursery) + "/token"
    lab.registry.start_with_tokens(realm, tokens.certificate)
    fetch_through(node.agent, Upstream(lab.registry.url, credentials=login_file(node.host.directory)))
    node.agent.start()

    await pull_twice(lab, node, image)

    assert [each["scope"] for each in tokens.asked] == [f"repository:{image.repository}:pull"]


def test_what_was_kept_outlives_the_agent(lab: Lab, node: Node) -> None:
    """A cache is there again after a restart of the agent: nothing is fetched a second time."""
    image = held(lab, 300 * KIB, MIB)
    lab.registry.start()
    fetch_through(node.agent, Upstream(lab.registry.url))
    node.agent.start()
    node.containerd.pull(image.name(NAME))
    assert node.agent.stop() == 0
    node.containerd.remove_all()
    node.agent.start()

    node.containerd.pull(image.name(NAME))

    assert node.containerd.verified(image)
    assert lab.registry.asked(image.layers[1]) == 1
    assert not begun_in(cache_of(node.agent))
