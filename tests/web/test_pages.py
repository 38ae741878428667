"""Status page, probes, metrics, tasks, and what is refused."""

import base64
import hashlib
import html.parser
import json
import re

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from p2pmirror.resolve.protocol import Origin, Transfer
from p2pmirror.routing.protocol import Member
from p2pmirror.upstream.protocol import Standing
from p2pmirror.web import page
from p2pmirror.web.facts import Cache
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_head import response_head
from p2pmirror.wire.identity import NodeId
from tests.web.setting import DIGEST, REGISTRY_THERE, ROUTER_THERE, THERE, Bench, Recorded

PATHS = ["/", "/metrics", "/livez", "/readyz", "/api/v2.0/ping", "/debug/tasks"] + [
    f"/api/v1/{name}" for name in ("status", "members", "transfers", "requests", "peers")
]
EVIL = """<script>alert('1')</script><img src=x onerror="alert(2)">&amp;"""


class Tags(html.parser.HTMLParser):
    """Collects the tags of a page, and the texts between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def evil_bench():
    """Build a node that met nothing but hostile names."""
    bench = Bench()
    bench.reasons = [EVIL]
    bench.router.known = [Member(THERE, REGISTRY_THERE, ROUTER_THERE, EVIL, "alive", 1.0)]
    bench.transfers = [Transfer(DIGEST, EVIL, 1, 1, None, 0, 0.1)]
    bench.recent = [Recorded({"method": EVIL, "reference": EVIL, "repository": EVIL})]
    bench.cache = Cache(1, 1, 1, EVIL)
    return bench


async def test_hostile_names_are_text():
    """A tag, zone, name or reason that is markup comes out escaped: the page has no tag more than without it."""
    response = await evil_bench().ask("/")
    text = response.body.decode()
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    parsed, plain = Tags(text), Tags((await Bench().ask("/")).body.decode())
    assert [tag for tag, _ in parsed.tags].count("script") == [tag for tag, _ in plain.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in parsed.tags}
    assert parsed.texts.count(EVIL) == 4  # zone, transfer, method, repository; what is long or joined shows otherwise
    assert {name for _, attributes in parsed.tags for name in attributes} & {"onerror", "onclick", "src"} == set()


async def test_the_page_needs_nothing_from_elsewhere():
    """No address of another host, and a policy that allows this very script and style and nothing else."""
    response = await Bench().ask("/")
    text = response.body.decode()
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "://" not in text
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        [inline] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "innerHTML" not in page.SCRIPT


async def test_the_page_shows_the_facts():
    """State, identity, members, transfers and requests are on the page, readable."""
    bench = Bench()
    origins = (Origin(THERE, 1024), Origin(None, 512, "docker.io"))
    bench.transfers = [Transfer(DIGEST, "docker.io/a", 3 << 20, 1536, THERE, 2, 0.25, origins=origins)]
    bench.recent = [Recorded({"repository": "library/redis", "bytes": 10, "seconds": 12.3}, ended=40.0)]
    parsed = Tags((await bench.ask("/")).body.decode())
    for text in (
        "ready",
        "01" * 20,
        "10.0.0.2:29999",
        "docker.io/a",
        "1.5 KiB",
        "3.0 MiB",
        "250.0 ms",
        "library/redis",
        "6.0 KiB/s",
        "10.0.0.2:29999 1.0 KiB\ndocker.io 512 B",
    ):
        assert text in parsed.texts
    for text in ("10 B", "12.3 s", "60 s ago", "1.2.3"):
        assert text in parsed.texts
    bench.transfers = [Transfer(DIGEST, "ghcr.io/b", 3 << 20, 1536, None, 0, 0.25, registry="ghcr.io")]
    bench.registries = [
        Standing("quay.io", "through", True, True, 0.0, 42),
        Standing("ghcr.io", "through", True, False, 12.3),
        Standing("mcr.example", "through", True, True, 60.0),
        Standing("gcr.io", "through"),
    ]
    bench.cache = Cache(1 << 20, 2 << 20, 3 << 20, "cannot write /cache: No space left on device")
    texts = Tags((await bench.ask("/")).body.decode()).texts
    for text in ("ghcr.io", "reachable", "42", "unreachable", "12.3 s", "resting", "unasked", "1.0 MiB", "2.0 MiB"):
        assert text in texts
    assert "The cache keeps nothing new: cannot write /cache: No space left on device" in texts
    bench.reasons = ["no containerd", "not joined"]
    assert "not ready: no containerd; not joined" in Tags((await bench.ask("/")).body.decode()).texts


async def test_lists_without_rows_say_so():
    """A table that has nothing to show says what that means, and shows a peer by its address where that is known."""
    bench = Bench()
    texts = Tags((await bench.ask("/")).body.decode()).texts
    assert "Nobody has asked for anything yet." in texts
    bench.recent = [
        Recorded({"source": "peer", "peer": f"{THERE.hex()},{'03' * 20}", "status": 200, "outcome": "ok"}),
        Recorded({"source": "none", "path": "/v2/x", "status": 0, "outcome": "left"}),
    ]
    texts = Tags((await bench.ask("/")).body.decode()).texts
    assert "Nobody has asked for anything yet." not in texts
    for text in ("peer 10.0.0.2:29999, 030303030303", "200 ok", "/v2/x", "left"):
        assert text in texts


async def test_long_lists_are_cut():
    """The page shows the last requests, and counts the others; the API has all of them."""
    bench = Bench()
    bench.recent = [Recorded({"path": f"/{number}"}) for number in range(page.REQUESTS_MAX + 1)]
    texts = Tags((await bench.ask("/")).body.decode()).texts
    assert f"/{page.REQUESTS_MAX - 1}" in texts
    assert f"/{page.REQUESTS_MAX}" not in texts
    assert str(page.REQUESTS_MAX + 1) in texts


async def test_many_members_are_summed_up():
    """Of hundreds of members the first are listed; above them stand how many there are of each state and zone."""
    bench = Bench()
    bench.router.known = [
        Member(
            NodeId(number.to_bytes(20, "big")), Address("10.9.0.1", number), ROUTER_THERE, f"z{number % 7}", state, 1.0
        )
        for number, state in enumerate(["alive"] * 290 + ["suspect"] * 9 + ["gone"])
    ]
    parsed = Tags((await bench.ask("/")).body.decode())
    assert (
        "291 alive, 9 suspect, 1 gone; by zone: z0 43, z1 43, z2 43, z3 43, z4 43 and 3 more zones; "
        f"the first {page.MEMBERS_MAX} are listed"
    ) in parsed.texts
    assert "301" in parsed.texts
    assert sum(text.startswith("10.9.0.1:") for text in parsed.texts) == page.MEMBERS_MAX - 1


def test_a_few_members_are_only_counted():
    """One zone is not named, and nothing is said to be left out when nothing is."""
    member = {"state": "alive", "zone": ""}
    assert page.summary([member] * page.MEMBERS_MAX) == f"{page.MEMBERS_MAX} alive"
    assert page.summary([member, {"state": "gone", "zone": "b"}]) == "1 alive, 1 gone; by zone: - 1, b 1"


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (None, "bytes", "-"),
        (0, "bytes", "0 B"),
        (1023, "bytes", "1023 B"),
        (1 << 50, "bytes", "1024.0 TiB"),
        (0.5, "ratio", "50.0 %"),
        (0.0123, "seconds", "12.3 ms"),
        (3, "ago", "3 s ago"),
        ("sha256:" + "a" * 64, "short", "sha256:aaaaaaaaaaaa…"),
        ("short", "short", "short"),
        ("text", "bytes", "text"),
        ("", "", "-"),
        ("ab" * 20, "id", "abababababab"),
        (0.9999, "ratio", "99.9 %"),
        (1.0, "bar", "100 %"),
        (0.999, "bar", "99 %"),
        (2048, "rate", "2.0 KiB/s"),
        (0.4, "long", "0 s"),
        (300, "ago", "5 min ago"),
        (9000, "long", "2 h"),
        (400_000, "long", "4 days"),
        (200, "", "200"),
    ],
)
def test_values_as_people_read_them(value, form, text):
    """Each form of a value has its unit, and what is no number stays text."""
    assert page.shown(value, form) == text


async def test_livez(bench):
    """The agent is alive whenever it answers, ready or not."""
    bench.reasons = ["not yet"]
    assert (await bench.ask("/livez")).status == 200
    assert (await bench.ask("/api/v2.0/ping")).status == 200


async def test_readyz(bench):
    """200 without reasons, 503 with each of them on a line of its own, and as JSON when that is asked for."""
    ready = await bench.ask("/readyz")
    assert (ready.status, ready.body) == (200, b"ready\n")
    bench.reasons = ["containerd does not answer", "no peers"]
    waiting = await bench.ask("/readyz")
    assert (waiting.status, waiting.body) == (503, b"containerd does not answer\nno peers\n")
    as_json = await bench.ask("/readyz", accept="application/json")
    assert as_json.status == 503
    assert json.loads(as_json.body) == {"ready": False, "reasons": bench.reasons}


@pytest.mark.parametrize(
    ("accept", "content_type", "families"),
    [
        ("", "text/plain; version=0.0.4", text_string_to_metric_families),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text", open_families),
        ("application/openmetrics-text;version=evil;escaping=x\x7f", "application/openmetrics-text", open_families),
        ("text/plain;version=9.9.9", "text/plain; version=0.0.4", text_string_to_metric_families),
    ],
)
async def test_metrics_in_both_formats(bench, accept, content_type, families):
    """Prometheus' text, or OpenMetrics where it is asked for; each can be parsed, and says what it is."""
    bench.requests.child("blob", "store", "ok").inc(3)
    response = await bench.ask("/metrics", accept=accept)
    assert response.headers["Content-Type"].startswith(content_type)
    samples = [sample for family in families(response.body.decode()) for sample in family.samples]
    assert [sample.value for sample in samples if sample.name == "p2pmirror_front_requests_total"] == [3]


