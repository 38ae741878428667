"""How a node starts, waits for its store, survives its own bugs and ends: in order, and with nothing left open."""

import json
import logging
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.config import BadSetting
from p2pmirror.node import Node
from p2pmirror.resolve.flights import LINGER_S
from p2pmirror.store.ocilayout import LayoutWriter
from p2pmirror.wire.address import Address
from tests.cancellation import cancel_at_every_checkpoint
from tests.node.cluster import LAYOUT, NEWS_S, ROUTER_PORT, CountingFiles, cluster, put
from tests.store.images import make_image

IMAGE = make_image(layer_bytes=(3000, 100_000))
LAYER = IMAGE.layers[1]
BLOB = f"/v2/app/blobs/{LAYER}"


class Bug(Exception):
    """What no room foresees."""


# --- starting ---


async def test_a_store_that_comes_later(autojump_clock: MockClock) -> None:
    """Without its layout a node says what it waits for, answers 404 at once, and is ready when the layout comes."""
    async with cluster() as nodes:
        member = await nodes.start(nodes.make())
        await trio.sleep(3)
        answer = await nodes.page(member, "/readyz")
        assert answer.status == 503
        assert str(LAYOUT) in answer.body.decode()
        status = await nodes.page_json(member, "/api/v1/status")
        assert status["ready"] is False
        assert str(LAYOUT) in status["reasons"][0]
        begun = trio.current_time()
        assert (await nodes.get(member, BLOB)).status == 404
        assert trio.current_time() - begun <= 0.04
        assert (await nodes.page(member, "/livez")).status == 200
        await put(member, IMAGE)
        await trio.sleep(3)
        assert (await nodes.page(member, "/readyz")).status == 200
        await nodes.pulls(member, IMAGE)


async def test_a_store_that_goes_and_comes_again(autojump_clock: MockClock) -> None:
    """A layout that is removed is said and its content found no more; when it is back all is as before."""
    async with cluster(2) as nodes:
        member, other = nodes.members
        await put(member, IMAGE)
        await nodes.until_known(other, LAYER, {member.id}, NEWS_S)
        member.files.remove(LAYOUT)
        await nodes.until_known(other, LAYER, set(), 7.0)
        answer = await nodes.page(member, "/readyz")
        assert (answer.status, str(LAYOUT) in answer.body.decode()) == (503, True)
        await put(member, IMAGE)
        await trio.sleep(7)
        assert (await nodes.page(member, "/readyz")).status == 200
        await nodes.pulls(other, IMAGE)


async def test_a_node_without_a_store(autojump_clock: MockClock) -> None:
    """With store = none a node holds nothing, is ready at once, and pulls from the others."""
    async with cluster() as nodes:
        await nodes.add(image=IMAGE)
        bare = await nodes.start(nodes.make(store="none"))
        assert (await nodes.page(bare, "/readyz")).status == 200
        await nodes.ready()
        await nodes.pulls(bare, IMAGE)


async def test_a_node_alone(autojump_clock: MockClock) -> None:
    """A node without a bootstrap, or with one that names only itself, is a cluster of one, ready, and serves."""
    for bootstrap in ("", f"static:10.0.0.1:{ROUTER_PORT}", "dns:nobody.knows.it"):
        async with cluster() as nodes:
            member = await nodes.add(bootstrap=bootstrap, image=IMAGE)
            await nodes.ready(within_s=3)
            await nodes.pulls(member, IMAGE)
            assert (await nodes.get(member, "/v2/app/manifests/v2")).status == 404


async def test_what_peers_are_told_to_dial(autojump_clock: MockClock) -> None:
    """The advertised host is the one set, else the one listened on, else that of the route to a peer."""
    async with cluster() as nodes:
        two = nodes.world.host("10.0.0.1", "10.0.0.7")
        member = await nodes.add("10.0.0.1", network=two, advertise_addr="10.0.0.7")
        listening = await nodes.add("10.0.0.2", registry_addr="10.0.0.2:5000")
        plain = await nodes.add("10.0.0.3")
        addresses = [str(each.running.registry_address) for each in (member, listening, plain) if each.running]
        assert addresses == ["10.0.0.7:29999", "10.0.0.2:5000", "10.0.0.3:29999"]


