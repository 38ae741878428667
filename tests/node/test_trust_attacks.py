"""What somebody on the path can do with the traffic of a cluster under a key: send it again, elsewhere, changed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio
from trio.testing import MockClock

from p2pmirror.config.keyfile import parse_keys
from p2pmirror.routing.dht.seal import KeyedSeal
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND
from p2pmirror.wire.keyring import KeyRing
from tests.node.cluster import DEATH_S, REGISTRY_PORT, ROUTER_PORT, Cluster, CountingFiles, Member, cluster
from tests.node.test_trust import CLIENT, IMAGE, KEY_FILE, OLD, known
from tests.store.images import Image

LATER_S = 61.0  # when what is bound to a minute is worth nothing any more
STRANGER = "10.66.66.66"
MUTANTS = 20_000


@dataclass
class Port:
    """A router's port through which a test hands in datagrams from any address, and sees what is sent."""

    inner: Any
    take: Any = None
    sent: list[tuple[bytes, Address]] = field(default_factory=list)

    @property
    def address(self) -> Address:
        return self.inner.address

    def send(self, data: bytes, to: Address) -> None:
        self.sent.append((data, to))
        self.inner.send(data, to)

    async def deliver(self, take: Any) -> None:
        self.take = take
        await self.inner.deliver(take)

    async def aclose(self) -> None:
        await self.inner.aclose()

    def answers(self, data: bytes, source: Address) -> list[bytes]:
        """Hand in a datagram as if it came from `source`; return what goes there at once."""
        self.sent.clear()
        self.take(data, source)
        return [answer for answer, to in self.sent if to == source]


class Tapped:
    """A host's network, whose router port is a `Port`."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.port: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    async def open_datagrams(self, address: Address) -> Port:
        self.port = Port(await self.network.open_datagrams(address))
        return self.port


@dataclass
class Wire:
    """Three nodes under one key, the first of which holds the image, and all that has passed between them."""

    nodes: Cluster
    heard: list[tuple[str, Address, Address, bytes]] = field(default_factory=list)

    def note(self, kind: str, now: float, source: Address, target: Address, data: bytes) -> None:
        self.heard.append((kind, source, target, bytes(data)))

    def datagrams(self, source: Member, target: Member) -> list[bytes]:
        """Return what went from one router to another."""
        ends = (Address(source.host, ROUTER_PORT), Address(target.host, ROUTER_PORT))
        found = [data for kind, one, other, data in self.heard if kind == "datagram" and (one, other) == ends]
        assert found, f"{source.host} said nothing to {target.host}"
        return found

    def requests(self, source: Member, target: Member) -> list[bytes]:
        """Return the heads of a peer's requests, as they went over the wire."""
        ends = (source.host, Address(target.host, REGISTRY_PORT))
        found = [data for kind, one, other, data in self.heard if kind == "stream" and (one.host, other) == ends]
        found = [data for data in found if b"p2pmirror-auth:" in data.lower()]
        assert found, f"{source.host} asked {target.host} for nothing"
        return found

    async def add(self, image: Image | None = None, **given: Any) -> Member:
        files = given.pop("files", None) or CountingFiles()
        files.put(KEY_FILE, OLD)
        host = given.pop("host", f"10.0.0.{len(self.nodes.members) + 1}")
        network = given.pop("network", None) or Tapped(self.nodes.world.host(host))
        settings = {"peer_key_file": str(KEY_FILE), "allowed_clients": CLIENT, "data_dir": "/data"}
        return await self.nodes.add(host, image=image, files=files, network=network, **settings)

    async def restarted(self, member: Member) -> Member:
        """Stop a node in order and start it again on its host and disk, as the same node."""
        member.stop.set()
        await member.ended.wait()
        fresh = await self.add(files=member.files, network=member.network, host=member.host)
        await self.nodes.ready(fresh)
        assert fresh.id == member.id
        return fresh


@asynccontextmanager
async def wire():
    """Yield three nodes that have met, after a pull by the second and the third one, all of it overheard."""
    async with cluster() as nodes:
        overheard = Wire(nodes)
        nodes.world.observe = overheard.note
        for image in (IMAGE, None, None):
            await overheard.add(image)
        await nodes.ready()
        for member in nodes.members[1:]:
            await nodes.pulls(member, IMAGE)
        yield overheard


