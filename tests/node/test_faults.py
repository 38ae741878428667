"""Nodes die, leave, lie and are cut off: whoever pulls gets every byte right, or no clean end."""

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.wire.address import Address
from tests.node.cluster import (
    DEATH_S,
    NEWS_S,
    REGISTRY_PORT,
    Answer,
    Cluster,
    Member,
    blob_path,
    cluster,
    eventually,
    falsify,
    put,
)
from tests.store.images import make_image

IMAGE = make_image(layer_bytes=(3000, 1_000_000))
LAYER = IMAGE.layers[1]
DATA = IMAGE.content[LAYER][0]
BLOB = f"/v2/app/blobs/{LAYER}"
TAG = "/v2/app/manifests/v1"
SLOW = "200000"  # bytes per second: the layer takes 5 s
HEAL_S = 30.0  # after a partition: a member that is gone is knocked at every 10 s, and answers within a second


@asynccontextmanager
async def two_holders(**settings: str):
    """Yield a cluster of four slow nodes of which the first two hold the image, a third, and the fourth's client."""
    async with cluster() as nodes:
        for image in (IMAGE, IMAGE, None, None):
            await nodes.add(image=image, upload_rate_max=SLOW, **settings)
        await nodes.ready()
        yield nodes


async def started(nodes: Cluster, asker: Member) -> Member:
    """Wait until a relay at `asker` is half done; return the node that sends."""
    transfers: list[dict] = []

    def half_done() -> bool:
        return bool(transfers) and 300_000 < transfers[0]["sent_bytes"] < 700_000

    with trio.fail_after(10):
        while not half_done():
            await trio.sleep(0.1)
            transfers = (await nodes.page_json(asker, "/api/v1/transfers"))["transfers"]
    return next(member for member in nodes.members if member.id == transfers[0]["peer"])


@pytest.mark.parametrize("end", ["kill", "power_off", "stop", "partition"])
async def test_a_response_goes_on_when_its_source_ends(end: str, autojump_clock: MockClock) -> None:
    """The source dies, falls silent, leaves or is cut off mid-blob: the same response goes on, every byte right."""
    async with two_holders(shutdown_grace="1s") as nodes, trio.open_nursery() as nursery:
        asker = nodes.members[2]
        answers: list[Answer] = []

        async def pull() -> None:
            answers.append(await nodes.get(asker, BLOB))

        nursery.start_soon(pull)
        source = await started(nodes, asker)
        if end == "stop":
            source.stop.set()
        elif end == "partition":
            nodes.world.partition([source.network])
        else:
            getattr(nodes, end)(source)
        await eventually(lambda: bool(answers), 15)
        assert (answers[0].status, answers[0].cut, answers[0].body == DATA) == (200, False, True)
        requests = (await nodes.page_json(asker, "/api/v1/requests"))["requests"]
        assert (requests[0]["resumes"], requests[0]["outcome"]) == (1, "ok")
        nodes.world.heal()


@pytest.mark.parametrize("end", ["kill", "power_off"])
async def test_the_last_source_dies(end: str, autojump_clock: MockClock) -> None:
    """With nobody left the response is cut short of its length, and says so in one line; never a clean end."""
    async with two_holders() as nodes, trio.open_nursery() as nursery:
        nodes.kill(nodes.members[1])
        asker = nodes.members[2]
        answers: list[Answer] = []

        async def pull() -> None:
            answers.append(await nodes.get(asker, BLOB))

        nursery.start_soon(pull)
        source = await started(nodes, asker)
        assert source is nodes.members[0]
        getattr(nodes, end)(source)
        await eventually(lambda: bool(answers), 15)
        assert answers[0].cut
        assert DATA.startswith(answers[0].body)
        requests = (await nodes.page_json(asker, "/api/v1/requests"))["requests"]
        assert requests[0]["outcome"] == "cut"


