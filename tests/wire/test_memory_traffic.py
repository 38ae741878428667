"""Where simulated hosts have rates, transfers take the time that a fair fluid would take."""

from random import Random

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.memory import Link, MemoryNetwork, MemoryWorld
from p2pmirror.wire.memory_traffic import STEP_BYTES
from tests.wire.agenda import TaskAgenda
from tests.wire.conformance import receive_all, some_bytes

pytestmark = pytest.mark.usefixtures("autojump_clock")

MB = 1_000_000
LATENCY_S = 0.001


class Transfers:
    """Hosts that send to one another, and when each transfer ended."""

    def __init__(self, nursery: trio.Nursery, *, on_agenda: bool, latency_s: float = LATENCY_S) -> None:
        agenda = TaskAgenda() if on_agenda else None
        if agenda is not None:
            nursery.start_soon(agenda.run)
        self.world = MemoryWorld(Random(1), link=Link(latency_s=latency_s), agenda=agenda)
        self.ended: dict[str, float] = {}
        self.arrivals: dict[str, list[tuple[float, int]]] = {}
        self._hosts = 0

    def host(self, upload_rate: float | None = None, download_rate: float | None = None) -> MemoryNetwork:
        self._hosts += 1
        return self.world.host(f"10.0.0.{self._hosts}", upload_rate=upload_rate, download_rate=download_rate)

    async def run(self, name: str, source: MemoryNetwork, target: MemoryNetwork, size: int) -> None:
        """Send `size` bytes over a new connection; times count from the first byte sent."""
        listener = await target.listen(Address(target.hosts[0], 0))
        stream = await source.connect(listener.address)
        accepted = await listener.accept()
        begun = trio.current_time()
        self.arrivals[name] = []

        async def send() -> None:
            await stream.send_all(bytes(size))
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while data := await accepted.receive_some(1 << 20):
                self.arrivals[name].append((trio.current_time() - begun, len(data)))
        self.ended[name] = trio.current_time() - begun
        await accepted.aclose()
        await listener.aclose()


@pytest.fixture(params=["waiters", "agenda"])
async def transfers(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Transfers:
    return Transfers(nursery, on_agenda=request.param == "agenda")


async def test_alone(transfers: Transfers) -> None:
    """S bytes over u bytes a second take S / u and the latency; each byte comes a step's time late at most."""
    await transfers.run("one", transfers.host(upload_rate=10 * MB), transfers.host(), 20 * MB)
    assert transfers.ended["one"] == pytest.approx(2 + LATENCY_S, rel=1e-6)
    received = 0
    for at, size in transfers.arrivals["one"]:
        fluid_at = received / (10 * MB) + LATENCY_S
        assert fluid_at <= at <= fluid_at + STEP_BYTES / (10 * MB) + 1e-9
        received += size
    assert received == 20 * MB


async def test_the_slower_end_counts(transfers: Transfers) -> None:
    """The receiver's rate limits a sender that has a higher one."""
    await transfers.run("one", transfers.host(upload_rate=10 * MB), transfers.host(download_rate=4 * MB), 8 * MB)
    assert transfers.ended["one"] == pytest.approx(2 + LATENCY_S, rel=1e-6)


async def test_two_share(transfers: Transfers) -> None:
    """Two streams of one host get half each; the rest of the longer one gets all of it."""
    source = transfers.host(upload_rate=10 * MB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfers.run, "long", source, transfers.host(), 15 * MB)
        nursery.start_soon(transfers.run, "short", source, transfers.host(), 5 * MB)
    assert transfers.ended["short"] == pytest.approx(1 + LATENCY_S, rel=1e-6)
    assert transfers.ended["long"] == pytest.approx(2 + LATENCY_S, rel=1e-6)


async def test_a_third_that_is_limited_elsewhere(transfers: Transfers) -> None:
    """A third stream, which its receiver limits, leaves the rest to the two."""
    source = transfers.host(upload_rate=9 * MB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfers.run, "slow", source, transfers.host(download_rate=1 * MB), 2 * MB)
        for name in ("one", "two"):
            nursery.start_soon(transfers.run, name, source, transfers.host(), 8 * MB)
    assert transfers.ended == pytest.approx(dict.fromkeys(("slow", "one", "two"), 2 + LATENCY_S), rel=1e-6)


async def test_others_are_not_slowed(transfers: Transfers) -> None:
    """Hosts without rates, and a host's way to itself, know no rate."""
    limited = transfers.host(upload_rate=1 * MB, download_rate=1 * MB)
    await transfers.run("free", transfers.host(), transfers.host(), 8 * MB)
    await transfers.run("self", limited, limited, 8 * MB)
    assert transfers.ended["self"] == 0
    assert transfers.ended["free"] < 0.2  # 256 KiB a millisecond: what fits into a pipe


async def test_a_rate_changes(transfers: Transfers) -> None:
    """A rate that changes, or ends, counts from that moment on for what is under way."""
    source = transfers.host(upload_rate=1 * MB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfers.run, "one", source, transfers.host(), 6 * MB)
        await trio.sleep(3 * LATENCY_S + 1)
        transfers.world.set_rates(source, upload_rate=2 * MB)
        await trio.sleep(1)
        transfers.world.set_rates(source)
    assert 2 + LATENCY_S < transfers.ended["one"] < 2.1  # 1 MB, 2 MB, and what is left as fast as a pipe goes


async def test_a_partition_stops_the_clock(transfers: Transfers) -> None:
    """While the way is down a stream sends nothing, and the others get its share."""
    source, cut_off = transfers.host(upload_rate=2 * MB), transfers.host()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfers.run, "cut off", source, cut_off, 2 * MB)
        nursery.start_soon(transfers.run, "other", source, transfers.host(), 4 * MB)
        await trio.sleep(3 * LATENCY_S + 1)
        transfers.world.block([source], [cut_off])
        await trio.sleep(1)
        transfers.world.heal()
    # One second 1 MB each, one second 2 MB for the other alone, one second 1 MB each.
    assert transfers.ended == pytest.approx({"cut off": 3 + LATENCY_S, "other": 3 + LATENCY_S}, rel=1e-3)