class Nameless:
    """A host whose name server is not there."""

    def __init__(self, network) -> None:
        self._network = network

    def __getattr__(self, name: str):
        return getattr(self._network, name)

    async def resolve(self, host: str, port: int) -> list[Address]:
        await trio.sleep_forever()
        raise AssertionError


async def test_a_name_server_that_is_silent_does_not_stop_a_start(autojump_clock: MockClock) -> None:
    """While names are looked up the ports refuse, so that containerd goes elsewhere at once; then the node runs."""
    async with cluster() as nodes:
        network = Nameless(nodes.world.host("10.0.0.1"))
        member = nodes.make("10.0.0.1", network=network, bootstrap="dns:p2pmirror.kube-system")
        await LayoutWriter(LAYOUT, member.files).prepare()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes.start, member)
            await trio.sleep(1)
            with pytest.raises(Exception, match="refused"):
                await nodes.get(member, "/v2/")
            await trio.sleep(6)
            assert (await nodes.get(member, "/v2/")).status == 200
            assert (await nodes.page(member, "/readyz")).status == 200


@pytest.mark.parametrize("key", ["registry_addr", "router_addr", "observability_addr"])
@pytest.mark.parametrize("address", [":4444", "10.9.9.8:4445"])
async def test_an_address_that_cannot_be_had(key: str, address: str, autojump_clock: MockClock) -> None:
    """A port in use, or another host's address, ends the start with one error that names the setting."""
    async with cluster() as nodes:
        member = nodes.make(**{key: address})
        taken = [
            await member.network.listen(Address("::", 4444)),
            await member.network.open_datagrams(Address("::", 4444)),
        ]
        with pytest.raises(BadSetting, match=f"^{key} = .*allowed: an address that can be listened on") as caught:
            await member.node.run(trio.Event())
        assert caught.value.key == key
        for each in taken:
            await each.aclose()
        assert_nothing_is_bound(member.network)


@pytest.mark.parametrize("kept", [b"", b"x" * 19, b"x" * 21, b"x" * 4000])
async def test_a_broken_node_id(kept: bytes, autojump_clock: MockClock) -> None:
    """An id file of another length ends the start with an error that names the file; it is left as it is."""
    async with cluster() as nodes:
        member = nodes.make(data_dir="/data")
        path = LAYOUT.parent / "data" / "node-id"
        member.files.put(path, kept)
        with pytest.raises(BadSetting, match=r"^data_dir = '/data'.*node-id"):
            await member.node.run(trio.Event())
        assert member.files.get(path) == kept


async def test_a_data_directory_that_cannot_be_written(autojump_clock: MockClock) -> None:
    """A read-only or full disk ends the first start with an error; the second start only reads."""
    async with cluster() as nodes:
        member = nodes.make(data_dir="/data")
        member.files.read_only = True
        with pytest.raises(BadSetting, match=r"^data_dir = '/data'.*written"):
            await member.node.run(trio.Event())
        member.files.read_only = False
        await nodes.start(member)
        member.stop.set()
        await member.ended.wait()
        member.files.read_only = True
        again = await nodes.start(nodes.make(member.host, network=member.network, files=member.files, data_dir="/data"))
        assert again.id == member.id


# --- bugs ---


class BuggyFiles(CountingFiles):
    """Files that meet a bug of ours the `number`-th time that a store looks at its directory."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    async def stat(self, paths):
        self.left -= 1
        if self.left == 0:
            raise Bug("the store")
        return await super().stat(paths)


async def test_a_bug_in_the_store(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A store that meets a bug while it runs is logged and begins anew; the node goes on answering meanwhile."""
    async with cluster() as nodes:
        member = nodes.make(files=BuggyFiles(20))
        await put(member, IMAGE)
        await nodes.start(member)
        await trio.sleep(30)
        assert member.files.left < 0
        assert "store: a bug ended it; it begins anew" in caplog.text
        later = make_image("registry.example/later:v1", seed=3)
        await put(member, later)
        await trio.sleep(3)
        await nodes.pulls(member, later, name="later")
        assert (await nodes.page(member, "/readyz")).status == 200


