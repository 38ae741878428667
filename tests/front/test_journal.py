"""Log lines, metrics and the list of recent requests."""

import logging

import pytest

from p2pmirror.oci import Digest, mediatype
from p2pmirror.resolve.want import Content, InHand
from tests.front.setting import THERE, send

DIGEST = Digest.of(b"{}")
FIELDS = (
    "method registry repository reference digest status source peer bytes first_byte_s seconds attempts resumes outcome"
)


@pytest.fixture
def lines():
    """Every log line of the front, as it comes."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    log = logging.getLogger("p2pmirror.front")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield records
    log.removeHandler(handler)
    log.setLevel(level)


async def test_one_line_when_it_has_ended(bench, lines):
    """A request is logged once, at its end and not before, with every field of the contract, in order."""
    bench.resolver.found["v1"] = InHand(Content(DIGEST, 2, mediatype.OCI_MANIFEST), b"{}")
    bench.resolver.source = "peer"
    bench.resolver.attempts = 2
    response = await bench.ask("/v2/a/b/manifests/v1?ns=ghcr.io")
    assert lines == []
    bench.now = 0.25
    await send(response)
    [line] = lines
    assert (line.levelno, line.getMessage(), " ".join(line.fields)) == (logging.INFO, "request", FIELDS)
    assert line.fields == {
        "method": "GET",
        "registry": "ghcr.io",
        "repository": "a/b",
        "reference": "v1",
        "digest": str(DIGEST),
        "status": 200,
        "source": "peer",
        "peer": "",
        "bytes": 2,
        "first_byte_s": 0.0,
        "seconds": 0.25,
        "attempts": 2,
        "resumes": 0,
        "outcome": "ok",
    }


async def test_a_peer_that_asks_is_named(bench, lines):
    """A peer's request says whose it is."""
    await send(await bench.ask(f"/v2/a/blobs/{DIGEST}", P2PMirror_Peer=THERE.hex()))
    assert lines[0].fields["from_peer"] == THERE.hex()


async def test_what_has_no_name_shows_its_path(bench, lines):
    """A request that could not be read is logged with its path, bounded."""
    await send(await bench.ask("/nonsense" * 100))
    assert lines[0].fields["path"] == ("/nonsense" * 100)[:300]


async def test_pings_are_quiet(bench, lines):
    """`/v2/` is logged at DEBUG and kept out of the recent requests; trouble is a WARNING."""
    await send(await bench.ask("/v2/"))
    assert [line.levelno for line in lines] == [logging.DEBUG]
    assert bench.front.recent() == []
    bench.resolver.found[DIGEST] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await bench.ask(f"/v2/a/blobs/{DIGEST}")
    assert lines[-1].levelno == logging.WARNING


async def test_the_line_is_not_built_when_nobody_reads_it(bench, monkeypatch, lines):
    """With the level off, no fields are put together."""
    logging.getLogger("p2pmirror.front").setLevel(logging.ERROR)
    monkeypatch.setattr("p2pmirror.front.journal.Exchange.fields", lambda self: 1 / 0)
    await send(await bench.ask(f"/v2/a/blobs/{DIGEST}"))
    assert lines == []
    logging.getLogger("p2pmirror.front").setLevel(logging.INFO)
    with pytest.raises(ZeroDivisionError):
        await send(await bench.ask(f"/v2/a/blobs/{DIGEST}"))


async def test_requests_and_bytes_are_counted(bench):
    """Counts by kind, source and outcome; bytes by source; first bytes of content alone; none in flight at the end."""
    bench.resolver.found["v1"] = InHand(Content(DIGEST, 2, None), b"{}")
    response = await bench.ask("/v2/a/manifests/v1")
    assert bench.metric("in_flight_requests") == 1
    await send(response)
    for target in (f"/v2/a/blobs/{DIGEST}", "/v2/", "/v2/A/blobs/x", "/other"):
        await send(await bench.ask(target))
    assert bench.metric("requests_total", kind="manifest", source="store", outcome="ok") == 1
    assert bench.metric("requests_total", kind="blob", source="none", outcome="miss") == 1
    assert bench.metric("requests_total", kind="base", source="none", outcome="ok") == 1
    assert bench.metric("requests_total", kind="other", source="none", outcome="refused") == 2
    assert bench.metric("bytes_total", source="store") == 2
    assert bench.metric("first_byte_seconds_count", source="store") == 1
    assert bench.metric("first_byte_seconds_count", source="none") == 1
    assert bench.metric("in_flight_requests") == 0


@pytest.mark.parametrize("source", ["store", "cache", "flight", "peer", "upstream"])
async def test_bytes_that_no_registry_had_to_send_are_saved(bench, source):
    """What clients of this node get is saved unless it came from upstream; what a peer gets, it counts itself."""
    bench.resolver.found["v1"] = InHand(Content(DIGEST, 2, None), b"{}")
    bench.resolver.source = source
    await send(await bench.ask("/v2/a/manifests/v1"))
    saved = 0 if source == "upstream" else 2
    assert bench.metric("saved_bytes_total") == saved
    await send(await bench.ask("/v2/a/manifests/v1", p2pmirror_peer=THERE.hex()))
    assert bench.metric("bytes_total", source=source) == 4
    assert bench.metric("saved_bytes_total") == saved


async def test_the_last_requests_are_kept(bench):
    """The list of recent requests is the newest first and holds 200."""
    for number in range(210):
        await send(await bench.ask(f"/v2/a/manifests/t{number}"))
    recent = bench.front.recent()
    assert [entry.reference for entry in recent] == [f"t{number}" for number in range(209, 9, -1)]