async def test_a_long_fat_way(nursery: trio.Nursery) -> None:
    """A rate is reached however long the way is: what is on it needs no room in the pipe."""
    transfers = Transfers(nursery, on_agenda=True, latency_s=0.2)
    await transfers.run("one", transfers.host(upload_rate=100 * MB), transfers.host(), 100 * MB)
    assert transfers.ended["one"] == pytest.approx(1.2, rel=1e-6)


async def test_a_slow_reader_holds_the_sender(transfers: Transfers) -> None:
    """A rate is no licence to send: unread bytes hold the sender back, and the share is the others'."""
    source, target = transfers.host(upload_rate=10 * MB), transfers.host()
    listener = await target.listen(Address(target.hosts[0], 80))
    stream = await source.connect(listener.address)
    accepted = await listener.accept()
    with trio.move_on_after(10) as scope:
        await stream.send_all(bytes(4 * MB))
    assert scope.cancelled_caught
    await transfers.run("other", source, transfers.host(), 10 * MB)
    assert transfers.ended["other"] == pytest.approx(1 + LATENCY_S, rel=1e-6)
    held = 0
    with trio.move_on_after(1):
        while True:
            held += len(await accepted.receive_some(1 << 20))
    assert 0 < held <= (512 << 10)


async def test_content_and_end(transfers: Transfers) -> None:
    """Bytes come in order with a rate too, FIN after the last, and a reset ends what has not left."""
    source, target = transfers.host(upload_rate=1 * MB), transfers.host(upload_rate=1 * MB)
    listener = await target.listen(Address(target.hosts[0], 80))
    stream = await source.connect(listener.address)
    accepted = await listener.accept()
    content = some_bytes(200_000)
    for start in range(0, len(content), 777):
        await stream.send_all(content[start : start + 777])
    await stream.send_eof()
    got = bytearray()
    while data := await accepted.receive_some(10_000):
        got += data
    assert got == content
    with trio.move_on_after(0.1):
        await accepted.send_all(content)
    transfers.world.reset(source, target)
    with pytest.raises(Unreachable, match="broke"):
        await receive_all(stream)


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
async def test_a_rate_that_is_none(rate: float) -> None:
    """A rate is a number above 0; no limit is None, and silence is a partition."""
    with pytest.raises(ValueError, match="above 0"):
        MemoryWorld(Random(1)).host("10.0.0.1", upload_rate=rate)


async def test_hundreds_of_streams(nursery: trio.Nursery) -> None:
    """Three hundred streams between thirty hosts all end, at the moment in which a fair fluid lets them end."""
    transfers = Transfers(nursery, on_agenda=True)
    hosts = [transfers.host(upload_rate=12.5 * MB, download_rate=12.5 * MB) for _ in range(30)]
    async with trio.open_nursery() as streams:
        for number, source in enumerate(hosts):
            for step in range(1, 11):
                target = hosts[(number + step) % len(hosts)]
                streams.start_soon(transfers.run, f"{number}-{step}", source, target, 1_250_000)
    assert len(transfers.ended) == 300
    assert all(at == pytest.approx(1 + LATENCY_S, rel=1e-6) for at in transfers.ended.values())
