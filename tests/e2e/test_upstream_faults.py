"""A registry that is away, slow, or faulty: what was pulled once is pulled again, and no pull gets worse."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import trio

from tests.lab.agent import REGISTRY_PORT
from tests.lab.containerd import Build, PullFailed
from tests.lab.hosts import write_hosts
from tests.lab.images import Image, make_image
from tests.lab.lab import Lab, Node
from tests.lab.network import Reply
from tests.lab.plugin import find_build
from tests.lab.process import wait_until
from tests.lab.registry import NAME
from tests.lab.through import (
    PROXY_PORT,
    Upstream,
    ask_the_agent_alone,
    begun_in,
    blobs_in,
    cache_of,
    fault_proxy,
    fetch_through,
    outcomes,
    pull,
)
from tests.registries.faults import FaultProxy, answer, cut, hang_up

pytestmark = pytest.mark.lab

KIB, MIB = 1024, 1024 * 1024
BACK_OFF_S = 10.0  # the kubelet's, before it pulls again
BACK_S = 90.0  # a registry that comes back is noticed within a minute


@pytest.fixture(scope="module", params=["distribution", pytest.param("2.x", marks=pytest.mark.long)])
def build(request: pytest.FixtureRequest, lab_run: object) -> Build:
    """Each version of containerd; one is enough where what is tested happens behind the agent."""
    return find_build(request.param)


@pytest.fixture(scope="module")
def shared(build: Build) -> Iterator[Lab]:
    """Make a node whose agent asks the registry by way of where a fault proxy may stand."""
    with Lab(1, build) as lab:
        lab.start_containerds()
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """Give it with its registry running, and its agent stopped."""
    node = shared.nodes[0]
    shared.registry.stop()
    shared.registry.start()
    shared.registry.host.unshape()
    node.containerd.remove_all()
    ask_the_agent_alone(node)
    fetch_through(node.agent, Upstream(shared.registry.url))
    yield shared
    node.agent.kill()


@pytest.fixture
async def proxy(lab: Lab, nursery: trio.Nursery) -> FaultProxy:
    """Stand between the agent, which is started, and the registry."""
    proxy = await fault_proxy(lab.registry, nursery)
    agent = lab.nodes[0].agent
    fetch_through(agent, Upstream(f"http://{lab.registry.host.address}:{PROXY_PORT}"))
    agent.start()
    return proxy


def pushed(lab: Lab, *layer_bytes: int) -> Image:
    image = lab.image(layer_bytes, gzipped=True)
    lab.registry.push(image)
    return image


def manifest(node: Node, image: Image) -> Reply:
    target = f"/v2/{image.repository}/manifests/{image.tag}?ns={NAME}"
    return node.host.request(REGISTRY_PORT, target, timeout_s=30)


async def test_what_was_pulled_is_pulled_again_while_the_registry_is_away(lab: Lab) -> None:
    """With the registry stopped everything pulled once is pulled again, by digest and by tag; the tag is called stale.

    What nobody pulled is refused. When the registry is back its word counts again, without a restart of anything.
    """
    node = lab.nodes[0]
    node.agent.start()
    image, other = pushed(lab, 300 * KIB, MIB), pushed(lab, 10_000)
    await pull(node, image.name(NAME))
    assert "Warning" not in manifest(node, image).headers
    lab.registry.stop()

    for name in (image.name_by_digest(NAME), image.name(NAME)):
        await pull(node, name, fresh=True)
        assert node.containerd.verified(image)
    assert "Stale" in manifest(node, image).headers["Warning"]
    assert node.agent.metric("resolve_stale_tags_total") >= 1
    with pytest.raises(PullFailed):
        await pull(node, other.name(NAME))

    lab.registry.start()
    again = make_image(lab.directory / "again", [1000], seed=4711, repository=image.repository, tag=image.tag)
    lab.registry.push(again)
    wait_until(lambda: "Warning" not in manifest(node, image).headers, "the registry is asked again", timeout_s=BACK_S)
    await pull(node, image.name(NAME), fresh=True)
    assert node.containerd.verified(again)


async def test_a_slow_registry_is_waited_for_once(lab: Lab) -> None:
    """Through 24 Mbit/s a layer arrives at the rate of the link, once for two pulls at the same time, all right."""
    node = lab.nodes[0]
    image = pushed(lab, 5 * MIB)
    node.agent.start()
    lab.registry.host.shape(24_000_000)
    before = lab.registry.host.sent_bytes()

    target = f"/v2/{image.repository}/blobs/{image.layers[0]}?ns={NAME}"
    replies: list[Reply] = []

    def ask() -> None:
        replies.append(node.host.request(REGISTRY_PORT, target, timeout_s=60))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull, node, image.name(NAME))
        nursery.start_soon(trio.to_thread.run_sync, ask)

    assert node.containerd.verified(image)
    assert replies[0].body == image.blob(image.layers[0]).read_bytes()
    assert lab.registry.host.sent_bytes() - before < 1.2 * image.size
    assert lab.registry.asked(image.layers[0]) == 1


@pytest.mark.parametrize("status", [429, pytest.param(500, marks=pytest.mark.long), 503])
async def test_a_registry_that_refuses_for_a_moment(lab: Lab, proxy: FaultProxy, status: int) -> None:
    """A cached image is pulled though its registry says 429 or 5xx to everything; a new one by containerd itself."""
    node = lab.nodes[0]
    image, new = pushed(lab, 300 * KIB), pushed(lab, 200 * KIB)
    await pull(node, image.name(NAME))
    proxy.on("", answer(status, {"Retry-After": "600"} if status == 429 else {}))

    await pull(node, image.name(NAME), fresh=True)
    assert node.containerd.verified(image)
    reply = await trio.to_thread.run_sync(manifest, node, image)  # the proxy is served by this thread
    assert "Stale" in reply.headers["Warning"]
    asked = len(proxy.asked)
    write_hosts(node.containerd.certs, NAME, upstream=lab.registry.url, mirrors=[node.agent.url])
    await pull(node, new.name(NAME), fresh=True)

    assert node.containerd.verified(new)
    assert len(proxy.asked) - asked <= 4, "a registry that wants to be left alone is left alone"


async def test_a_body_that_is_cut_goes_on_at_the_next_byte(lab: Lab, proxy: FaultProxy) -> None:
    """Upstream cuts a layer twice and hangs up once: one response to containerd, right, and not one byte twice."""
    node = lab.nodes[0]
    image = pushed(lab, 2 * MIB)
    layer = image.layers[0]
    proxy.on(f"GET /v2/{image.repository}/blobs/{layer}", cut(700_000), times=2)
    proxy.on(f"GET /v2/{image.repository}/blobs/{layer}", hang_up, times=1)

    await pull(node, image.name(NAME))

    assert node.containerd.verified(image)
    starts = [each.headers.get("range") for each in proxy.asked if layer in each.target and each.method == "GET"]
    assert starts == [None, "bytes=700000-", "bytes=1400000-", "bytes=1400000-"]
    assert outcomes(node.agent, "cut") == 0
    assert len([path for path in blobs_in(cache_of(node.agent)) if layer.endswith(path.name)]) == 1


async def test_wrong_bytes_are_neither_kept_nor_given_a_clean_end(lab: Lab, proxy: FaultProxy) -> None:
    """A registry's wrong bytes fail the pull; they are in no cache, and the next pull, of right ones, succeeds.

    It may have given some of them to containerd, which goes on behind them until it has collected them.
    """
    node = lab.nodes[0]
    image = pushed(lab, MIB)
    layer = image.layers[0]
    size = image.sizes[layer]
    wrong = b"\0" * size
    proxy.on(f"GET /v2/{image.repository}/blobs/{layer}", answer(200, {}, wrong))

    with pytest.raises(PullFailed):
        await pull(node, image.name(NAME))
    assert not [path for path in blobs_in(cache_of(node.agent)) if layer.endswith(path.name)]
    assert not begun_in(cache_of(node.agent))

    proxy.clear()
    collected = partial(wait_until, lambda: not node.containerd.has_half(), "it is collected", timeout_s=BACK_OFF_S)
    await trio.to_thread.run_sync(collected)
    await pull(node, image.name(NAME), fresh=True)
    assert node.containerd.verified(image)