async def test_tasks_are_a_tree(bench):
    """Every task is there with the place where it waits, children under their parents, and no value of a variable."""

    async def waits_for_nothing():
        secret = "a value that is not shown"
        await trio.sleep_forever()
        return secret

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_for_nothing)
        await trio.testing.wait_all_tasks_blocked()
        text = (await bench.ask("/debug/tasks")).body.decode()
        nursery.cancel_scope.cancel()
    lines = text.splitlines()
    [child] = [line for line in lines if line.strip().endswith("waits_for_nothing") and ":" not in line]
    assert child.startswith("  ")
    assert re.search(r"web/test_pages.py:\d+ \S*waits_for_nothing", text)
    assert "sleep_forever" in text
    assert "a value" not in text
    assert re.search(r"p2pmirror/web/tasks.py:\d+ task_tree", text) or "test_tasks_are_a_tree" in text


async def test_many_tasks_are_cut(bench, monkeypatch):
    """The list of tasks and each stack are bounded, and say so."""
    monkeypatch.setattr("p2pmirror.web.tasks.TASKS_MAX", 3)
    monkeypatch.setattr("p2pmirror.web.tasks.FRAMES_MAX", 1)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        text = (await bench.ask("/debug/tasks")).body.decode()
        nursery.cancel_scope.cancel()
    assert "the first 3 tasks are shown" in text
    assert "    …" in text


@pytest.mark.parametrize("path", PATHS)
async def test_only_reads(bench, path):
    """GET and HEAD are answered alike; anything else is 405 and says what is allowed. Nothing may be sniffed."""
    for method in ("GET", "HEAD"):
        response = await bench.ask(path, method)
        assert response.status == 200
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
    for method in ("POST", "DELETE", "OPTIONS"):
        response = await bench.ask(path, method)
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


TEXTS = st.text(alphabet=st.characters(max_codepoint=255), max_size=30)


@given(
    path=st.one_of(TEXTS, st.sampled_from([*PATHS, "/api/v1/find"])),
    query=st.one_of(TEXTS, st.builds("ref={}".format, TEXTS), st.builds("digest={}".format, TEXTS)),
    accept=TEXTS,
)
def test_whatever_comes_in_gets_a_proper_answer(path, query, accept):
    """Arbitrary paths, queries and headers, on a node full of hostile names, get an answer that can be sent."""

    async def main():
        request_target = f"{path.replace('?', '')}?{query}"
        response = await evil_bench().ask(request_target, accept=accept)
        assert response.status in {200, 400, 404, 503}
        response_head(response, method="GET", date="now", connection=None)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
