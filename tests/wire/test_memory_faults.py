"""The faults of the simulated world are what they say, with an agenda and without."""

import contextlib
import gc
import logging
import tracemalloc
from hashlib import sha256
from random import Random

import pytest
import trio
import trio.testing

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.http import Request, Response
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from p2pmirror.wire.memory import Link, MemoryNetwork, MemoryWorld
from tests.wire.agenda import TaskAgenda
from tests.wire.conformance import receive_all, some_bytes
from tests.wire.datagrams import inbox

pytestmark = pytest.mark.usefixtures("autojump_clock")

SERVER, CLIENT = Address("10.0.0.1", 80), Address("10.0.0.2", 80)
LATENCY_S = 0.01


class Two:
    """A world of a server, a client and a bystander."""

    def __init__(self, agenda: TaskAgenda | None) -> None:
        self.world = MemoryWorld(Random(1), link=Link(latency_s=LATENCY_S), agenda=agenda)
        self.server, self.client = self.world.host("10.0.0.1"), self.world.host("10.0.0.2")
        self.bystander = self.world.host("10.0.0.3")
        self.listener = None

    async def joined(self, client: MemoryNetwork | None = None):
        if self.listener is None:
            self.listener = await self.server.listen(SERVER)
        stream = await (client or self.client).connect(SERVER)
        return stream, await self.listener.accept()


