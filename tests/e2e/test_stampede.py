"""All nodes begin the same pull at the same moment, over links of 100 Mbit/s: the registry sends one copy.

The bounds here are those of a test: the copies exactly as promised, the times with room for a busy machine. What was
measured is printed, for docs/performance.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import floor, log2
from pathlib import Path
from statistics import median

import pytest
import trio

from tests.lab.builds import containerd_2, containerd_2_at_hand, distribution_build
from tests.lab.containerd import Build
from tests.lab.hosts import write_hosts
from tests.lab.images import Image
from tests.lab.lab import Lab, Node, at_once
from tests.lab.process import wait_until
from tests.lab.registry import NAME
from tests.lab.through import Upstream, ask_the_agent_alone, fetch_through

pytestmark = pytest.mark.lab

MIB = 1 << 20
RATE_BITS = 100_000_000
LARGE_FRAME_BYTES = 9000
LOOK_S = 0.05  # between two looks whether a containerd has all of an image
COPIES_MAX = 1.06  # manifests and configs come beside the layers, for each node
PIECE_BYTES = 4 * MIB


@dataclass
class Pulls:
    """Seconds from each node's start until its containerd had all content, and until that was unpacked too."""

    arrived_s: list[float] = field(default_factory=list)
    unpacked_s: list[float] = field(default_factory=list)
    outcomes: list[BaseException | None] = field(default_factory=list)  # what each node raised

    @property
    def last_s(self) -> float:
        """When the last one had it."""
        return max(self.arrived_s)


def made(count: int, build: Build | None) -> Iterator[Lab]:
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
    yield from made(4, distribution_build())


@pytest.fixture(scope="module")
def eight(lab_run: object) -> Iterator[Lab]:
    """Make eight, of the newer containerd where it is at hand: it hashes for a quarter of the processor time."""
    yield from made(8, containerd_2() if containerd_2_at_hand() else distribution_build())


@pytest.fixture
def lab(four: Lab) -> Iterator[Lab]:
    """Give the four as they were."""
    four.repair()
    yield four
    four.network.heal()


@pytest.fixture
def large(eight: Lab) -> Iterator[Lab]:
    """Give the eight as they were, with large frames: this machine is the switch and all network cards, too."""
    eight.repair()
    set_mtu(eight, LARGE_FRAME_BYTES)
    yield eight
    eight.network.heal()
    remove_images(eight)


def shape(lab: Lab, *, upstream_bits: int = RATE_BITS) -> None:
    """Give every node 100 Mbit/s each way, and the registry what is said."""
    for node in lab.nodes:
        node.host.shape(RATE_BITS)
    lab.registry.host.shape(upstream_bits)


def remove_images(lab: Lab) -> None:
    """Make room on the one disk that all nodes share: a pull of 256 MiB by eight takes 6 GiB of it."""
    for node in lab.nodes:
        node.containerd.remove_all()


def set_mtu(lab: Lab, count: int) -> None:
    """Let all frames carry so many bytes."""
    for host in lab.network.hosts.values():
        host.set_mtu(count)