@pytest.mark.parametrize("end", ["kill", "power_off"])
async def test_a_dead_node_is_not_handed_out(end: str, autojump_clock: MockClock) -> None:
    """10 s after its death nobody finds a node any more, and pulls do not wait for it."""
    async with two_holders() as nodes:
        first, second, *others = nodes.members
        for member in others:
            await nodes.until_known(member, LAYER, {first.id, second.id}, NEWS_S)
        getattr(nodes, end)(first)
        await trio.sleep(DEATH_S)
        for member in (second, *others):
            assert await nodes.knows(member, LAYER) == {second.id} - {member.id}
        begun = trio.current_time()
        assert (await nodes.get(others[0], TAG)).status == 200
        assert trio.current_time() - begun < 0.1


async def test_pulls_right_after_a_death(autojump_clock: MockClock) -> None:
    """Before anybody knows of a death a manifest still comes within 1 s, from whoever has it."""
    for seed in range(6):
        async with cluster(seed=seed) as nodes:
            for image in (IMAGE, IMAGE, None):
                await nodes.add(image=image)
            await nodes.ready()
            nodes.power_off(nodes.members[0])
            begun = trio.current_time()
            assert (await nodes.get(nodes.members[2], f"/v2/app/manifests/{IMAGE.root.digest}")).status == 200
            assert trio.current_time() - begun <= 1.0


async def test_a_node_that_leaves_is_gone_at_once(autojump_clock: MockClock) -> None:
    """As soon as a node has been stopped in order nobody finds it, and its ports refuse."""
    async with cluster(8) as nodes:
        leaver = nodes.members[3]
        await put(leaver, IMAGE)
        await nodes.until_known(nodes.members[0], LAYER, {leaver.id}, NEWS_S)
        leaver.stop.set()
        await leaver.ended.wait()
        for member in nodes.members:
            if member is not leaver:
                assert await nodes.knows(member, LAYER) == set()
                begun = trio.current_time()
                assert (await nodes.get(member, BLOB)).status == 404
                assert trio.current_time() - begun <= 0.04
        with pytest.raises(Exception, match="refused"):
            await nodes.get(leaver, BLOB)


async def test_partition_and_healing(autojump_clock: MockClock) -> None:
    """Both halves go on by themselves; within 30 s of healing what the other half has is found again."""
    async with cluster(6) as nodes:
        left, right = nodes.members[:3], nodes.members[3:]
        other = make_image("registry.example/other:v1", seed=4)
        await put(left[2], IMAGE)
        await trio.sleep(NEWS_S)
        nodes.world.partition([each.network for each in left], [*(each.network for each in right), nodes.client_host])
        await trio.sleep(60)
        await put(right[2], other)
        await nodes.until_known(right[0], other.layers[0], {right[2].id}, NEWS_S)
        assert await nodes.knows(right[0], LAYER) == set()
        assert (await nodes.get(right[0], BLOB)).status == 404
        nodes.world.heal()
        await nodes.until_known(left[0], other.layers[0], {right[2].id}, HEAL_S)
        await nodes.until_known(right[0], LAYER, {left[2].id}, HEAL_S)
        await nodes.pulls(right[0], IMAGE)
        await nodes.pulls(left[0], other, name="other")


async def test_an_address_is_used_again(autojump_clock: MockClock) -> None:
    """A new node at a dead one's address is itself: the dead one's content is not asked of it for long."""
    async with cluster(4) as nodes:
        dead = nodes.members[3]
        await put(dead, IMAGE)
        await nodes.until_known(nodes.members[0], LAYER, {dead.id}, NEWS_S)
        nodes.kill(dead)
        await dead.ended.wait()
        heir = await nodes.add(dead.host, network=dead.network)
        await trio.sleep(NEWS_S)
        assert (await nodes.get(nodes.members[0], BLOB)).status == 404
        other = make_image("registry.example/other:v1", seed=4)
        await put(heir, other)
        await nodes.until_known(nodes.members[1], other.layers[0], {heir.id}, NEWS_S)
        await nodes.pulls(nodes.members[1], other, name="other")
        await trio.sleep(DEATH_S)
        for member in nodes.members[:3]:
            assert await nodes.knows(member, LAYER) == set()


