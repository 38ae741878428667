"""The JSON of the observability port: golden shapes."""

import json

import pytest
import trio

from p2pmirror.oci import Digest
from p2pmirror.resolve.protocol import Origin, Transfer
from p2pmirror.routing.protocol import Key, Member, Provider, Step, Trace, key_of
from p2pmirror.telemetry.metrics import Room
from p2pmirror.upstream.protocol import Standing
from p2pmirror.web import Identity
from p2pmirror.web.facts import REGISTRIES_MAX, Cache
from p2pmirror.wire.address import Address
from tests.web.setting import CLAIM, DIGEST, HERE, REGISTRY_THERE, TAG, THERE, Bench, Recorded

ORIGINS = (Origin(THERE, 30), Origin(None, 10, "docker.io"))
TRANSFER = Transfer(DIGEST, "docker.io/library/nginx", 100, 40, THERE, 1, 0.5, origins=ORIGINS, readers=2, followers=3)
TRANSFER_JSON = {
    "digest": str(DIGEST),
    "name": "docker.io/library/nginx",
    "size": 100,
    "sent_bytes": 40,
    "source": "peer",
    "peer": "02" * 20,
    "registry": None,
    "resumes": 1,
    "seconds": 0.5,
    "rate": 80,
    "sources": [
        {"peer": "02" * 20, "registry": None, "bytes": 30},
        {"peer": None, "registry": "docker.io", "bytes": 10},
    ],
    "readers": 2,
    "followers": 3,
}
MEMBERS_JSON = [
    {"node_id": "01" * 20, "address": "10.0.0.1:29999", "zone": "a", "state": "alive", "last_seen_s": 0.0},
    {"node_id": "02" * 20, "address": "10.0.0.2:29999", "zone": "b", "state": "alive", "last_seen_s": 0.4},
]


async def json_of(bench, target):
    """Return the document behind a target, which must be there."""
    response = await bench.ask(target)
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    return json.loads(response.body)


async def test_status(bench):
    """`/api/v1/status` has exactly the fields that `status --json` promises."""
    bench.transfers = [TRANSFER]
    assert await json_of(bench, "/api/v1/status") == {
        "node_id": "01" * 20,
        "version": "1.2.3",
        "ready": True,
        "reasons": [],
        "members": MEMBERS_JSON,
        "held": {"blobs": 1, "tags": 1, "bytes": 4},
        "records": 7,
        "cache": {"bytes": 0, "max_bytes": 0, "free_bytes": 0, "trouble": None, "hits": 0, "misses": 0},
        "transfers": [TRANSFER_JSON],
        "hit_ratio": None,
        "saved_bytes": 0,
        "cross_zone_bytes": 0,
        "registries": [],
    }
    bench.reasons = ["containerd does not answer"]
    status = await json_of(bench, "/api/v1/status")
    assert (status["ready"], status["reasons"]) == (False, ["containerd does not answer"])


async def test_a_transfer_says_whose_bytes_come(bench):
    """What comes from a registry is told from what a peer sends, and names the registry."""
    bench.transfers = [Transfer(DIGEST, "ghcr.io/a/b", 100, 40, None, 0, 0.5, registry="ghcr.io")]
    [transfer] = (await json_of(bench, "/api/v1/transfers"))["transfers"]
    assert (transfer["source"], transfer["registry"], transfer["peer"]) == ("upstream", "ghcr.io", None)


async def test_the_cache_in_the_status(bench):
    """How full it is, what is wrong with it, what it answered and what it and the images here did not."""
    bench.cache = Cache(5, 10, 20, "cannot write /cache: Read-only file system")
    for source, count in (("store", 1), ("cache", 4), ("peer", 2), ("none", 1)):
        bench.requests.child("blob", source, "ok").inc(count)
    saved = Room(bench.registry, "front").counter("saved_bytes_total", "Bytes.").child()
    saved.inc(1000)
    status = await json_of(bench, "/api/v1/status")
    trouble = "cannot write /cache: Read-only file system"
    assert status["cache"] == {
        "bytes": 5,
        "max_bytes": 10,
        "free_bytes": 20,
        "trouble": trouble,
        "hits": 4,
        "misses": 3,
    }
    assert status["saved_bytes"] == 1000
    assert status["ready"]


async def test_the_registries_in_the_status(bench):
    """How this node stands with each registry, and never more of them than a page holds."""
    bench.registries = [Standing("ghcr.io", "through", True, False, 12.3456, None), Standing("a.example", "peers")]
    assert (await json_of(bench, "/api/v1/status"))["registries"] == [
        {
            "name": "ghcr.io",
            "mode": "through",
            "asked": True,
            "reachable": False,
            "rests_s": 12.346,
            "quota_left": None,
        },
        {"name": "a.example", "mode": "peers", "asked": False, "reachable": True, "rests_s": 0.0, "quota_left": None},
    ]
    bench.registries = [Standing(f"{number}.example", "through") for number in range(REGISTRIES_MAX + 1)]
    assert len((await json_of(bench, "/api/v1/status"))["registries"]) == REGISTRIES_MAX


