"""All nodes begin the same pull at the same moment, over links of 100 Mbit/s: the registry sends one copy.

The bounds here are those of a test: the copies exactly as promised, the times with room for a busy machine. What was
measured is printed, for docs/performance.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import floor, log2
from pathlib import Path

import pytest
import trio

from tests.lab.builds import distribution_build
from tests.lab.hosts import write_hosts
from tests.lab.images import Image
from tests.lab.lab import Lab, Node, at_once
from tests.lab.registry import NAME
from tests.lab.through import Upstream, ask_the_agent_alone, fetch_through

pytestmark = pytest.mark.lab

MIB = 1 << 20
RATE_BITS = 100_000_000
COPIES_MAX = 1.06  # manifests and configs come beside the layers, for each node
PIECE_BYTES = 4 * MIB


def made(count: int) -> Iterator[Lab]:
    build = distribution_build()
    assert build is not None
    with Lab(count, build) as lab:
        for node in lab.nodes:
            fetch_through(node.agent, Upstream(lab.registry.url))
        lab.start()
        for node in lab.nodes:
            ask_the_agent_alone(node)
        yield lab


@pytest.fixture(scope="module")
def four(lab_run: object) -> Iterator[Lab]:
    """Make four nodes whose agents fetch."""
    yield from made(4)


@pytest.fixture(scope="module")
def eight(lab_run: object) -> Iterator[Lab]:
    """Make eight."""
    yield from made(8)


@pytest.fixture
def lab(four: Lab) -> Iterator[Lab]:
    """Give the four as they were."""
    four.repair()
    yield four
    four.network.heal()


@pytest.fixture
def large(eight: Lab) -> Iterator[Lab]:
    """Give the eight as they were."""
    eight.repair()
    yield eight
    eight.network.heal()


def shape(lab: Lab, *, upstream_bits: int = RATE_BITS) -> None:
    """Give every node 100 Mbit/s each way, and the registry what is said."""
    for node in lab.nodes:
        node.host.shape(RATE_BITS)
    lab.registry.host.shape(upstream_bits)


def optimum_s(size: int, pulling: int, *, bits: int = RATE_BITS) -> float:
    """Return (S/u)(1 + floor(log2 N)/M), J. Mundinger, R. Weber, G. Weiss (2008)."""
    return size * 8 / bits * (1 + floor(log2(pulling)) / max(1, size // PIECE_BYTES))


async def stampede(
    lab: Lab, image: Image, nodes: list[Node], *, stagger_s: float = 0.0, during: Callable[[], object] | None = None
) -> tuple[list[float], list[BaseException | None]]:
    """Pull on these nodes, one start after another; return the seconds that each took, and what each raised."""
    seconds: list[float] = []

    def one(node: Node, delay_s: float) -> None:
        time.sleep(delay_s)
        began = time.monotonic()
        node.containerd.pull(image.name(NAME))
        seconds.append(time.monotonic() - began)

    calls: list[Callable[[], object]] = [partial(one, node, number * stagger_s) for number, node in enumerate(nodes)]
    if during is not None:
        calls.append(during)
    outcomes = await at_once(*calls)
    return sorted(seconds), outcomes


def told(what: str, seconds: list[float], copies: float, beside: str) -> None:
    """Print two lines for people; `beside`: what to see it beside."""
    print(f"{what}: last {seconds[-1]:.1f} s, median {seconds[len(seconds) // 2]:.1f} s,")  # noqa: T201
    print(f"    {beside}, {copies:.3f} upstream copies")  # noqa: T201


async def pulled(lab: Lab, what: str, layers: list[int], **options: object) -> tuple[float, float]:
    """Push an image of these layers, pull it everywhere, check it; return the last one's seconds and the copies."""
    image = lab.image(layers)
    lab.registry.push(image)
    shape(lab, upstream_bits=int(str(options.pop("upstream_bits", RATE_BITS))))
    before = lab.registry.sent_bytes()
    seconds, outcomes = await stampede(lab, image, lab.nodes, **options)  # type: ignore[arg-type]
    copies = (lab.registry.sent_bytes() - before) / sum(layers)
    assert [each for each in outcomes if each is not None] == []
    assert all(node.containerd.verified(image) for node in lab.nodes)
    told(f"{len(lab.nodes)} nodes, {what}", seconds, copies, f"optimum {optimum_s(sum(layers), len(lab.nodes)):.1f} s")
    return seconds[-1], copies


