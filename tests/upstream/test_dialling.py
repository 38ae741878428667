"""Promises of whom the client dials, and when: in a world in memory, on virtual time."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from p2pmirror.errors import MirrorError, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.peers.scores import Scores
from p2pmirror.resolve.hashing import hashing_inline
from p2pmirror.resolve.manifests import Manifests
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.questions import QuestionOptions
from p2pmirror.resolve.race import RaceOptions, Sources
from p2pmirror.resolve.through import Through
from p2pmirror.resolve.want import Trail, Want
from p2pmirror.routing.memory import MemoryRouters
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.upstream.credentials.setting import CredentialsSetting
from p2pmirror.upstream.transport import CONNECT_S, SILENCE_S
from p2pmirror.wire.address import Address
from p2pmirror.wire.memory import Link, MemoryWorld
from tests.registries.faults import Exchange, FaultProxy, answer, redirect, silence
from tests.registries.holdings import Holdings
from tests.resolve.fakes import ScriptedPeers, address, node
from tests.upstream.conformance import REGISTRY, read
from tests.upstream.setting import client

PUBLIC, OTHER, PRIVATE, METADATA = "9.9.9.9", "8.8.4.4", "10.0.0.5", "169.254.169.254"
URL = "http://registry.test"


class Internet:
    """Hosts with a server each, and a client host; names lead where a test says."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.world = MemoryWorld(Random(3), link=Link(latency_s=0.01))
        self.own = self.world.host("10.0.0.1", "2001:db8::1")
        self.files = MemoryFiles()
        self.held = Holdings()
        self.servers: dict[str, FaultProxy] = {}
        self._nursery = nursery

    async def serve(self, host: str, port: int = 80) -> FaultProxy:
        """Start a server on a host, which has the layer and nothing else."""
        server = FaultProxy(self.world.host(host), Address(host, 1))
        server.on("/blobs/", answer(200, {}, self.held.layer))
        await self._nursery.start(server.run, Address(host, port))
        self.servers[host] = server
        return server

    async def pull(self, **options: object) -> bytes:
        """Fetch the layer with a fresh client."""
        options = {"private_addresses": False} | options
        where = (REGISTRY, self.held.repository, self.held.layer_digest)
        async with (
            client(URL, network=self.own, files=self.files, **options) as made,
            made.upstream.blob(*where) as download,
        ):
            return await read(download)


@pytest.fixture
async def internet(autojump_clock: MockClock, nursery: trio.Nursery) -> Internet:
    internet = Internet(nursery)
    for host in (PUBLIC, OTHER, PRIVATE, METADATA):
        await internet.serve(host)
    return internet