async def status(nodes: Cluster, network: Any, target: Member, request: bytes) -> int:
    """Send bytes to a registry port from a host; return the status of the answer."""
    stream = await network.connect(Address(target.host, REGISTRY_PORT))
    try:
        await stream.send_all(request)
        with trio.fail_after(10):
            return int((await stream.receive_some(1 << 16)).split(b" ", 2)[1])
    finally:
        stream.abort()


# --- requests ---


async def test_a_request_sent_again_is_answered_for_a_minute_at_most(autojump_clock: MockClock) -> None:
    """Whoever overheard a request may ask for the same bytes again within a minute; later it is 403 from anywhere."""
    async with wire() as world:
        first, second, third = world.nodes.members
        stranger = world.nodes.world.host(STRANGER)
        for request in world.requests(second, first):
            assert await status(world.nodes, stranger, first, request) in {200, 206}
        await trio.sleep(LATER_S)
        for request in world.requests(second, first):
            for network in (stranger, second.network, third.network):
                assert await status(world.nodes, network, first, request) == 403


async def test_a_request_is_worth_nothing_after_a_restart(autojump_clock: MockClock) -> None:
    """What was signed for a node before its restart is 403 at once after it."""
    async with wire() as world:
        first, second, _ = world.nodes.members
        again = await world.restarted(first)
        for request in world.requests(second, first):
            assert await status(world.nodes, second.network, again, request) == 403


async def test_a_request_is_for_whom_it_was_sent_to(autojump_clock: MockClock) -> None:
    """Sent on to another node, or back to its own sender, it is 403."""
    async with wire() as world:
        first, second, third = world.nodes.members
        for request in world.requests(second, first):
            for target in (second, third):
                assert await status(world.nodes, world.nodes.client_host, target, request) == 403


async def test_a_request_cannot_be_changed(autojump_clock: MockClock) -> None:
    """Another method, path, registry, range or sender in an overheard request: 403."""
    async with wire() as world:
        first, second, third = world.nodes.members
        request = next(each for each in world.requests(second, first) if each.startswith(b"GET "))
        changed = [
            request.replace(b"GET ", b"HEAD ", 1),
            request.replace(b"/v2/app/", b"/v2/other/", 1),
            request.replace(b"registry.example", b"docker.io", 1),
            request.replace(b"\r\n\r\n", b"\r\nRange: bytes=1-\r\n\r\n"),
            request.replace(second.id.encode(), third.id.encode()),
            request.replace(second.id.encode(), second.id.upper().encode()[:-1] + b"0"),
        ]
        assert await status(world.nodes, second.network, first, request) == 200
        for each in changed:
            assert each != request
            assert await status(world.nodes, second.network, first, each) == 403


async def test_a_request_without_its_proof_is_a_strangers(autojump_clock: MockClock) -> None:
    """With the proof cut out it is 403, and so it is when the sender is cut out too."""
    async with wire() as world:
        first, second, _ = world.nodes.members
        for request in world.requests(second, first):
            lines = request.split(b"\r\n")
            unsigned = b"\r\n".join(each for each in lines if not each.lower().startswith(b"p2pmirror-auth"))
            nameless = b"\r\n".join(each for each in lines if not each.lower().startswith(b"p2pmirror-"))
            for each in (unsigned, nameless):
                assert await status(world.nodes, second.network, first, each) == 403


# --- datagrams ---


def allowance(data: bytes, answers: list[bytes]) -> None:
    """Hold that a stranger got no more than it sent, and got one answer at most."""
    assert len(answers) <= 1
    assert sum(map(len, answers)) <= len(data)


async def test_a_strangers_copy_brings_no_more_than_it_costs(autojump_clock: MockClock) -> None:
    """Datagrams sent again from another address, now and later: never an answer longer than the question."""
    async with wire() as world:
        first, second, _ = world.nodes.members
        stranger = Address(STRANGER, 5353)
        for wait_s in (0.0, LATER_S):
            await trio.sleep(wait_s)
            for data in world.datagrams(second, first):
                allowance(data, first.network.port.answers(data, stranger))
        assert STRANGER not in str(await world.nodes.page_json(first, "/api/v1/members"))


async def test_old_datagrams_change_nothing(autojump_clock: MockClock) -> None:
    """A node that has left is not brought back by what it once said, from its own address, a minute later."""
    async with wire() as world:
        first, second, third = world.nodes.members
        port, own = first.network.port, Address(third.host, ROUTER_PORT)
        said = world.datagrams(third, first)
        third.stop.set()
        await third.ended.wait()
        await trio.sleep(LATER_S)
        for data in said:
            allowance(data, port.answers(data, own))
        await trio.sleep(5)
        assert await known(world.nodes, first) == {second.id}
        assert await known(world.nodes, second) == {first.id}