async def test_four_nodes_pull_a_cold_layer_at_once(lab: Lab) -> None:
    """One copy comes from the registry; nobody waits for twice the optimum, where four copies would take four times.

    Its manifest is asked for once, where four nodes would ask four times; the tag by each at most, since only those
    that ask at the same moment share an answer.
    """
    before = asked(lab)
    last_s, copies = await pulled(lab, "64 MiB, all at once", [64 * MIB])
    heads, manifests, blobs = (after - earlier for after, earlier in zip(asked(lab), before, strict=True))
    print(f"    {heads} questions for the tag, {manifests} for the manifest, {blobs} for blobs")  # noqa: T201
    assert copies <= COPIES_MAX
    assert last_s < 3 * optimum_s(64 * MIB, 4)
    assert 1 <= heads <= 4
    assert 1 <= manifests < 4, "one, and one more for each process that stood still"


def asked(lab: Lab) -> tuple[int, int, int]:
    """Return how often the registry was asked what a tag names, for a manifest, and for a blob."""
    registry = lab.registry
    return registry.asked("/manifests/", method="HEAD"), registry.asked("/manifests/"), registry.asked("/blobs/")


@pytest.mark.long
async def test_the_leader_is_killed_half_way(lab: Lab) -> None:
    """The others go on with what they have; somebody else fetches the rest; every byte is right."""
    image = lab.image([64 * MIB])
    lab.registry.push(image)
    shape(lab)
    before = lab.registry.sent_bytes()
    killed: list[Node] = []

    def kill_the_leader() -> None:
        time.sleep(3)
        for node in lab.nodes:
            transfers = node.agent.status()["transfers"]
            if any(each["registry"] for each in transfers):
                node.agent.kill()
                killed.append(node)
                return

    _, outcomes = await stampede(lab, image, lab.nodes, during=kill_the_leader)
    assert len(killed) == 1
    for node, outcome in zip(lab.nodes, outcomes, strict=False):
        assert node in killed or outcome is None
        assert node in killed or node.containerd.verified(image)
    assert (lab.registry.sent_bytes() - before) / (64 * MIB) <= 1.6


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "layers", "options", "limit_s"),
    [
        ("256 MiB, all at once", [256 * MIB], {}, 90),
        ("4 layers of 64 MiB, all at once", [64 * MIB] * 4, {}, 90),
        ("256 MiB, starts 5 s apart", [256 * MIB], {"stagger_s": 5.0}, 90),
        ("64 MiB, registry at 20 Mbit/s", [64 * MIB], {"upstream_bits": 20_000_000}, 60),
    ],
)
async def test_eight_nodes(
    large: Lab, what: str, layers: list[int], options: dict[str, object], limit_s: float
) -> None:
    """The table of the project's aims: one copy from the registry, in half the time that eight copies would take."""
    last_s, copies = await pulled(large, what, layers, **options)
    assert copies <= COPIES_MAX
    assert last_s < limit_s


@pytest.mark.long
async def test_one_of_eight_has_it_and_the_registry_is_gone(large: Lab) -> None:
    """Seven pull from one: all succeed, and soon."""
    image = large.image([256 * MIB])
    large.registry.push(image)
    await trio.to_thread.run_sync(large.nodes[0].containerd.pull, image.name(NAME))
    await trio.sleep(5)
    large.registry.stop()
    shape(large)
    seconds, outcomes = await stampede(large, image, large.nodes[1:])
    told("8 nodes, 256 MiB, one has it, 7 pull", seconds, 0.0, f"optimum {optimum_s(256 * MIB, 7):.1f} s")
    assert outcomes == [None] * 7
    assert all(node.containerd.verified(image) for node in large.nodes)
    assert seconds[-1] < 90


@pytest.mark.long
async def test_unshaped_links_beside_no_mirror(large: Lab) -> None:
    """Where links are as fast as memory the registry sends one copy instead of eight; what that costs is printed."""
    for _ in range(2):
        for is_mirrored in (True, False):
            for node in large.nodes:
                if is_mirrored:
                    ask_the_agent_alone(node)
                else:
                    write_hosts(node.containerd.certs, NAME, upstream=large.registry.url, mirrors=[large.registry.url])
            image = large.image([256 * MIB])
            large.registry.push(image)
            before, busy_before_s = large.registry.sent_bytes(), busy_s()
            seconds, outcomes = await stampede(large, image, large.nodes)
            copies = (large.registry.sent_bytes() - before) / (256 * MIB)
            what = "8 nodes, 256 MiB, unshaped, " + ("by the mirror" if is_mirrored else "without a mirror")
            told(what, seconds, copies, f"{busy_s() - busy_before_s:.1f} s of processor time, the kernel's too")
            assert outcomes == [None] * 8
            assert copies <= COPIES_MAX if is_mirrored else copies > 7.5
    for node in large.nodes:
        ask_the_agent_alone(node)


def busy_s() -> float:
    """Return for how many seconds the processors of this machine have been at work since it was started."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