async def test_hit_ratio(bench):
    """The part of the requests for content that was answered from here or peers; refusals and pings do not count."""
    for kind, source, outcome, count in (
        ("blob", "store", "ok", 2),
        ("manifest", "peer", "ok", 1),
        ("blob", "none", "miss", 1),
        ("blob", "none", "refused", 7),
        ("base", "none", "ok", 9),
    ):
        bench.requests.child(kind, source, outcome).inc(count)
    assert (await json_of(bench, "/api/v1/status"))["hit_ratio"] == 0.75


async def test_hit_ratio_without_a_front(bench):
    """A registry without the front's metrics has no hit ratio, and no error."""
    bench.registry.unregister(bench.requests._metric)
    assert (await json_of(bench, "/api/v1/status"))["hit_ratio"] is None


async def test_lists(bench):
    """Members, transfers and requests are lists under their names; requests say how long ago they ended."""
    bench.transfers = [TRANSFER]
    bench.recent = [Recorded({"method": "GET", "status": 200}, ended=98.5)]
    assert await json_of(bench, "/api/v1/members") == {"members": MEMBERS_JSON}
    assert await json_of(bench, "/api/v1/transfers") == {"transfers": [TRANSFER_JSON]}
    assert await json_of(bench, "/api/v1/requests") == {
        "requests": [{"ago_s": 1.5, "method": "GET", "status": 200}],
        "sources": [],
    }


async def test_sources(bench):
    """Each source that answered: its share of the requests for content, and the bytes of content that it gave."""
    bench.requests.child("blob", "peer", "ok").inc(3)
    bench.requests.child("manifest", "none", "miss").inc(1)
    bench.requests.child("manifest", "none", "refused").inc(5)
    bench.requests.child("base", "store", "ok").inc(5)
    sent = Room(bench.registry, "front").counter("bytes_total", "Bytes.", {"source": ("peer", "none")})
    sent.child("peer").inc(1000)
    sent.child("none").inc(90)
    assert (await json_of(bench, "/api/v1/requests"))["sources"] == [
        {"source": "peer", "meaning": "another node", "requests": 3, "share": 0.75, "bytes": 1000},
        {"source": "none", "meaning": "nobody had it: 404", "requests": 1, "share": 0.25, "bytes": 0},
    ]


async def test_peers_is_a_bootstrap_list(bench):
    """The router addresses of the live members and of this node, and no address that cannot be dialled."""
    gone = Member(THERE, REGISTRY_THERE, Address("10.0.0.3", 29998), "", "gone", 60.0)
    v6 = Member(THERE, REGISTRY_THERE, Address("fd00::1", 29998), "", "alive", 0.0)
    bench.router.known += [gone, v6]
    assert await json_of(bench, "/api/v1/peers") == {"peers": ["10.0.0.1:29998", "10.0.0.2:29998", "[fd00::1]:29998"]}
    bench = Bench(identity=Identity(HERE, "1", Address("0.0.0.0", 29999), Address("0.0.0.0", 29998)))
    assert "0.0.0.0:29998" not in (await json_of(bench, "/api/v1/peers"))["peers"]


async def test_find_a_digest(bench, autojump_clock):
    """Who has a digest, sorted by address, whether this node holds it, and how long the answer took."""
    bench.router.providers = [
        Provider(THERE, REGISTRY_THERE, "b", complete=False, leading=True),
        Provider(HERE, Address("10.0.0.1", 29999)),
    ]
    assert await json_of(bench, f"/api/v1/find?digest={DIGEST}") == {
        "key": key_of(DIGEST).hex(),
        "subject": str(DIGEST),
        "seconds": 0.0,
        "providers": [
            {"node_id": "01" * 20, "address": "10.0.0.1:29999", "zone": "", "complete": True, "leading": False},
            {"node_id": "02" * 20, "address": "10.0.0.2:29999", "zone": "b", "complete": False, "leading": True},
        ],
        "held": True,
    }
    assert (await json_of(bench, f"/api/v1/find?digest={Digest.of(b'other')}"))["held"] is False


@pytest.mark.parametrize("ref", ["nginx:1.27", "docker.io%2Flibrary%2Fnginx%3A1.27"])
async def test_find_a_tag(bench, ref, autojump_clock):
    """A reference is brought to its full name; each provider says what the tag names there."""
    bench.router.providers = [Provider(THERE, REGISTRY_THERE, tag=CLAIM)]
    found = await json_of(bench, f"/api/v1/find?ref={ref}")
    assert (found["key"], found["subject"], found["held"]) == (key_of(TAG).hex(), str(TAG), True)
    assert found["providers"][0]["claim"] == {
        "digest": str(DIGEST),
        "media_type": CLAIM.media_type,
        "size": 4,
        "age_s": 1.5,
        "confirmed": True,
    }
    bench.router.providers = [Provider(THERE, REGISTRY_THERE)]
    assert (await json_of(bench, f"/api/v1/find?ref={ref}"))["providers"][0]["claim"] is None


