"""The status page of real agents in a real Chromium."""

import json
import re
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from p2pmirror.oci import TagName
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.ocilayout import LayoutWriter
from p2pmirror.web.page import MEMBERS_MAX, shown, summary
from tests.lab.process import wait_until
from tests.web.agents import image_in, started
from tests.web.chromium import browsing

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=document.title='bad'>"
NAME = TagName("docker.io", "library/nginx", "1.27")
NGINX = "/v2/library/nginx"
LAYER_BYTES = 12 << 20  # the largest layer has 4 MiB of it, which take 8 s


class Cluster:
    """Two agents that know each other: `full` has an image, `empty` has a hostile zone."""

    def __init__(self, directory: Path) -> None:
        full, empty = directory / "full", directory / "empty"
        self.image = image_in(full, NAME, LAYER_BYTES)
        trio.run(LayoutWriter(empty / "images", HostFiles()).prepare)
        self.full = started(full, "127.0.0.31", zone="rack-1", upload_rate_max="512Ki")
        self.empty = started(empty, "127.0.0.32", zone=EVIL, bootstrap=f"static:{self.full.router}")
        wait_until(lambda: self.empty.get("/api/v1/find?ref=nginx:1.27")["providers"] != [], "the image is found")
        wait_until(lambda: len(self.full.get("/api/v1/members")["members"]) == 2, "both know each other")

    def end(self) -> None:
        self.empty.end()
        self.full.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Run the two agents for all tests of this module."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Run one browser for all tests of this module; each opens a tab of its own."""
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def timeless(text):
    """Return the page's text without what changes by itself: how long ago, and how long a registry still rests."""
    text = re.sub(r"(\tthrough\t\w+\t)[^\t]+", r"\1TIME", text)
    return re.sub(r"\d+ (s|min)( ago)?\b", "TIME", text)


def test_it_shows_the_node_and_what_happened(cluster, browser):
    """State, members with zone, held content, sources and requests are readable, and nothing is complained of."""
    assert cluster.full.ask(f"{NGINX}/manifests/1.27?ns=docker.io") == 200
    assert cluster.full.ask("/v2/library/redis/manifests/7?ns=registry.example") == 404
    with browser.page() as page:
        page.open(f"{cluster.full.page}/")
        text = page.text()
        for shown in (
            "ready",
            cluster.full.node_id,
            cluster.empty.registry,
            "rack-1",
            EVIL,
            "alive",
            "this node",
            "12",
            "this node's images",
            "nobody had it: 404",
            "Nothing is coming from a registry or a peer right now.",
            "registry.example/library/redis",
            "404 miss",
            "200 ok",
        ):
            assert shown in text, (shown, text)
        assert page.complaints == []


def test_the_script_shows_what_the_agent_wrote(cluster, browser):
    """After its first refresh the page reads as before: the script and the agent write alike."""
    cluster.empty.ask(f"{NGINX}/manifests/1.27?ns=docker.io", "HEAD")
    with browser.page() as page:
        page.open(f"{cluster.empty.page}/")
        page.until("!document.body.innerText.includes('resting')")  # a registry that failed rests, which passes
        before = page.text()
        page.evaluate("document.querySelector('tbody').replaceChildren()")  # it comes back only by a refresh
        page.until("document.querySelector('tbody').rows.length === 2")
        assert timeless(page.text()) == timeless(before)
        assert page.complaints == []


def test_the_script_rounds_as_the_agent_does(cluster, browser):
    """A value half-way between two is written alike by both, whatever it is a number of."""
    values = [0, 1, 0.00005, 0.04425, 0.5, 0.12345, 0.25, 2.5, 3.25, 119.95, 1280, 1331, 1_310_720, 2**40 + 1]
    with browser.page() as page:
        page.open(f"{cluster.full.page}/")
        for form in ("bytes", "rate", "ratio", "bar", "seconds", "long", "ago"):
            said = page.evaluate(f"{json.dumps(values)}.map((value) => shown(value, {json.dumps(form)}))")
            assert said == [shown(value, form) for value in values]


