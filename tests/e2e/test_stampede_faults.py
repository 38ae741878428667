"""Real nodes pull the same layers at once while a leader stands still, peers lie, or agents are killed.

What is promised in each: no containerd holds a wrong blob at any time after, and every pull succeeds, at the latest
when the kubelet tries again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest
import trio

from p2pmirror.peers.piecemap import decode, encode
from p2pmirror.wire.identity import PIECE_HEADER
from p2pmirror.wire.ranges import parse_content_range
from simulations.lying import LIES, Lie
from tests.lab import liar
from tests.lab.builds import distribution_build
from tests.lab.containerd import Build, PullFailed
from tests.lab.images import Image
from tests.lab.lab import Lab, Node, at_once
from tests.lab.liar import Liar
from tests.lab.network import Reply
from tests.lab.plugin import find_build
from tests.lab.registry import NAME
from tests.lab.through import Upstream, ask_the_agent_alone, cache_of, fetch_through

pytestmark = [pytest.mark.lab, pytest.mark.long]

MIB = 1 << 20
RATE_BITS = 100_000_000
LAYER_BYTES = 48 * MIB  # four seconds at this rate
NODES = 4
PULLS_MAX = 12  # three seconds apart; a kubelet tries for ever
FIRST_S = 1.0  # the node that is to lead begins so much before the others
KILLS = 100


def made(build: Build | None, count: int = NODES, *, behind_liars: bool = False) -> Iterator[Lab]:
    assert build is not None
    with Lab(count, build) as lab:
        for node in lab.nodes:
            fetch_through(node.agent, Upstream(lab.registry.url))
            ask_the_agent_alone(node)
            if behind_liars:
                node.agent.settings |= liar.settings(node.host)
        yield lab


@pytest.fixture(scope="module")
def four(lab_run: object) -> Iterator[Lab]:
    """Make four nodes whose agents fetch."""
    for lab in made(distribution_build()):
        lab.start()
        yield lab


@pytest.fixture
def lab(four: Lab) -> Iterator[Lab]:
    """Give the four as they were."""
    four.repair()
    shape(four)
    yield four
    four.repair()


def shape(lab: Lab) -> None:
    """Give everybody 100 Mbit/s each way."""
    for host in lab.network.hosts.values():
        host.shape(RATE_BITS)


def pulls(node: Node, image: Image, delay_s: float, *, tries: int = PULLS_MAX) -> Callable[[], None]:
    """Return what pulls as a kubelet does: again after a while when it fails."""

    def pull() -> None:
        time.sleep(delay_s)
        for left in reversed(range(tries)):
            try:
                node.containerd.pull(image.name(NAME))
            except PullFailed:
                if not left:
                    raise
                time.sleep(3)
            else:
                return

    return pull


def look(lab: Lab) -> None:
    """See that no containerd, and no cache, holds a blob that is not what its name says."""
    for node in lab.nodes:
        for directory in (node.containerd.content / "blobs", cache_of(node.agent) / "blobs"):
            for path in [path for path in directory.rglob("*") if path.is_file()]:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path


async def stampede(lab: Lab, image: Image, *during: Callable[[], object]) -> None:
    """Let the first node begin, then the others; all succeed, and nobody holds anything wrong."""
    delays = [0.0] + [FIRST_S] * (len(lab.nodes) - 1)
    calls = [pulls(node, image, delay) for node, delay in zip(lab.nodes, delays, strict=True)]
    outcomes = await at_once(*calls, *during)
    look(lab)
    assert outcomes == [None] * len(outcomes)
    assert all(node.containerd.verified(image) for node in lab.nodes)


async def test_the_leader_is_stopped(lab: Lab) -> None:
    """SIGSTOP in the middle: its sockets stay open and say nothing; somebody else leads, and it goes on afterwards."""
    image = lab.image([LAYER_BYTES])
    lab.registry.push(image)
    before = lab.registry.sent_bytes()
    process = lab.nodes[0].agent.process
    assert process is not None

    def stop() -> None:
        time.sleep(2.5)
        process.pause()
        time.sleep(15)
        process.resume()

    await stampede(lab, image, stop)
    assert (lab.registry.sent_bytes() - before) / LAYER_BYTES <= 2.3


# --- lies ---


def changes(lie: Lie, image: Image) -> liar.Change:
    """Return what a liar makes of an agent's answers about flights."""

    def change(target: str, reply: Reply) -> Reply:
        digest = target.removeprefix(liar.FLIGHTS).partition("?")[0].removesuffix("/next")
        if not reply.body or digest not in image.sizes:
            return reply
        if target.partition("?")[0].endswith("/next"):
            body = lie.bytes_of(reply.body)
            name = next(each for each in reply.headers if each.lower() == PIECE_HEADER.lower())
            headers = {**reply.headers, name: lie.hash_of(reply.headers[name], body)}
            return replace(reply, headers=headers, body=body)
        truth = image.blob(digest).read_bytes()
        return replace(reply, body=encode(lie.map(decode(reply.body), truth)))

    return change