class BuggyNode(Node):
    """A node whose parts meet a bug when `bugs` says so."""

    bugs: frozenset[str] = frozenset()

    def _router(self, node_id, registry_address, trust):
        router = super()._router(node_id, registry_address, trust)
        advertise, search = router.advertise, router._view.tick

        def buggy_advertise(offers):
            self._perhaps("advertise")
            advertise(offers)

        def buggy_tick(now):
            self._perhaps("tick")
            search(now)

        router.advertise = buggy_advertise
        router._view.tick = buggy_tick
        return router

    def _perhaps(self, name: str) -> None:
        if name in self.bugs:
            self.bugs -= {name}
            raise Bug(name)


@pytest.mark.parametrize(("bug", "name"), [("advertise", "advertiser"), ("tick", "router")])
async def test_a_bug_in_the_routing(
    bug: str, name: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A router or an advertiser that meets a bug once is logged and begins anew; what changes is still said."""
    async with cluster(2) as nodes:
        member = await nodes.add(kind=BuggyNode, image=IMAGE)
        await nodes.until_known(nodes.members[0], LAYER, {member.id}, 3.0)
        member.node.bugs = frozenset({bug})
        later = make_image("registry.example/later:v1", seed=3)
        for tag in IMAGE.tags:
            await LayoutWriter(LAYOUT, member.files).untag(tag)
        await put(member, later)
        await trio.sleep(15)
        assert not member.node.bugs
        assert f"{name}: a bug ended it; it begins anew" in caplog.text
        assert await nodes.knows(nodes.members[0], later.layers[0]) == {member.id}
        assert await nodes.knows(nodes.members[0], LAYER) == set()
        await nodes.pulls(nodes.members[1], later, name="later")
        assert (await nodes.page(member, "/readyz")).status == 200


async def test_a_bug_before_the_start(autojump_clock: MockClock) -> None:
    """What fails before it has started ends the start with that very error, and nothing stays open."""

    class BadStore:
        inventory = waiting_for = None

        async def run(self, *, task_status=trio.TASK_STATUS_IGNORED):
            raise Bug("no start")

    async with cluster() as nodes:
        member = nodes.make()
        member.node._content.store = BadStore()
        with pytest.raises(Bug, match="no start"):
            await member.node.run(trio.Event())
        assert_nothing_is_bound(member.network)


# --- ending ---


async def test_a_stop_is_in_order(autojump_clock: MockClock) -> None:
    """A stopping node is not ready, refuses new connections, finishes what runs within its grace, and is forgotten."""
    async with cluster() as nodes:
        first = await nodes.add(image=IMAGE, upload_rate_max="20000", shutdown_grace="30s")
        second = await nodes.add()
        await nodes.ready()
        bodies = []

        async def pull() -> None:
            bodies.append((await nodes.get(second, BLOB)).body)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull)
            await trio.sleep(0.5)
            first.stop.set()
            await trio.sleep(1.6)  # the goodbye
            answer = await nodes.page(first, "/readyz")
            assert (answer.status, answer.body) == (503, b"the agent is stopping\n")
            assert await nodes.knows(second, LAYER) == set()
            with pytest.raises(Exception, match="refused"):
                await nodes.get(first, "/v2/", Connection="close")
            assert not first.ended.is_set()
        assert bodies == [IMAGE.content[LAYER][0]]
        with trio.fail_after(1):
            await first.ended.wait()


async def test_a_stop_has_its_grace(autojump_clock: MockClock) -> None:
    """What is not finished within the grace is cut short of its length."""
    async with cluster() as nodes:
        first = await nodes.add(image=IMAGE, upload_rate_max="20000", shutdown_grace="2s")
        second = await nodes.add()
        await nodes.ready()
        async with trio.open_nursery() as nursery:
            answers = []

            async def pull() -> None:
                answers.append(await nodes.get(second, BLOB))

            nursery.start_soon(pull)
            await trio.sleep(0.5)
            begun = trio.current_time()
            first.stop.set()
            await first.ended.wait()
            assert 1.9 <= trio.current_time() - begun <= 2.6
        assert answers[0].cut


async def test_a_cancelled_node_leaves_nothing_open(autojump_clock: MockClock) -> None:
    """A node that is cancelled in the middle of serving and relaying closes every file and every connection."""
    async with cluster(3, upload_rate_max="20000") as nodes:
        holder, relaying, other = nodes.members
        await put(holder, IMAGE)
        await trio.sleep(NEWS_S)
        async with trio.open_nursery() as nursery:
            for member in (holder, relaying, other):
                nursery.start_soon(partial(nodes.get, member, BLOB))
            await trio.sleep(0.5)
            await nodes.get(relaying, f"/v2/app/manifests/{IMAGE.root.digest}")  # leaves a kept connection behind
            await trio.sleep(0.5)
            for member in (relaying, holder, other):
                member.scope.cancel()
                await member.ended.wait()
        await nodes.close_client()
        assert nodes.world.open_streams == 0
        assert [member.files.open_files for member in nodes.members] == [set(), set(), set()]
        for member in nodes.members:
            assert_nothing_is_bound(member.network)


@pytest.mark.parametrize("bootstrap", ["", "static:10.0.0.1:29998"])
async def test_a_start_can_be_cancelled_anywhere(bootstrap: str, autojump_clock: MockClock) -> None:
    """Cancelled at any checkpoint of its start or its stop, a node leaves no port, stream, file or task behind."""
    async with cluster() as nodes:
        await nodes.add("10.0.0.1", image=IMAGE)
        await nodes.ready()
        network, files = nodes.world.host("10.0.0.2"), CountingFiles()
        await LayoutWriter(LAYOUT, files).prepare()
        tasks = len(system_tasks())

        async def start_and_stop() -> None:
            member = nodes.make("10.0.0.2", network=network, files=files, bootstrap=bootstrap, data_dir="/data")
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                await nursery.start(member.node.run, stop)
                await trio.sleep(0.1)
                stop.set()

        async def nothing_is_left() -> None:
            assert_nothing_is_bound(network)
            assert not files.open_files
            assert len(system_tasks()) == tasks
            assert [name for name in await files.names(LAYOUT.parent / "data") if name != "node-id"] == []

        await files.make_directory(LAYOUT.parent / "data")
        assert await cancel_at_every_checkpoint(start_and_stop, nothing_is_left) > 30
        nodes.members[1:] = []


def system_tasks() -> list[trio.lowlevel.Task]:
    """Return the tasks that belong to no nursery of ours: no others can outlive what started them."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return [task for nursery in root.child_nurseries for task in nursery.child_tasks]


def assert_nothing_is_bound(network) -> None:
    assert not network.listeners._bound
    assert not network.datagrams._bound


# --- logs ---


async def test_one_line_a_request_and_no_traceback(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Pulls with misses, cuts, a lying and a dead peer: one line each, warnings for what was cut, never a traceback."""
    caplog.set_level(logging.INFO, logger="p2pmirror")
    async with cluster(4) as nodes:
        holder, second, third, asker = nodes.members
        for member in (holder, second):
            await put(member, IMAGE)
        await trio.sleep(NEWS_S)
        caplog.clear()
        nodes.power_off(holder)
        await nodes.pulls(third, IMAGE)
        await trio.sleep(2 * LINGER_S)  # until the liar is the only one who has it
        now = second.files.entries[LAYOUT / "blobs" / "sha256" / LAYER.hex].now
        now[0] ^= 1
        cut = await nodes.get(asker, BLOB)
        assert cut.cut
        for path in ("/v2/app/manifests/none", "/v2/App/manifests/x", "/nothing", "/v2/app/blobs/sha256:12"):
            await nodes.get(asker, path)
        lines = [record for record in caplog.records if record.message == "request" and not from_peer(record)]
        asked = 2 + 2 * len(IMAGE.content) + 1 + 4
        assert len(lines) == asked
        assert [record.levelname for record in lines if record.levelno > logging.INFO] == ["WARNING"]
        assert [record.message for record in caplog.records if record.exc_info] == []
        assert all(json.dumps(record.fields) for record in lines)


def from_peer(record: logging.LogRecord) -> bool:
    return "from_peer" in record.fields  # type: ignore[attr-defined]  # the journal's