def test_the_script_sums_members_up_as_the_agent_does(cluster, browser):
    """States, zones and what is not listed are counted in the same words by both, ties and hostile zones included."""
    zones = ["", "b", "a", EVIL, "é", "b", "\U0001f600", "", "c", "d"]
    members = [{"state": ("alive", "gone", "suspect")[n % 3], "zone": zone} for n, zone in enumerate(zones * 20)]
    with browser.page() as page:
        page.open(f"{cluster.full.page}/")
        for count in (0, 1, 2, 10, MEMBERS_MAX, MEMBERS_MAX + 1):
            said = page.evaluate(f"summary({json.dumps(members[:count])}, {MEMBERS_MAX})")
            assert said == summary(members[:count])
        assert "2 alive" in page.text()


def test_it_refreshes_by_itself(cluster, browser):
    """A request that is made after the page has been loaded appears on it."""
    with browser.page() as page:
        page.open(f"{cluster.full.page}/")
        assert "library/later" not in page.text()
        cluster.full.ask("/v2/library/later/manifests/1?ns=registry.example")
        page.until("document.body.innerText.includes('registry.example/library/later')")
        assert page.complaints == []


def test_running_transfers_have_bars(cluster, browser):
    """A layer on its way from a peer is shown with a bar that grows, and from where it comes."""
    layer = max(cluster.image.pulled, key=lambda descriptor: descriptor.size)
    url = f"http://{cluster.empty.registry}{NGINX}/blobs/{layer.digest}?ns=docker.io"
    bar = "document.querySelector('[data-list=transfers] progress')"
    enough = threading.Event()
    reader = threading.Thread(target=_read, args=(url, enough))
    reader.start()
    try:
        with browser.page() as page:
            page.open(f"{cluster.empty.page}/")
            page.until(f"{bar} !== null")
            before = page.evaluate(f"{bar}.value")
            page.until(f"{bar}.value > {before}")
            row = page.evaluate("document.querySelector('[data-list=transfers] tbody').innerText")
            assert "docker.io/library/nginx" in row
            assert re.search(rf"{re.escape(cluster.full.registry)} [\d.]+ [KM]iB", row)
            assert "iB/s" in row
            assert page.complaints == []
    finally:
        enough.set()
        reader.join()


def _read(url, enough):
    with httpx.stream("GET", url, trust_env=False) as response:
        for _ in response.iter_raw():
            if enough.is_set():
                return


def test_nothing_from_elsewhere_is_asked_for(cluster, browser):
    """With every other host out of reach the page is whole, and only its own agent is asked."""
    with browser.page() as page:
        page.open(f"{cluster.full.page}/")
        page.until("performance.getEntriesByType('resource').length >= 2")
        hosts = {urlsplit(url).netloc for url in page.asked if not url.startswith("data:")}
        assert hosts == {urlsplit(cluster.full.page).netloc}
        assert len(page.asked) >= 3
        assert page.complaints == []


def test_hostile_names_are_text(cluster, browser):
    """A zone, path or search that is markup is shown as it is, by the agent and by the script; none of it runs."""
    cluster.full.ask(f"/v2/{EVIL}/manifests/x".replace(" ", "/"))
    with browser.page() as page:
        page.open(f"{cluster.full.page}/")
        for _ in range(2):  # as the agent wrote it, then as the script did
            assert EVIL in page.text()
            assert page.evaluate("document.querySelectorAll('img').length") == 0
            assert page.evaluate("document.title") == "p2pmirror"
            page.evaluate("document.querySelector('tbody').replaceChildren()")
            page.until("document.querySelector('tbody').rows.length === 2")
        _find(page, EVIL)
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert page.evaluate("document.title") == "p2pmirror"


def _find(page, subject):
    page.evaluate(f"document.getElementById('subject').value = {subject!r}")
    page.evaluate("document.querySelector('form button').click()")
    page.until("!['', '…'].includes(document.getElementById('found').textContent)")
    return page.evaluate("document.getElementById('found').innerText")


def test_find(cluster, browser):
    """The form says who has an image, which digest its tag stands for there, and when nobody has it."""
    with browser.page() as page:
        page.open(f"{cluster.empty.page}/")
        found = _find(page, "nginx:1.27")
        assert f"{cluster.full.registry}, zone rack-1, {cluster.image.index.digest}" in found
        page.evaluate("document.getElementById('found').textContent = ''")
        assert "Nobody has docker.io/library/nothing:latest" in _find(page, "nothing")
        assert page.complaints == []