@pytest.fixture(params=["waiters", "agenda"])
async def two(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Two:
    agenda = TaskAgenda() if request.param == "agenda" else None
    if agenda is not None:
        nursery.start_soon(agenda.run)
    return Two(agenda)


async def never(wait, *args) -> None:
    """Hold that something does not end, in a minute."""
    with trio.move_on_after(60) as scope:
        await wait(*args)
    assert scope.cancelled_caught


async def test_one_way(two: Two) -> None:
    """Behind a block datagrams are lost and streams wait one way only; both ways nobody can dial; healing ends it."""
    ours, theirs = await two.joined()
    one, other = await two.client.open_datagrams(CLIENT), await two.server.open_datagrams(SERVER)
    async with inbox(one) as at_client, inbox(other) as at_server:
        two.world.block([two.client], [two.server])
        one.send(b"lost", SERVER)
        other.send(b"heard", CLIENT)
        assert (await at_client.receive())[0] == b"heard"
        await never(at_server.receive)
        await theirs.send_all(b"down")
        assert await ours.receive_some(9) == b"down"
        await ours.send_all(b"up")
        await never(theirs.receive_some, 9)
        await never(two.client.connect, SERVER)
        await two.client.listen(CLIENT)
        await never(two.server.connect, CLIENT)
        await (await two.bystander.connect(SERVER)).aclose()
        two.world.heal()
        assert await theirs.receive_some(9) == b"up"
        await two.client.connect(SERVER)
        one.send(b"found", SERVER)
        assert (await at_server.receive())[0] == b"found"


async def test_unblock(two: Two) -> None:
    """Blocks are taken back one by one, and a dial that waited goes on; a block that never was is no error."""
    await two.server.listen(SERVER)
    two.world.block([two.client], [two.server])
    two.world.block([two.client, two.bystander], [two.server])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(two.client.connect, SERVER)
        two.world.unblock([two.client], [two.server])
        await never(two.client.connect, SERVER)
        two.world.unblock([two.bystander, two.client], [two.server])
        two.world.unblock([two.client], [two.server])
    await two.bystander.connect(SERVER)


async def test_a_datagram_on_its_way_into_a_block(two: Two) -> None:
    """A datagram that is on its way when a block begins is lost."""
    one, other = await two.client.open_datagrams(CLIENT), await two.server.open_datagrams(SERVER)
    async with inbox(other) as received:
        one.send(b"late", SERVER)
        await trio.sleep(LATENCY_S / 2)
        two.world.block([two.client], [two.server])
        await never(received.receive)


async def test_reset(two: Two) -> None:
    """A reset breaks both ends of every connection between two hosts at once, and no other; new dials succeed."""
    first, second, other = await two.joined(), await two.joined(), await two.joined(two.bystander)
    await first[0].send_all(b"on its way")
    await second[1].send_all(b"arrived")
    await trio.sleep(LATENCY_S)
    await first[1].send_all(b"never arrives")
    begun = trio.current_time()
    two.world.reset(two.server, two.client)
    assert await first[1].receive_some(99) == b"on its way"
    assert await second[0].receive_some(99) == b"arrived"
    for stream in (*first, *second):
        with pytest.raises(Unreachable, match="broke"):
            await stream.receive_some(1)
        with pytest.raises(Unreachable, match="broke"):
            await stream.send_all(b"x")
        await stream.aclose()
    assert trio.current_time() == begun
    await other[0].send_all(b"untouched")
    assert await other[1].receive_some(99) == b"untouched"
    await two.joined()


async def test_no_clean_end_after_a_reset(two: Two) -> None:
    """An end that closes after a reset does not make it a FIN for the other one."""
    ours, theirs = await two.joined()
    two.world.reset(two.client, two.server)
    await theirs.aclose()
    await trio.sleep(1)
    with pytest.raises(Unreachable, match="broke"):
        await ours.receive_some(1)


async def test_a_repeated_packet(nursery: trio.Nursery) -> None:
    """What TCP sends again comes late, and whole, and everything behind it after it."""
    agenda = TaskAgenda()
    nursery.start_soon(agenda.run)
    two = Two(agenda)
    two.world.set_link(two.client, two.server, Link(latency_s=LATENCY_S, loss=0.3, repeat_s=0.2))
    ours, theirs = await two.joined()
    begun = trio.current_time()
    got = b""
    arrivals = []
    for number in range(100):
        await ours.send_all(some_bytes(1_000)[number * 10 : number * 10 + 10])
    while len(got) < 1_000:
        got += await theirs.receive_some(10)
        arrivals.append(round(trio.current_time() - begun, 6))
    assert got == some_bytes(1_000)
    assert arrivals == sorted(arrivals)
    assert set(arrivals) <= {0.01, 0.21}
    assert arrivals[-1] == 0.21


async def test_the_killed_see_nothing(two: Two) -> None:
    """Whatever the tasks of a killed process had open, and dials under way, keep them waiting for ever."""
    ours, theirs = await two.joined()
    _, second = await two.joined()
    port = await two.server.open_datagrams(SERVER)
    ended = []

    async def wait(name: str, operation, *args) -> None:
        try:
            await operation(*args)
        except trio.Cancelled:
            raise
        except BaseException as error:
            ended.append((name, error))
        else:
            ended.append((name, None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "receive", theirs.receive_some, 1)
        nursery.start_soon(wait, "send", theirs.send_all, bytes(1 << 20))
        nursery.start_soon(wait, "accept", two.listener.accept)
        nursery.start_soon(wait, "deliver", port.deliver, lambda data, source: None)
        nursery.start_soon(wait, "dial", two.server.connect, CLIENT)
        await trio.sleep(LATENCY_S * 1.5)
        two.world.kill(two.server)
        nursery.start_soon(wait, "another receive", second.receive_some, 1)
        nursery.start_soon(wait, "another send", second.send_all, b"x")
        nursery.start_soon(wait, "eof", second.send_eof)
        port.send(b"from the grave", CLIENT)
        await trio.sleep(10)
        assert ended == []
        nursery.cancel_scope.cancel()
    await theirs.aclose()
    await two.listener.aclose()
    await port.aclose()
    assert len(await receive_all(ours)) <= 1 << 20


async def test_the_next_process(two: Two) -> None:
    """After a kill the next process on the host has the ports, and does not hear what was sent to the last one."""
    await two.joined()
    two.world.kill(two.server)
    two.listener = None
    ours, theirs = await two.joined()
    await ours.send_all(b"hello")
    assert await theirs.receive_some(9) == b"hello"


async def test_last_words_of_a_host_that_lost_its_power(two: Two) -> None:
    """A FIN that a host could not send before its power went never comes: its memory is gone. Resets come instead."""
    ours, theirs = await two.joined()
    two.world.power_off(two.server)
    await theirs.send_all(b"unsent")
    await theirs.aclose()
    await trio.sleep(10)
    two.world.power_on(two.server)
    await trio.sleep(1)
    with pytest.raises(Unreachable, match="broke"):
        await receive_all(ours)


async def test_a_killed_server_logs_nothing(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    """An HTTP server whose process is killed amid requests does not take that for a bug of ours."""

    async def handler(request: Request) -> Response:
        await trio.sleep_forever()

    server = HttpServer(handler, ServerOptions())
    caplog.set_level(logging.WARNING)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, await two.server.listen(SERVER))
        idle, asking = await two.client.connect(SERVER), await two.client.connect(SERVER)
        await asking.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(1)
        two.world.kill(two.server)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert caplog.records == []
    assert await receive_all(idle) == b""


async def test_an_error_in_what_takes_is_its_own(two: Two) -> None:
    """An error in what takes a datagram reaches the task in `deliver`; others go on, and what comes later is kept."""
    one = await two.client.open_datagrams(CLIENT)
    other, third = await two.server.open_datagrams(SERVER), await two.bystander.open_datagrams(Address("10.0.0.3", 80))

    def fail(data: bytes, source: Address) -> None:
        raise RuntimeError(data)

    async with inbox(third) as received:
        for to in (other.address, other.address, third.address):
            one.send(b"x", to)
        with pytest.raises(RuntimeError):
            await other.deliver(fail)
        assert (await received.receive())[0] == b"x"
    async with inbox(other) as received:
        assert (await received.receive())[0] == b"x"


async def test_cancelled_while_it_fails(two: Two) -> None:
    """An error in what takes is not lost to a cancellation of the same moment."""
    one, other = await two.client.open_datagrams(CLIENT), await two.server.open_datagrams(SERVER)
    scope = trio.CancelScope()

    def fail(data: bytes, source: Address) -> None:
        scope.cancel()
        raise RuntimeError("kept")

    one.send(b"x", SERVER)
    with pytest.raises(RuntimeError, match="kept"), scope:
        await other.deliver(fail)


async def test_one_taker(two: Two) -> None:
    """A port is delivered from by one task at a time."""
    port = await two.server.open_datagrams(SERVER)
    async with inbox(port):
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await port.deliver(lambda data, source: None)


async def test_families(two: Two) -> None:
    """A datagram to a family that the port, or its host, has no address of is lost; loopback stays at home."""
    world = two.world
    both = world.host("10.0.0.9", "fd00::9")
    four, any_port = await both.open_datagrams(Address("10.0.0.9", 1)), await both.open_datagrams(Address("::", 2))
    only_four = await two.client.open_datagrams(Address("::", 3))
    async with inbox(any_port) as received:
        four.send(b"wrong family", Address("fd00::9", 2))
        only_four.send(b"no route", Address("fd00::9", 2))
        only_four.send(b"at home", Address("127.0.0.1", 2))
        only_four.send(b"four", Address("10.0.0.9", 2))
        assert await received.receive() == (b"four", Address("10.0.0.2", 3))
        any_port.send(b"self", Address("::1", 2))
        assert await received.receive() == (b"self", Address("::1", 2))
    with pytest.raises(ValueError, match="already belongs"):
        world.host("127.0.0.5")


async def observed(seed: int, *, on_agenda: bool) -> list[tuple[str, float, str, str, bytes]]:
    """Return what a world of some hosts, rates and faults was seen to do.

    No two tasks have anything to do at one time: trio would let chance of its own decide who is first.
    """
    seen: list[tuple[str, float, str, str, bytes]] = []
    begun = trio.current_time()

    def observe(kind: str, now: float, source: Address, target: Address, data: bytes) -> None:
        seen.append((kind, round(now - begun, 6), str(source), str(target), sha256(data).digest()))

    agenda = TaskAgenda() if on_agenda else None
    link = Link(0.001, 0.003, "exponential", 0.05, 0.05, 0.05, 0.01, repeat_s=0.2)
    world = MemoryWorld(Random(seed), link=link, agenda=agenda, observe=observe)
    hosts = [world.host(f"10.0.0.{number}", upload_rate=1e6) for number in range(1, 6)]
    async with trio.open_nursery() as nursery:
        if agenda is not None:
            nursery.start_soon(agenda.run)
        ports = [await host.open_datagrams(Address("0.0.0.0", 7)) for host in hosts]
        for port in ports:
            nursery.start_soon(port.deliver, _echo(port))
        await trio.testing.wait_all_tasks_blocked()
        for number, port in enumerate(ports):
            port.send(bytes([64, number]), Address(hosts[number - 1].hosts[0], 7))
        await trio.sleep(0.1)
        world.block(hosts[2:], hosts[:2])
        await trio.sleep(0.1)
        world.heal()
        listener = await hosts[0].listen(Address("0.0.0.0", 8))
        nursery.start_soon(_serve, listener)
        for number in (1, 2, 3, 4):
            with trio.move_on_after(number / 2):
                await _pull(hosts[number], Address("10.0.0.1", 8))
            world.reset(hosts[0], hosts[number])
        world.kill(hosts[0])
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return seen


def _echo(port):
    def take(data: bytes, source: Address) -> None:
        if data[0]:
            port.send(bytes([data[0] - 1]) + data[1:], source)

    return take


async def _serve(listener) -> None:
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(_answer, await listener.accept())


async def _answer(stream) -> None:
    with contextlib.suppress(Unreachable):
        await stream.send_all(some_bytes(700_000))
    await stream.aclose()


async def _pull(host: MemoryNetwork, address: Address) -> None:
    stream = await host.connect(address)
    with contextlib.suppress(Unreachable):
        await receive_all(stream)
    await stream.aclose()


async def test_the_same_seed() -> None:
    """The same seed shows the same things at the same times, another one others; an agenda changes none of it."""
    first = await observed(1, on_agenda=True)
    assert {kind for kind, *_ in first} == {"datagram", "stream", "fin", "reset"}
    assert await observed(1, on_agenda=True) == first
    assert await observed(1, on_agenda=False) == first
    assert await observed(2, on_agenda=True) != first


async def test_a_host_costs_little(two: Two) -> None:
    """A host with a datagram port and two listeners costs less than 10 KiB."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = []
        for number in range(500):
            host = two.world.host(f"10.1.{number >> 8}.{number & 255}")
            kept.append(await host.open_datagrams(Address("0.0.0.0", 29998)))
            kept.append(await host.listen(Address("0.0.0.0", 29999)))
            kept.append(await host.listen(Address("0.0.0.0", 9090)))
        assert (tracemalloc.get_traced_memory()[0] - before) / 500 < 10 << 10
    finally:
        tracemalloc.stop()
