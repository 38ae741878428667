"""What one node holds every other one serves, exactly, soon, and as its settings say."""

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.oci import Digest
from tests.node.cluster import NEWS_S, blob_path, cluster, drop, put
from tests.store.images import make_image

IMAGE = make_image(layer_bytes=(3000, 400_000))
LAYER = IMAGE.layers[1]
DATA = IMAGE.content[LAYER][0]
TAG = "/v2/app/manifests/v1"
BLOB = f"/v2/app/blobs/{LAYER}"


@pytest.mark.parametrize("count", [3, 8])
async def test_what_one_holds_all_serve(count: int, autojump_clock: MockClock) -> None:
    """Every other node serves the image by tag and by digest, HEAD and GET, byte for byte."""
    async with cluster(count) as nodes:
        await put(nodes.members[0], IMAGE)
        await trio.sleep(NEWS_S)
        for member in nodes.members:
            await nodes.pulls(member, IMAGE)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-", 0, 400_000),
        ("bytes=0-0", 0, 1),
        ("bytes=1000-300000", 1000, 300_001),
        ("bytes=-7", 399_993, 400_000),
    ],
)
async def test_ranges_of_what_a_peer_holds(asked: str, start: int, end: int, autojump_clock: MockClock) -> None:
    """A range of a blob that only a peer has is that range, with 206."""
    async with cluster(3) as nodes:
        await put(nodes.members[0], IMAGE)
        await trio.sleep(NEWS_S)
        for member in nodes.members:
            answer = await nodes.get(member, BLOB, Range=asked)
            assert (answer.status, answer.cut, answer.body) == (206, False, DATA[start:end])
            assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


async def test_a_range_that_cannot_be(autojump_clock: MockClock) -> None:
    """A range behind the end of what a peer holds is 416, on every node."""
    async with cluster(2) as nodes:
        await put(nodes.members[0], IMAGE)
        await trio.sleep(NEWS_S)
        for member in nodes.members:
            answer = await nodes.get(member, BLOB, Range="bytes=400000-")
            assert (answer.status, answer.headers["content-range"]) == (416, "bytes */400000")


async def test_new_content_is_known_within_two_seconds(autojump_clock: MockClock) -> None:
    """What appears in a store is found and served by the others 2 s later."""
    async with cluster(4) as nodes:
        await put(nodes.members[2], IMAGE)
        await nodes.until_known(nodes.members[0], LAYER, {nodes.members[2].id}, NEWS_S)
        await nodes.pulls(nodes.members[3], IMAGE)


async def test_removed_content_is_not_found(autojump_clock: MockClock) -> None:
    """A tag is gone 2 s after it was removed, and so is its content; a blob whose file went, with the next look."""
    async with cluster(3) as nodes:
        await put(nodes.members[0], IMAGE)
        await nodes.until_known(nodes.members[1], LAYER, {nodes.members[0].id}, NEWS_S)
        nodes.members[0].files.remove(blob_path(LAYER))
        await nodes.until_known(nodes.members[1], LAYER, set(), 7.0)
        assert (await nodes.get(nodes.members[1], BLOB)).status == 404
        assert (await nodes.get(nodes.members[1], TAG)).status == 200
        await drop(nodes.members[0], *IMAGE.tags)
        await nodes.until_known(nodes.members[1], IMAGE.root.digest, set(), NEWS_S)
        assert (await nodes.get(nodes.members[1], TAG)).status == 404
        assert (await nodes.get(nodes.members[0], TAG)).status == 404


async def test_a_miss_is_cheap(autojump_clock: MockClock) -> None:
    """What nobody has is 404 within 40 ms and an OCI error, by digest, by tag, GET and HEAD."""
    async with cluster(8) as nodes:
        absent = Digest.of(b"nowhere")
        for path in (f"/v2/app/blobs/{absent}", f"/v2/app/manifests/{absent}", "/v2/app/manifests/v9"):
            for method in ("GET", "HEAD"):
                begun = trio.current_time()
                answer = await nodes.get(nodes.members[5], path, method=method)
                assert answer.status == 404
                assert trio.current_time() - begun <= 0.04
                assert method == "HEAD" or b"_UNKNOWN" in answer.body


async def test_many_pull_at_once(autojump_clock: MockClock) -> None:
    """Seven nodes pull what one holds in the same moment, twice each, and each gets every byte."""
    async with cluster(8) as nodes:
        await put(nodes.members[0], IMAGE)
        await trio.sleep(NEWS_S)
        async with trio.open_nursery() as nursery:
            for member in nodes.members[1:] * 2:
                nursery.start_soon(nodes.pulls, member, IMAGE)


async def test_filters_bind_advertising_and_serving(autojump_clock: MockClock) -> None:
    """What a node's filters exclude it neither says that it has nor serves, to clients and to peers, nor fetches."""
    async with cluster() as nodes:
        shy = await nodes.add(image=IMAGE, filters=".*,!registry.example/app(:.*)?")
        other = await nodes.add()
        await nodes.ready()
        assert await nodes.knows(other, LAYER) == set()
        for member in (shy, other):
            assert (await nodes.get(member, TAG)).status == 404
            assert (await nodes.get(member, BLOB)).status == 404
        assert (await nodes.get(shy, BLOB, P2PMirror_Peer=other.id)).status == 404
        await put(other, IMAGE)
        await nodes.until_known(shy, LAYER, {other.id}, NEWS_S)
        assert (await nodes.get(shy, BLOB)).status == 404