def test_it_says_when_the_agent_is_gone(browser, tmp_path):
    """A page whose agent died says that it is old, and keeps what it showed."""
    agent = started(tmp_path / "lone", "127.0.0.33", store="none")
    try:
        with browser.page() as page:
            page.open(f"{agent.page}/")
            assert page.evaluate("document.getElementById('stale').hidden")
            agent.end()
            page.until("!document.getElementById('stale').hidden")
            text = page.text()
            assert "The agent does not answer" in text
            assert agent.node_id in text
    finally:
        agent.end()


def test_it_says_why_it_is_not_ready(browser, tmp_path):
    """An agent without its containerd is not ready, and the page names the reason."""
    socket = str(tmp_path / "absent.sock")
    agent = started(tmp_path / "lone", "127.0.0.33", store="containerd", containerd_sock=socket)
    try:
        with browser.page() as page:
            page.open(f"{agent.page}/")
            assert "not ready: " in page.text()
            assert socket in page.evaluate("document.getElementById('state').innerText")
            assert page.complaints == []
    finally:
        agent.end()


def test_it_says_what_troubles_the_cache(browser, tmp_path):
    """A cache directory that cannot be made is said in red, by the agent and by the script; the agent is ready."""
    (tmp_path / "file").write_text("no directory")
    agent = started(tmp_path / "lone", "127.0.0.33", store="none", cache_dir=str(tmp_path / "file" / "cache"))
    trouble = "document.getElementById('trouble')"
    try:
        wait_until(lambda: agent.get("/api/v1/status")["cache"]["trouble"] is not None, "the trouble is known")
        with browser.page() as page:
            page.open(f"{agent.page}/")
            for _ in range(2):  # as the agent wrote it, then as the script did
                said = page.evaluate(f"{trouble}.innerText")
                assert "The cache keeps nothing new: " in said
                assert str(tmp_path / "file") in said
                assert page.evaluate("document.getElementById('state').innerText") == "ready"
                page.evaluate(f"{trouble}.textContent = ''")
                page.until(f"{trouble}.textContent !== ''")
            assert page.complaints == []
    finally:
        agent.end()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_it_fits_the_screen(cluster, browser, width, dark):
    """At a phone's and a desk's width nothing is wider than the screen, and text stands out from its ground."""
    with browser.page() as page:
        page.shape(width=width, dark=dark)
        page.open(f"{cluster.full.page}/")
        wide = (
            "[...document.querySelectorAll('body *')].filter((each) => each.getBoundingClientRect().right > innerWidth)"
        )
        assert page.evaluate(f"{wide}.map((each) => each.outerHTML.slice(0, 99))") == []
        for selector in ("body", "#state", "dt", "td", "td.good"):
            assert page.evaluate(CONTRAST % repr(selector)) >= 4.5, selector  # WCAG 2.2, AA


CONTRAST = """
(() => {
  const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const each = document.querySelector(%s);
  let ground = each;
  while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  const both = [getComputedStyle(each).color, getComputedStyle(ground).backgroundColor].map(light);
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
})()
"""


def test_the_browser_tells_what_is_wrong(cluster, browser):
    """What the other tests rely on: markup that the policy forbids, an error and a foreign address are all noted."""
    with browser.page() as page:
        page.open(f"{cluster.full.page}/")
        page.evaluate("document.body.setAttribute('style', 'color: red')")
        page.evaluate("setTimeout(() => { throw new Error('on purpose') })")
        page.evaluate("fetch('http://registry.invalid/').catch(() => 0)")
        words = ("style", "on purpose", "registry.invalid")
        wait_until(
            lambda: page.evaluate("true") and all(word in str(page.complaints) for word in words), "it complains"
        )
    with browser.page() as page:  # no policy here: the request is made, noted, and does not get out
        assert (
            page.evaluate("fetch('http://registry.invalid/', {mode: 'no-cors'}).then(() => 'got', () => 'lost')")
            == "lost"
        )
        assert "http://registry.invalid/" in page.asked