async def test_a_restarted_node_is_the_same(autojump_clock: MockClock) -> None:
    """A node that comes back with its disk has its id again, and what it holds is found within 3 s."""
    async with cluster(2) as nodes:
        first = await nodes.add(data_dir="/data", image=IMAGE)
        await nodes.until_known(nodes.members[0], LAYER, {first.id}, NEWS_S)
        nodes.kill(first)
        await first.ended.wait()
        again = await nodes.add(first.host, network=first.network, files=first.files, data_dir="/data")
        assert again.id == first.id
        await trio.sleep(3)  # one poll of the layout, then the news
        assert await nodes.knows(nodes.members[0], LAYER) == {again.id}
        await nodes.pulls(nodes.members[1], IMAGE)


@pytest.mark.parametrize("seed", range(4))
async def test_wrong_bytes_never_end_cleanly(seed: int, autojump_clock: MockClock) -> None:
    """A blob that a peer's disk has falsified is cut; that peer is not asked again, and the next pull is right."""
    async with cluster(seed=seed) as nodes:
        liar = await nodes.add(image=IMAGE)
        honest = await nodes.add()
        asker = await nodes.add()
        await nodes.ready()
        falsify(liar, LAYER)
        answer = await nodes.get(asker, BLOB)
        assert (answer.status, answer.cut) == (200, True)
        assert len(answer.body) < len(DATA)
        assert (await nodes.get(asker, BLOB)).status == 404  # banned, and nobody else has it
        await put(honest, IMAGE)
        await nodes.until_known(asker, LAYER, {liar.id, honest.id}, NEWS_S)
        for _ in range(4):
            assert (await nodes.get(asker, BLOB)).body == DATA


@pytest.mark.parametrize("seed", range(4))
async def test_a_falsified_manifest_comes_from_somebody_else(seed: int, autojump_clock: MockClock) -> None:
    """A manifest is read whole before it is passed on, so that a lie is never seen by the client."""
    async with cluster(seed=seed) as nodes:
        liar = await nodes.add(image=IMAGE)
        await nodes.add(image=IMAGE)
        asker = await nodes.add()
        await nodes.ready()
        falsify(liar, IMAGE.root.digest)
        for _ in range(3):
            answer = await nodes.get(asker, TAG)
            assert (answer.status, answer.body) == (200, IMAGE.content[IMAGE.root.digest][0])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nnothing",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nnothing\r\n0\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-6/7\r\nContent-Length: 7\r\n\r\nnothing",
        b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.2:29999/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"",
        None,
    ],
)
async def test_peers_that_are_no_agents(answer: bytes | None, autojump_clock: MockClock) -> None:
    """Whatever answers at a provider's address, a pull gets the right bytes from the other one, or a 404 within 1 s."""
    async with cluster() as nodes:
        dead = await nodes.add(image=IMAGE)
        asker = await nodes.add()
        await nodes.ready()
        listener_taken = nodes.members[0].network
        nodes.world.kill(dead.network)  # its sockets only: its records live on for a moment
        dead.scope.cancel()
        async with trio.open_nursery() as nursery:
            listener = await listener_taken.listen(Address(dead.host, REGISTRY_PORT))

            async def pretend() -> None:
                while True:
                    stream = await listener.accept()
                    await stream.receive_some(4096)
                    if answer is None:
                        nursery.start_soon(hold, stream)
                        continue
                    await stream.send_all(answer)
                    await stream.aclose()

            async def hold(stream) -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    await stream.aclose()

            nursery.start_soon(pretend)
            begun = trio.current_time()
            for path in (TAG, f"/v2/app/manifests/{IMAGE.root.digest}"):
                assert (await nodes.get(asker, path)).status == 404
            assert trio.current_time() - begun <= 2.1
            pulled = await nodes.get(asker, BLOB)
            assert pulled.status == 404 or pulled.cut
            nursery.cancel_scope.cancel()
        await listener.aclose()


async def test_a_full_or_broken_disk_is_its_owners_alone(autojump_clock: MockClock) -> None:
    """A blob that its holder can no longer read is a miss there and a 404 or another peer's bytes elsewhere."""
    async with two_holders() as nodes:
        broken, _, asker, _ = nodes.members
        broken.files.unreadable.add(blob_path(LAYER))
        for _ in range(3):
            assert (await nodes.get(asker, BLOB)).body == DATA
        assert (await nodes.get(broken, BLOB)).body == DATA  # from the other one