async def test_registries_only(autojump_clock: MockClock) -> None:
    """With registries_only what belongs to another registry is not here, whoever has it."""
    async with cluster() as nodes:
        await nodes.add(image=IMAGE)
        strict = await nodes.add(registries_only="true", registries="ghcr.io")
        open_one = await nodes.add(registries_only="true", registries="registry.example")
        await nodes.ready()
        assert (await nodes.get(strict, BLOB)).status == 404
        await nodes.pulls(open_one, IMAGE)


async def test_default_registry(autojump_clock: MockClock) -> None:
    """Without `ns` a request is about the default registry: docker.io, or the one that is set."""
    async with cluster() as nodes:
        await nodes.add(image=IMAGE)
        await nodes.add(default_registry="registry.example")
        docker = await nodes.add(image=make_image("docker.io/library/nginx:1", seed=5))
        await nodes.ready()
        assert [(await nodes.get(each, TAG, ns=None)).status for each in nodes.members] == [404, 200, 404]
        assert (await nodes.get(docker, "/v2/library/nginx/manifests/1", ns=None)).status == 200
        assert (await nodes.get(nodes.members[0], "/v2/nginx/manifests/1", ns=None)).status == 200


async def test_tags_can_be_left_alone(autojump_clock: MockClock) -> None:
    """With resolve_tags = false tags are 404 at this node and not said to others, and digests are served."""
    async with cluster() as nodes:
        without = await nodes.add(image=IMAGE, resolve_tags="false")
        other = await nodes.add()
        await nodes.ready()
        assert [(await nodes.get(each, TAG)).status for each in (without, other)] == [404, 404]
        assert (await nodes.get(other, f"/v2/app/manifests/{IMAGE.root.digest}")).status == 200


async def test_the_newest_claim_of_a_tag_wins(autojump_clock: MockClock) -> None:
    """A tag that two nodes hold differently leads to what was learnt last, at every node."""
    newer = make_image(seed=7)
    async with cluster(3) as nodes:
        await put(nodes.members[0], IMAGE)
        await trio.sleep(30)
        await put(nodes.members[1], newer)
        await trio.sleep(NEWS_S)
        for member in nodes.members:
            answer = await nodes.get(member, TAG)
            assert answer.headers["docker-content-digest"] == str(newer.root.digest)


async def test_a_peer_is_never_sent_on(autojump_clock: MockClock) -> None:
    """A request that says it comes from a peer is answered from what is held here, at once."""
    async with cluster(3) as nodes:
        await put(nodes.members[0], IMAGE)
        await trio.sleep(NEWS_S)
        asker = nodes.members[2].id
        assert (await nodes.get(nodes.members[1], BLOB, P2PMirror_Peer=asker)).status == 404
        assert (await nodes.get(nodes.members[0], BLOB, P2PMirror_Peer=asker)).body == DATA


async def test_the_rate_binds_peers_alone(autojump_clock: MockClock) -> None:
    """upload_rate_max holds for what goes to peers, and not for a client of the node itself."""
    rate = 100_000
    async with cluster() as nodes:
        holder = await nodes.add(image=IMAGE, upload_rate_max=str(rate))
        others = [await nodes.add(), await nodes.add()]
        await nodes.ready()
        begun = trio.current_time()
        assert (await nodes.get(holder, BLOB)).body == DATA
        assert trio.current_time() - begun < 0.5
        begun = trio.current_time()

        async def pull(member) -> None:
            assert (await nodes.get(member, BLOB)).body == DATA

        async with trio.open_nursery() as nursery:
            for member in others:
                nursery.start_soon(pull, member)
        seconds = trio.current_time() - begun
        assert 2 * len(DATA) / rate * 0.95 <= seconds <= 2 * len(DATA) / rate * 1.1


async def test_the_rate_of_what_comes(autojump_clock: MockClock) -> None:
    """download_rate_max holds for all that comes from peers, whose bytes are all used, and not for what is held."""
    rate = 100_000
    async with cluster() as nodes:
        holders = [await nodes.add(image=IMAGE), await nodes.add(image=IMAGE)]
        taker = await nodes.add(download_rate_max=str(rate))
        await nodes.ready()
        begun = trio.current_time()
        assert (await nodes.get(taker, BLOB)).body == DATA
        assert len(DATA) / rate * 0.9 <= trio.current_time() - begun <= len(DATA) / rate * 1.1
        told = [await nodes.page_json(each, "/api/v1/requests") for each in holders]
        asked = [each for one in told for each in one["requests"] if each["method"] == "GET"]
        assert [(each["outcome"], each["bytes"]) for each in asked] == [("ok", len(DATA))]
        await put(taker, IMAGE)
        begun = trio.current_time()
        assert (await nodes.get(taker, BLOB)).body == DATA
        assert trio.current_time() - begun < 0.5


async def test_many_layers_of_one_holder_at_once(autojump_clock: MockClock) -> None:
    """However many layers a node pulls at the same moment of the only one that has them, it gets each of them."""
    image = make_image(layer_bytes=tuple(range(100_000, 112_000, 1_000)))
    async with cluster() as nodes:
        await nodes.add(image=image, upload_slots="1", upload_slots_per_peer="1", upload_rate_max="1000000")
        taker = await nodes.add()
        await nodes.ready()

        async def pull(layer: Digest) -> None:
            answer = await nodes.get(taker, f"/v2/app/blobs/{layer}")
            assert (answer.status, answer.cut, Digest.of(answer.body)) == (200, False, layer)

        async with trio.open_nursery() as nursery:
            for layer in image.layers:
                nursery.start_soon(pull, layer)