@pytest.mark.parametrize("address", [PRIVATE, METADATA, "127.0.0.1", "::1", "10.0.0.1"])
async def test_a_name_that_leads_into_the_own_network_is_not_dialled(
    internet: Internet, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a name server says, private, loopback and link-local addresses are not dialled; the log says so."""
    internet.world.names["registry.test"] = [address]
    with pytest.raises(Unreachable, match="private_addresses = true"):
        await internet.pull()
    assert not any(server.asked for server in internet.servers.values())
    assert [each.getMessage() for each in caplog.records].count("upstream.address_refused") == 1


async def test_with_leave_it_is_dialled(internet: Internet) -> None:
    """`private_addresses` lets a registry be in the own network."""
    internet.world.names["registry.test"] = [PRIVATE]
    assert await internet.pull(private_addresses=True) == internet.held.layer


async def test_of_several_addresses_only_public_ones_are_dialled(internet: Internet) -> None:
    """A name with addresses of both kinds is dialled at the public ones."""
    internet.world.names["registry.test"] = [PRIVATE, METADATA, PUBLIC]
    for _ in range(5):
        assert await internet.pull() == internet.held.layer
    assert len(internet.servers[PUBLIC].asked) == 5
    assert not internet.servers[PRIVATE].asked
    assert not internet.servers[METADATA].asked


@pytest.mark.parametrize(
    "target", [f"http://{METADATA}/latest/", f"http://{PRIVATE}{{target}}", "http://inside.test{target}", "http://[::ffff:10.0.0.5]/"]
)  # fmt: skip
async def test_a_redirect_into_the_own_network_is_not_followed(internet: Internet, target: str) -> None:
    """A registry cannot send the agent to a metadata service or to a neighbour, by address or by name."""
    internet.world.names |= {"registry.test": [PUBLIC], "inside.test": [PRIVATE]}
    internet.servers[PUBLIC].faults.clear()
    internet.servers[PUBLIC].on("/blobs/", redirect(target))
    with pytest.raises(Unreachable, match="private_addresses = true"):
        await internet.pull()
    assert internet.servers[PUBLIC].asked
    assert not internet.servers[PRIVATE].asked
    assert not internet.servers[METADATA].asked


async def test_a_redirect_to_another_public_host_is_followed(internet: Internet) -> None:
    """Blob stores are other hosts."""
    internet.world.names |= {"registry.test": [PUBLIC], "store.test": [OTHER]}
    internet.servers[PUBLIC].faults.clear()
    internet.servers[PUBLIC].on("/blobs/", redirect("http://store.test{target}"))
    assert await internet.pull() == internet.held.layer


@pytest.mark.parametrize("realm", [f"http://{METADATA}/token", "http://inside.test/token", f"http://{PRIVATE}/token"])
async def test_a_token_server_in_the_own_network_is_not_asked(internet: Internet, realm: str) -> None:
    """A challenge cannot send a password to a neighbour."""
    internet.world.names |= {"registry.test": [PUBLIC], "inside.test": [PRIVATE]}
    internet.files.put(Path("/login"), b"ada:secret")
    internet.servers[PUBLIC].faults.clear()
    internet.servers[PUBLIC].on("/blobs/", answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}))
    with pytest.raises(Unreachable, match="private_addresses = true"):
        await internet.pull(credentials=CredentialsSetting("file", Path("/login")))
    assert not internet.servers[PRIVATE].asked
    assert not internet.servers[METADATA].asked


async def test_a_proxy_may_be_in_the_own_network(internet: Internet) -> None:
    """The settings' proxy is dialled wherever it is, with its login; what it is asked for is still judged."""
    proxy = await internet.serve("10.0.0.9", 3128)
    options = {"proxy": "http://me:secret@10.0.0.9:3128"}
    assert await internet.pull(**options) == internet.held.layer
    assert proxy.asked[0].target.startswith("http://registry.test/v2/")
    assert proxy.told("proxy-authorization") == ["Basic bWU6c2VjcmV0"]
    proxy.faults.clear()
    proxy.on("/blobs/", redirect(f"http://{METADATA}/"))
    with pytest.raises(Unreachable, match="private_addresses = true"):
        await internet.pull(**options)
    assert len(proxy.asked) == 2


async def test_an_address_that_is_silent_costs_a_quarter_of_a_second(internet: Internet) -> None:
    """The next address is tried beside one that does not answer."""
    silent = internet.world.host("1.0.0.1")
    internet.world.power_off(silent)
    internet.world.names["registry.test"] = ["1.0.0.1", PUBLIC]
    for _ in range(4):
        began = trio.current_time()
        assert await internet.pull() == internet.held.layer
        assert trio.current_time() - began < 0.5


async def test_a_host_that_is_silent_is_given_up(internet: Internet) -> None:
    """Nobody waits longer for a connection, or for a byte that is due, than the limits say."""
    silent = internet.world.host("1.0.0.1")
    internet.world.power_off(silent)
    internet.world.names["registry.test"] = ["1.0.0.1"]
    for limit, text in ((CONNECT_S, "no answer in time"), (SILENCE_S, "no answer in time")):
        began = trio.current_time()
        with pytest.raises(Unreachable, match=text):
            await internet.pull()
        assert limit <= trio.current_time() - began <= limit + 1
        internet.world.names["registry.test"] = [PUBLIC]
        internet.servers[PUBLIC].faults.clear()
        internet.servers[PUBLIC].on("/blobs/", silence)


async def test_a_registry_that_is_away_is_asked_less_and_less(internet: Internet) -> None:
    """In ten minutes of failing a busy agent dials some twenty times, and notices within a minute when it is back."""
    internet.world.names["registry.test"] = [PUBLIC]
    server = internet.servers[PUBLIC]
    server.on("HEAD", answer(502))
    async with client(URL, network=internet.own, files=internet.files, private_addresses=False) as made:
        began = trio.current_time()
        while trio.current_time() < began + 600:
            with pytest.raises(MirrorError):
                await made.upstream.resolve(REGISTRY, "library/app", "v1")
            await trio.sleep(0.5)
        assert 10 <= server.count("HEAD") <= 30
        head = {
            "Docker-Content-Digest": str(internet.held.manifest_digest),
            "Content-Type": internet.held.root.media_type,
        }
        server.clear()
        server.on("HEAD", answer(200, head | {"Content-Length": str(len(internet.held.manifest))}))
        with trio.fail_after(61):
            while not made.upstream.is_reachable(REGISTRY):
                try:
                    await made.upstream.resolve(REGISTRY, "library/app", "v1")
                except MirrorError:
                    await trio.sleep(0.5)


async def test_a_wait_is_kept_to_the_second(internet: Internet) -> None:
    """After `Retry-After: 90` the registry hears nothing for 90 s, and then is asked at once."""
    internet.world.names["registry.test"] = [PUBLIC]
    server = internet.servers[PUBLIC]
    server.on("HEAD", answer(429, {"Retry-After": "90"}))
    async with client(URL, network=internet.own, files=internet.files, private_addresses=False) as made:
        began = trio.current_time()
        while server.count("HEAD") < 2:
            with pytest.raises(MirrorError):
                await made.upstream.resolve(REGISTRY, "library/app", "v1")
            await trio.sleep(0.25)
    assert 90 <= trio.current_time() - began <= 92


async def test_a_silent_registry_costs_few_misses_their_time(internet: Internet, nursery: trio.Nursery) -> None:
    """In a minute of misses, four at a time, few wait for a registry that is mute, all others next to nothing.

    When it speaks again, the next try succeeds and nobody is held back.
    """
    internet.world.names["registry.test"] = [PUBLIC]
    server, slow, quick = internet.servers[PUBLIC], 0, 0

    async def mute(_exchange: Exchange) -> None:
        await trio.sleep_forever()

    server.clear()
    server.on("HEAD", mute)

    async def miss(through: Through, number: int) -> None:
        nonlocal slow, quick
        began = trio.current_time()
        digest = Digest.of(b"%d" % number)
        with pytest.raises(MirrorError):
            await through.told(Want("blob", REGISTRY, "library/app", digest), digest, Trail())
        took = trio.current_time() - began
        assert took <= 2.01
        slow, quick = slow + (took > 0.1), quick + (took <= 0.1)

    async with client(URL, network=internet.own, files=internet.files, private_addresses=False) as made:
        metrics = ResolveMetrics(CollectorRegistry())
        router = MemoryRouters().router(node(1), address(1))
        nobody = Sources(router, ScriptedPeers({}), Scores(Random(1)), RaceOptions())
        through = Through(made.upstream, None, QuestionOptions(), metrics, hashing_inline, manifests=Manifests(nobody))
        nursery.start_soon(through.questions.run)
        began, number = trio.current_time(), 0
        while trio.current_time() < began + 60:
            async with trio.open_nursery() as four:
                for _ in range(4):
                    four.start_soon(miss, through, number := number + 1)
            await trio.sleep(0.25)
        assert slow <= 8
        assert quick > 100
        server.clear()
        server.on("/blobs/", answer(200, {}, internet.held.layer))
        await trio.sleep(60)
        for _ in range(3):
            with trio.fail_after(0.5):
                size = await made.upstream.blob_size(REGISTRY, "library/app", internet.held.layer_digest)
            assert size == len(internet.held.layer)


async def test_idle_connections_are_closed_without_a_question(internet: Internet, nursery: trio.Nursery) -> None:
    """A connection that nobody uses is closed within a minute, and the next question opens a new one."""
    internet.world.names["registry.test"] = [PUBLIC]

    async def kept(exchange: Exchange) -> None:
        body = internet.held.layer
        await exchange.stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await silence(exchange)

    server = internet.servers[PUBLIC]
    server.clear()
    server.on("/blobs/", kept)
    async with client(URL, network=internet.own, files=internet.files, private_addresses=False) as made:
        await nursery.start(made.client.let_go_of_old)
        for asked in (1, 2):
            async with made.upstream.blob(REGISTRY, "library/app", internet.held.layer_digest) as download:
                assert await read(download) == internet.held.layer
            await trio.sleep(5)
            assert internet.world.open_streams == 2
            assert len(server.asked) == asked
            await trio.sleep(60)
            assert internet.world.open_streams == 0


async def test_nothing_stays_open(internet: Internet) -> None:
    """Downloads that were left, cancelled, refused or finished leave no connection when the client is closed."""
    internet.world.names["registry.test"] = [PUBLIC]
    async with client(URL, network=internet.own, files=internet.files, private_addresses=False) as made:
        for patience_s in (0.005, 0.015, 0.025, 0.035, 0.05, 5):
            with trio.move_on_after(patience_s):
                async with made.upstream.blob(REGISTRY, "library/app", internet.held.layer_digest) as download:
                    await download.receive()
                    await trio.sleep(patience_s)
    await trio.sleep(5)
    assert internet.world.open_streams == 0
