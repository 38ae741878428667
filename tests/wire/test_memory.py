"""The simulated world keeps the promises of every network, and its faults are what they say."""

from random import Random

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.memory import Agenda, Link, MemoryNetwork, MemoryWorld
from tests.wire.agenda import TaskAgenda
from tests.wire.conformance import Conformance, Setup, receive_all
from tests.wire.datagrams import inbox


def two_hosts(
    link: Link | None = None, seed: int = 1, agenda: Agenda | None = None
) -> tuple[MemoryWorld, MemoryNetwork, MemoryNetwork]:
    world = MemoryWorld(Random(seed), link=link, agenda=agenda)
    return world, world.host("10.0.0.1", "fd00::1"), world.host("10.0.0.2", "fd00::2")


@pytest.mark.usefixtures("autojump_clock")
class TestMemory(Conformance):
    @pytest.fixture(params=["10.0.0.1", "fd00::1", "slow", "agenda", "slow agenda"])
    async def setup(self, request: pytest.FixtureRequest, nursery: trio.Nursery) -> Setup:
        agenda = TaskAgenda() if "agenda" in request.param else None
        if agenda is not None:
            nursery.start_soon(agenda.run)
        link = Link(latency_s=0.004) if "slow" in request.param else None
        world, server, client = two_hosts(link, agenda=agenda)
        host = request.param if request.param == "fd00::1" else "10.0.0.1"
        return Setup(server, client, host, lambda: world.open_streams)


async def joined(server: MemoryNetwork, client: MemoryNetwork):
    listener = await server.listen(Address("10.0.0.1", 80))
    stream = await client.connect(Address("10.0.0.1", 80))
    return stream, await listener.accept()


async def test_latency(autojump_clock) -> None:
    """A dial takes a round trip, and bytes one way."""
    _, server, client = two_hosts(Link(latency_s=0.05))
    begun = trio.current_time()
    ours, theirs = await joined(server, client)
    assert trio.current_time() - begun == pytest.approx(0.15)  # the server knows after the third word
    begun = trio.current_time()
    await ours.send_all(b"x")
    assert await theirs.receive_some(1) == b"x"
    assert trio.current_time() - begun == pytest.approx(0.05)


async def test_silence(autojump_clock) -> None:
    """A host without power answers nothing; when it comes back, its old connections are reset."""
    world, server, client = two_hosts()
    ours, _ = await joined(server, client)
    await ours.send_all(b"sent")
    world.power_off(server)
    with trio.move_on_after(100) as scope:
        await ours.receive_some(1)
    assert scope.cancelled_caught
    with trio.move_on_after(100) as scope:
        await client.connect(Address("10.0.0.1", 80))
    assert scope.cancelled_caught
    world.power_on(server)
    with pytest.raises(Unreachable, match="broke"):
        await ours.receive_some(1)
    with pytest.raises(Unreachable, match="refused"):
        await client.connect(Address("10.0.0.1", 80))


async def test_partition(autojump_clock) -> None:
    """A partition holds the bytes of a connection back and loses datagrams; healing lets the bytes through."""
    world, server, client = two_hosts(Link(latency_s=0.01))
    ours, theirs = await joined(server, client)
    one = await client.open_datagrams(Address("10.0.0.2", 53))
    other = await server.open_datagrams(Address("10.0.0.1", 53))
    world.partition([server], [client])
    await ours.send_all(b"late")
    one.send(b"lost", other.address)
    with trio.move_on_after(10) as scope:
        await theirs.receive_some(9)
    assert scope.cancelled_caught
    world.heal()
    assert await theirs.receive_some(9) == b"late"
    one.send(b"found", other.address)
    async with inbox(other) as received:
        assert (await received.receive())[0] == b"found"


async def test_kill(autojump_clock) -> None:
    """A killed process says FIN where it had read everything and reset where it had not; its ports refuse."""
    world, server, client = two_hosts()
    ours, _ = await joined(server, client)
    second = await client.connect(Address("10.0.0.1", 80))
    await second.send_all(b"unread")
    world.kill(server)
    assert await receive_all(ours) == b""
    with pytest.raises(Unreachable):
        await second.receive_some(1)
    with pytest.raises(Unreachable, match="refused"):
        await client.connect(Address("10.0.0.1", 80))


async def received(link: Link, seed: int, count: int) -> list[int]:
    _, server, client = two_hosts(link, seed)
    one = await client.open_datagrams(Address("10.0.0.2", 53))
    other = await server.open_datagrams(Address("10.0.0.1", 53))
    for number in range(count):
        one.send(bytes([number]), other.address)
    got: list[int] = []
    with trio.move_on_after(10):
        await other.deliver(lambda data, _: got.append(data[0]))
    return got


async def test_chance(autojump_clock) -> None:
    """Loss, doubling and overtaking come from the given Random: the same seed gives the same run."""
    assert await received(Link(), 1, 100) == list(range(100))
    lost = await received(Link(loss=0.3), 1, 200)
    assert 100 < len(lost) < 180
    assert lost == sorted(lost)
    doubled = await received(Link(duplication=0.3), 1, 200)
    assert 220 < len(doubled) < 300
    late = await received(Link(jitter_s=0.1), 1, 200)
    assert late != sorted(late)
    assert sorted(late) == list(range(200))
    wild = Link(loss=0.1, duplication=0.1, jitter_s=0.1)
    assert await received(wild, 7, 200) == await received(wild, 7, 200) != await received(wild, 8, 200)


async def test_names(autojump_clock) -> None:
    """Names come from the world's table, sorted, both families."""
    world, server, _ = two_hosts()
    world.names["mirror"] = ["fd00::2", "10.0.0.1", "10.0.0.1"]
    assert await server.resolve("mirror", 1) == [Address("10.0.0.1", 1), Address("fd00::2", 1)]


async def test_loopback(autojump_clock) -> None:
    """127.0.0.1 is every host's own."""
    _, server, client = two_hosts()
    listener = await server.listen(Address("127.0.0.1", 80))
    with pytest.raises(Unreachable):
        await client.connect(Address("127.0.0.1", 80))
    stream = await server.connect(Address("127.0.0.1", 80))
    assert (await listener.accept()).remote == stream.local