def optimum_s(size: int, pulling: int, *, bits: int = RATE_BITS) -> float:
    """Return (S/u)(1 + floor(log2 N)/M), J. Mundinger, R. Weber, G. Weiss (2008)."""
    return size * 8 / bits * (1 + floor(log2(pulling)) / max(1, size // PIECE_BYTES))


async def stampede(
    image: Image, nodes: list[Node], *, stagger_s: float = 0.0, during: Callable[[], object] | None = None
) -> Pulls:
    """Pull on these nodes, one start after another."""
    pulls = Pulls()
    pulling = set(range(len(nodes)))

    def pull(number: int) -> None:
        try:
            time.sleep(number * stagger_s)
            began = time.monotonic()
            nodes[number].containerd.pull(image.name(NAME))
            pulls.unpacked_s.append(time.monotonic() - began)
        finally:
            pulling.remove(number)

    def watch(number: int) -> None:
        time.sleep(number * stagger_s)
        began = time.monotonic()
        while not nodes[number].containerd.has_all(image):
            if number not in pulling:
                return
            time.sleep(LOOK_S)
        pulls.arrived_s.append(time.monotonic() - began)

    calls: list[Callable[[], object]] = [partial(do, number) for do in (pull, watch) for number in range(len(nodes))]
    pulls.outcomes = (await at_once(*calls, *([] if during is None else [during])))[: len(nodes)]
    return pulls


def told(what: str, pulls: Pulls, copies: float, beside: str) -> None:
    """Print two lines for people; `beside`: what to see it beside."""
    middle_s, unpacked_s = median(pulls.arrived_s), max(pulls.unpacked_s)
    print(f"{what}: last {pulls.last_s:.1f} s, median {middle_s:.1f} s, unpacked {unpacked_s:.1f} s,")  # noqa: T201
    print(f"    {beside}, {copies:.3f} upstream copies")  # noqa: T201


async def pulled(lab: Lab, what: str, layers: list[int], **options: object) -> tuple[float, float]:
    """Push an image of these layers, pull it everywhere, check it; return the last one's seconds and the copies."""
    image = lab.image(layers)
    lab.registry.push(image)
    shape(lab, upstream_bits=int(str(options.pop("upstream_bits", RATE_BITS))))
    before = lab.registry.sent_bytes()
    pulls = await stampede(image, lab.nodes, **options)  # type: ignore[arg-type]
    copies = (lab.registry.sent_bytes() - before) / sum(layers)
    assert [each for each in pulls.outcomes if each is not None] == []
    assert all(node.containerd.verified(image) for node in lab.nodes)
    told(f"{len(lab.nodes)} nodes, {what}", pulls, copies, f"optimum {optimum_s(sum(layers), len(lab.nodes)):.1f} s")
    return pulls.last_s, copies


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

    pulls = await stampede(image, lab.nodes, during=kill_the_leader)
    assert len(killed) == 1
    for node, outcome in zip(lab.nodes, pulls.outcomes, strict=True):
        assert node in killed or outcome is None
        assert node in killed or node.containerd.verified(image)
    assert (lab.registry.sent_bytes() - before) / (64 * MIB) <= 1.6


@pytest.mark.long
async def test_the_only_source_is_killed_half_way(lab: Lab) -> None:
    """One of four has it and gives half of it: what is lost comes from the registry once, for all who pull."""
    image = lab.image([256 * MIB])
    lab.registry.push(image)
    source, *others = lab.nodes
    await trio.to_thread.run_sync(source.containerd.pull, image.name(NAME))
    await trio.sleep(5)
    shape(lab)
    from_registry, from_source = lab.registry.sent_bytes(), source.host.sent_bytes()

    def kill_the_source() -> None:
        wait_until(lambda: source.host.sent_bytes() - from_source >= 128 * MIB, "half of it was given", timeout_s=60)
        source.agent.kill()

    pulls = await stampede(image, others, during=kill_the_source)
    copies = (lab.registry.sent_bytes() - from_registry) / (256 * MIB)
    told("4 nodes, 256 MiB, the only source killed half-way", pulls, copies, f"optimum {optimum_s(256 * MIB, 3):.1f} s")
    assert pulls.outcomes == [None] * 3
    assert all(node.containerd.verified(image) for node in others)
    assert copies <= 1.1
    assert pulls.last_s < 90


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
    pulls = await stampede(image, large.nodes[1:])
    told("8 nodes, 256 MiB, one has it, 7 pull", pulls, 0.0, f"optimum {optimum_s(256 * MIB, 7):.1f} s")
    assert pulls.outcomes == [None] * 7
    assert all(node.containerd.verified(image) for node in large.nodes)
    assert pulls.last_s < 90


@pytest.mark.long
async def test_eight_nodes_with_small_frames(large: Lab) -> None:
    """The first row of the table again: carrying six times as many frames is this machine's work, not the agents'."""
    set_mtu(large, 1500)
    _, copies = await pulled(large, "256 MiB, all at once, frames of 1,500 bytes", [256 * MIB])
    assert copies <= COPIES_MAX


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
            pulls = await stampede(image, large.nodes)
            copies = (large.registry.sent_bytes() - before) / (256 * MIB)
            what = "8 nodes, 256 MiB, unshaped, " + ("by the mirror" if is_mirrored else "without a mirror")
            told(what, pulls, copies, f"{busy_s() - busy_before_s:.1f} s of processor time, the kernel's too")
            assert pulls.outcomes == [None] * 8
            assert copies <= COPIES_MAX if is_mirrored else copies > 7.5
            remove_images(large)
    for node in large.nodes:
        ask_the_agent_alone(node)


def busy_s() -> float:
    """Return for how many seconds the processors of this machine have been at work since it was started."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