async def test_fresh_copies_bring_nobody_back_for_long(autojump_clock: MockClock) -> None:
    """What a node said in its last minute, sent again from its address once it left: named no more 10 s later."""
    async with wire() as world:
        first, second, third = world.nodes.members
        third.stop.set()
        await third.ended.wait()
        for data in world.datagrams(third, first):
            first.network.port.take(data, Address(third.host, ROUTER_PORT))
        await trio.sleep(DEATH_S)
        assert await known(world.nodes, first) == {second.id}
        assert await known(world.nodes, second) == {first.id}
        await world.nodes.pulls(second, IMAGE)


async def test_datagrams_are_worth_nothing_after_a_restart(autojump_clock: MockClock) -> None:
    """What was said to a node before its restart brings a challenge at the most after it."""
    async with wire() as world:
        first, second, third = world.nodes.members
        said = [(each, data) for each in (second, third) for data in world.datagrams(each, first)]
        again = await world.restarted(first)
        for sender, data in said:
            allowance(data, again.network.port.answers(data, Address(sender.host, ROUTER_PORT)))


async def test_a_datagram_is_for_whom_it_was_sent_to(autojump_clock: MockClock) -> None:
    """Sent on to a third node, or back to its own sender, from whatever address: a challenge at the most."""
    async with wire() as world:
        first, second, third = world.nodes.members
        for data in world.datagrams(second, first):
            for target in (second, third):
                for source in (first, second, third):
                    allowance(data, target.network.port.answers(data, Address(source.host, ROUTER_PORT)))


async def test_changed_and_invented_datagrams_get_no_answer(autojump_clock: MockClock) -> None:
    """Overheard datagrams with a few bytes changed, cut or joined, and any bytes at all: silence, and a count."""
    async with wire() as world:
        first, second, third = world.nodes.members
        port, random = first.network.port, Random(7)
        seeds = [data for each in (second, third) for data in world.datagrams(each, first)]
        before = await dropped(world.nodes, first)
        for _ in range(MUTANTS):
            data = mutated(random, seeds)
            source = random.choice([Address(STRANGER, 5353), Address(second.host, ROUTER_PORT)])
            assert data in seeds or port.answers(data, source) == []
        assert await dropped(world.nodes, first) - before > 0.9 * MUTANTS
        assert await known(world.nodes, first) == {second.id, third.id}


async def test_a_member_may_send_anything(long: bool, autojump_clock: MockClock) -> None:  # a fixture
    """Changed and invented messages under the right key, bound to this very minute: no bug, and pulls go on."""
    async with wire() as world:
        first, second, third = world.nodes.members
        port, random, seal = first.network.port, Random(8), KeyedSeal(KeyRing(parse_keys(OLD)))
        seeds = [seal.open(data)[0] for each in (second, third) for data in world.datagrams(each, first)]
        bindings = [seal.open(data)[1] for data in world.datagrams(second, first)]
        bound = max(bindings, key=lambda binding: binding.clock_ms)
        assert bound != UNBOUND
        for _ in range(5 * MUTANTS if long else MUTANTS // 4):
            port.take(seal.seal(mutated(random, seeds), bound), Address(second.host, ROUTER_PORT))
        await trio.sleep(DEATH_S)
        assert await known(world.nodes, first) == {second.id, third.id}
        for member in world.nodes.members:
            await world.nodes.pulls(member, IMAGE)


def mutated(random: Random, seeds: list[bytes]) -> bytes:
    """Return a datagram that nobody sent."""
    data = bytearray(random.choice(seeds))
    match random.randrange(5):
        case 0:
            return random.randbytes(random.randrange(1300))
        case 1:
            return bytes(data[: random.randrange(len(data))])
        case 2:
            return bytes(data + random.randbytes(random.randint(1, 20)))
        case 3:
            return bytes(data[: random.randrange(len(data))] + random.choice(seeds)[random.randrange(40) :])
        case _:
            for _ in range(random.randint(1, 4)):
                data[random.randrange(len(data))] ^= random.randint(1, 255)
            return bytes(data)


async def dropped(nodes: Cluster, member: Member) -> float:
    """Return how many datagrams a node has dropped, for whatever reason."""
    lines = (await nodes.page(member, "/metrics")).body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("p2pmirror_routing_dropped_total{"))