def falsifies(lie: Lie) -> liar.Lie:
    """Return what a liar makes of blobs, and of parts of them; small ones it passes on."""

    def write(client: object, reply: Reply) -> None:
        offset = 0
        if "Content-Range" in reply.headers:
            offset = parse_content_range(reply.headers["Content-Range"])[0].offset
        before = offset % 4096
        body = lie.bytes_of(bytes(before) + reply.body)[before:] if len(reply.body) > MIB else reply.body
        liar.honest(client, replace(reply, body=body))  # type: ignore[arg-type]

    return write


@pytest.fixture(scope="module")
def hiding(lab_run: object) -> Iterator[Lab]:
    """Make four nodes before which liars may stand; without one a node is in the cluster, and cannot be asked."""
    for lab in made(distribution_build(), behind_liars=True):
        lab.start()
        shape(lab)
        yield lab


@pytest.mark.parametrize("lie", ["bytes", "bytes-and-hashes", "hashes"])
@pytest.mark.parametrize("number", [0, 1], ids=["leader", "peer"])
async def test_one_lies(hiding: Lab, lie: str, number: int) -> None:
    """A leader, or a peer, gives wrong pieces, wrong hashes, or both so that they match."""
    image = hiding.image([LAYER_BYTES])
    hiding.registry.push(image)
    standing = [Liar(node.host, liar.honest) for node in hiding.nodes]
    standing[number].lie, standing[number].change = falsifies(LIES[lie]), changes(LIES[lie], image)
    try:
        await stampede(hiding, image)
    finally:
        for each in standing:
            each.__exit__()


# --- deaths ---


async def test_agents_are_killed_at_any_moment(lab: Lab) -> None:
    """Whichever agent it is and whenever: all pulls succeed, its own once it runs again, and nothing is wrong."""
    random = Random(1)
    for number in range(KILLS):
        image = lab.image([12 * MIB, 5 * MIB])
        lab.registry.push(image)
        victim, after_s = random.choice(lab.nodes), random.uniform(0, 2.5)

        def kill(victim: Node = victim, after_s: float = after_s) -> None:
            time.sleep(after_s)
            victim.agent.kill()
            victim.agent.start()

        outcomes = await at_once(*(pulls(node, image, 0.0) for node in lab.nodes), kill)
        assert outcomes == [None] * len(outcomes), f"kill {number} of {victim.host.name} after {after_s:.2f} s"
        assert all(node.containerd.verified(image) for node in lab.nodes)
        look(lab)
        for node in lab.nodes:
            node.agent.wait_for_members(len(lab.nodes))


# --- other containerds ---


@pytest.fixture(scope="module")
def discarding(lab_run: object) -> Iterator[Lab]:
    """Make three nodes whose containerds keep no layer that they have unpacked."""
    for lab in made(distribution_build(), 3):
        for node in lab.nodes:
            node.containerd.discards = True
        lab.start()
        yield lab


def discard(node: Node, image: Image) -> None:
    """Have containerd collect what no image needs now: it does so with this removal, else when enough has changed."""
    name, other = image.name(NAME), f"{image.name(NAME)}-again"
    node.containerd.ctr("images", "tag", name, other)
    node.containerd.ctr("images", "remove", "--sync", other)


async def test_layers_that_containerd_discards(discarding: Lab) -> None:
    """With the registry gone, a node gets from one that fetched, and the next from one that got it from there."""
    first, second, third = discarding.nodes
    image = discarding.image([9 * MIB, 2 * MIB])
    discarding.registry.push(image)
    await trio.to_thread.run_sync(pulls(first, image, 0.0))
    await trio.to_thread.run_sync(discard, first, image)
    assert not first.containerd.digests() & set(image.layers)
    discarding.registry.stop()
    await trio.to_thread.run_sync(pulls(second, image, 0.0))
    await trio.sleep(40)  # what came from a peer lingers for 30 s, and is kept when containerd will discard it
    await trio.to_thread.run_sync(discard, second, image)
    assert not second.containerd.digests() & set(image.layers)
    first.agent.kill()
    await trio.to_thread.run_sync(pulls(third, image, 0.0))
    for node in discarding.nodes:
        assert image.name(NAME) in node.containerd.names()
    look(discarding)


@pytest.fixture(scope="module")
def ranging(lab_run: object) -> Iterator[Lab]:
    """Make three nodes with a containerd 2.x that fetches in ranges."""
    for lab in made(find_build("2.x"), 3):
        for node in lab.nodes:
            node.containerd.fetch_buffer_bytes = 2 * MIB
        lab.start()
        yield lab


async def test_parallel_ranges_at_once_everywhere(ranging: Lab) -> None:
    """Each containerd asks for many ranges at a time, all at the same moment: one copy comes, and all are right."""
    image = ranging.image([32 * MIB], gzipped=True)
    ranging.registry.push(image)
    shape(ranging)
    before = ranging.registry.sent_bytes()
    await stampede(ranging, image)
    assert (ranging.registry.sent_bytes() - before) / image.size <= 1.1