async def test_find_a_reference_with_a_digest(bench, autojump_clock):
    """A reference that has a digest is looked up by it; one that has neither tag nor digest means `latest`."""
    assert (await json_of(bench, f"/api/v1/find?ref=nginx:1.27@{DIGEST}"))["subject"] == str(DIGEST)
    assert (await json_of(bench, "/api/v1/find?ref=nginx"))["subject"] == "docker.io/library/nginx:latest"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "ref=",
        "digest=",
        "digest=sha256:x",
        f"digest={DIGEST}&trace=yes",
        f"digest={DIGEST}&trace=",
        "ref=UPPER",
        f"ref=a&digest={DIGEST}",
        "x" * 5000,
        "a&b&c&d&e&f&g&h&i&j&k",
    ],
)
async def test_find_refuses_what_it_cannot_look_up(bench, query):
    """A wrong question is 400 with one sentence."""
    response = await bench.ask(f"/api/v1/find?{query}")
    assert response.status == 400
    assert json.loads(response.body)["error"]


async def test_find_ends(bench, autojump_clock):
    """A look-up that does not end is ended after 5 s, with what was found; the router's look-up ends with it."""
    bench.router.providers, bench.router.hangs = [Provider(THERE, REGISTRY_THERE)], True
    found = await json_of(bench, f"/api/v1/find?digest={DIGEST}")
    assert (found["seconds"], len(found["providers"]), bench.router.running) == (5.0, 1, 0)


async def test_few_finds_at_once(bench, autojump_clock):
    """The fifth look-up at the same time is told to come again; later there is room again, also after a cancel."""
    bench.router.hangs = True
    statuses = []

    async def one():
        statuses.append((await bench.ask(f"/api/v1/find?digest={DIGEST}")).status)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert sorted(statuses) == [200, 200, 200, 200, 503]
    for _ in range(5):
        with trio.move_on_after(1):
            await one()
    await one()
    assert statuses[5:] == [200]


async def test_find_counts_to_a_thousand(bench, autojump_clock, monkeypatch):
    """The list of providers is bounded, and the look-up ends when it is full."""
    monkeypatch.setattr("p2pmirror.web.finding.PROVIDERS_MAX", 2)
    bench.router.providers, bench.router.hangs = [Provider(THERE, REGISTRY_THERE)] * 3, True
    found = await json_of(bench, f"/api/v1/find?digest={DIGEST}")
    assert (found["seconds"], len(found["providers"]), bench.router.running) == (0.0, 2, 0)


async def test_find_with_its_way(bench, autojump_clock):
    """`trace=1` adds the way of another look-up: who was asked, when what came back, and who the holders are."""
    router = Address("10.0.0.2", 29998)
    steps = (Step(HERE, Address("10.0.0.1", 29998), 0, 0.0, 0.0, 0, 2), Step(THERE, router, 1, 0.001, None, 0, 0))
    bench.router.way = Trace(Key(bytes(20)), 0.25, steps, (HERE,))
    assert "trace" not in await json_of(bench, f"/api/v1/find?digest={DIGEST}&trace=0")
    found = await json_of(bench, f"/api/v1/find?digest={DIGEST}&trace=1")
    assert (found["seconds"], found["held"]) == (0.0, True)
    silent = {"hop": 1, "node_id": "02" * 20, "address": "10.0.0.2:29998", "asked_s": 0.001, "answered_s": None}
    own = {"hop": 0, "node_id": "01" * 20, "address": "10.0.0.1:29998", "asked_s": 0.0, "answered_s": 0.0}
    assert found["trace"] == {
        "seconds": 0.25,
        "steps": [{**own, "records": 0, "closer": 2}, {**silent, "records": 0, "closer": 0}],
        "holders": ["01" * 20],
    }


async def test_a_way_that_does_not_end_is_left_out(bench, autojump_clock):
    """A traced look-up that hangs is given up as well, and ends within the time that the command waits."""
    bench.router.hangs = True
    began = trio.current_time()
    found = await json_of(bench, f"/api/v1/find?digest={DIGEST}&trace=1")
    assert found["trace"] is None
    assert trio.current_time() - began < 10
    assert bench.router.running == 0


async def test_a_way_is_bounded(bench, autojump_clock, monkeypatch):
    """However many were asked, the first steps are told."""
    monkeypatch.setattr("p2pmirror.web.finding.STEPS_MAX", 2)
    step = Step(THERE, REGISTRY_THERE, 1, 0.0, 0.1, 0, 0)
    bench.router.way = Trace(Key(bytes(20)), 0.1, (step,) * 5, ())
    assert len((await json_of(bench, f"/api/v1/find?digest={DIGEST}&trace=1"))["trace"]["steps"]) == 2
