"""Manifests and blobs, answered from what the resolver finds."""

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.oci import Digest, mediatype
from p2pmirror.resolve.want import Arriving, Content, Held, InHand
from p2pmirror.wire.http import FileBody, PumpBody
from tests.front.setting import THERE, FakeFile, FakeSink, send

DATA = b"0123456789" * 10
DIGEST = Digest.of(DATA)
BLOB = f"/v2/library/nginx/blobs/{DIGEST}"
MANIFEST = f"/v2/library/nginx/manifests/{DIGEST}"


def held(media_type=mediatype.OCI_LAYER_GZIP, data=DATA):
    return Held(Content(Digest.of(data), len(data), media_type), FakeFile(data))


def in_hand(media_type=mediatype.OCI_MANIFEST):
    return InHand(Content(DIGEST, len(DATA), media_type), DATA)


def arriving(start=0, end=100, error=None, closed=None):
    async def pump(sink):
        await sink.send_all(DATA[start : (start + end) // 2])
        if error is not None:
            raise error
        await sink.send_all(DATA[(start + end) // 2 : end])

    closed = [] if closed is None else closed
    return Arriving(Content(DIGEST, len(DATA), None), start, end, pump, lambda: closed.append(True))


@pytest.mark.parametrize("found", [held, in_hand, arriving])
@pytest.mark.parametrize("target", [BLOB, MANIFEST])
async def test_content_comes_whole_with_its_headers(bench, target, found):
    """However it was found, it is sent byte for byte, with digest, entity tag and media type, and never encoded."""
    bench.resolver.found[DIGEST] = content = found()
    response = await bench.ask(target)
    assert response.status == 200
    assert await send(response) == DATA
    assert response.headers["Docker-Content-Digest"] == str(DIGEST)
    assert response.headers["ETag"] == f'"{DIGEST}"'
    assert response.headers["Content-Type"] == (content.content.media_type or mediatype.OCTET_STREAM)
    assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert response.headers.get("Accept-Ranges") == ("bytes" if target == BLOB else None)
    assert not {"Content-Encoding", "WWW-Authenticate"} & set(response.headers)


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        (None, "application/octet-stream"),
        ("application/vnd.in-toto+json", "application/vnd.in-toto+json"),
        ("text/plain\r\nX-Evil: 1", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
    ],
)
async def test_the_media_type_is_the_recorded_one(bench, recorded, said):
    """A media type is said as it is on record; one that is absent or none at all becomes octet-stream."""
    bench.resolver.found[DIGEST] = held(recorded)
    assert (await bench.ask(BLOB)).headers["Content-Type"] == said


@pytest.mark.parametrize("found", [held, in_hand, arriving])
async def test_head_says_what_get_says(bench, found):
    """HEAD has GET's status, headers and length, asks for a head, and lets go of what was found."""
    answers = []
    for method in ("GET", "HEAD"):
        closed = []
        bench.resolver.found[DIGEST] = content = found(closed=closed) if found is arriving else found()
        response = await bench.ask(BLOB, method)
        count = len(response.body) if isinstance(response.body, bytes) else response.body.count
        answers.append((response.status, response.headers, count))
        assert await send(response, method) == (DATA if method == "GET" else b"")
        if isinstance(content, Held):
            assert content.file.closed == 1
        if isinstance(content, Arriving):
            assert closed == [True]
    assert answers[0] == answers[1]
    assert [want.head for want in bench.resolver.wants] == [False, True]


@pytest.mark.parametrize(
    ("asked", "offset", "count"),
    [("bytes=0-", 0, 100), ("bytes=10-19", 10, 10), ("bytes=90-500", 90, 10), ("bytes=-5", 95, 5), ("bytes=0-0", 0, 1)],
)
@pytest.mark.parametrize("found", [held, in_hand])
async def test_a_range_of_what_is_here_is_206(bench, found, asked, offset, count):
    """Each form of a single range is answered with exactly its bytes, `bytes=0-` with 206 as well."""
    bench.resolver.found[DIGEST] = found()
    response = await bench.ask(BLOB, Range=asked)
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {offset}-{offset + count - 1}/100"
    assert await send(response) == DATA[offset : offset + count]


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=40-", "bytes=40-59"])
async def test_a_range_of_what_arrives_is_206(bench, asked):
    """What comes from a peer is answered with the range that the resolver settled, `bytes=0-` with 206 as well."""
    start, _, last = asked.removeprefix("bytes=").partition("-")
    begin, end = int(start), int(last) + 1 if last else 100
    bench.resolver.found[DIGEST] = arriving(begin, end)
    response = await bench.ask(BLOB, Range=asked)
    assert bench.resolver.wants[0].byte_range == asked
    assert (response.status, response.headers["Content-Range"]) == (206, f"bytes {begin}-{end - 1}/100")
    assert await send(response) == DATA[begin:end]


async def test_the_whole_for_an_ignored_range_is_200(bench):
    """A resolver that answers a part's question with the whole, or a range that is none, gives a plain 200."""
    for asked in ("bytes=40-59", "bytes=5-1", "lines=1-2", "bytes=1-2,4-5"):
        bench.resolver.found[DIGEST] = arriving()
        response = await bench.ask(BLOB, Range=asked)
        assert (response.status, response.headers.get("Content-Range")) == (200, None)
        assert await send(response) == DATA


@pytest.mark.parametrize("found", [held, arriving])
async def test_a_range_outside_is_416_and_lets_go(bench, found):
    """416 says the size, with an OCI body, and what had been opened is closed once."""
    closed = []
    bench.resolver.found[DIGEST] = content = arriving(closed=closed) if found is arriving else found()
    response = await bench.ask(BLOB, Range="bytes=100-")
    assert (response.status, response.headers["Content-Range"]) == (416, "bytes */100")
    assert b'"RANGE_INVALID"' in await send(response)
    assert content.file.closed == 1 if isinstance(content, Held) else closed == [True]


async def test_manifests_and_heads_have_no_ranges(bench):
    """A Range on a manifest or on a HEAD is ignored (RFC 9110, section 14.2)."""
    bench.resolver.found[DIGEST] = held()
    assert (await bench.ask(MANIFEST, Range="bytes=0-9")).status == 200
    assert (await bench.ask(BLOB, "HEAD", Range="bytes=0-9")).status == 200
    assert [want.byte_range for want in bench.resolver.wants] == [None, None]


async def test_if_range_guards_a_range(bench):
    """The part is sent when If-Range names this digest, else the whole: a date names nothing here."""
    for condition, status in ((f'"{DIGEST}"', 206), ('"other"', 200), ("Sat, 01 Jan 2022 00:00:00 GMT", 200)):
        bench.resolver.found[DIGEST] = held()
        response = await bench.ask(BLOB, Range="bytes=0-9", If_Range=condition)
        assert response.status == status


@pytest.mark.parametrize("condition", ['"{}"', 'W/"{}"', '"a", "{}"', "*"])
async def test_what_the_client_has_is_304(bench, condition):
    """If-None-Match with the digest, weak or among others, is answered without content, and the file is let go."""
    bench.resolver.found[DIGEST] = content = held()
    response = await bench.ask(BLOB, If_None_Match=condition.format(DIGEST))
    assert (response.status, response.body, response.headers["ETag"]) == (304, b"", f'"{DIGEST}"')
    assert content.file.closed == 1


async def test_what_the_client_lacks_is_sent(bench):
    """If-None-Match with another digest changes nothing."""
    bench.resolver.found[DIGEST] = held()
    assert (await bench.ask(BLOB, If_None_Match=f'"{Digest.of(b"")}"')).status == 200


async def test_empty_content_is_content(bench):
    """A blob of no bytes is answered with 200 and none."""
    bench.resolver.found[Digest.of(b"")] = held(data=b"")
    response = await bench.ask(f"/v2/a/blobs/{Digest.of(b'')}")
    assert response.status == 200
    assert await send(response) == b""


@pytest.mark.parametrize(
    ("source_fails", "client_fails", "outcome"),
    [
        (Unreachable("gone"), None, "cut"),
        (ExceptionGroup("", [Unreachable("gone")]), None, "cut"),
        (None, Unreachable("client"), "left"),
        (ValueError("bug"), None, "error"),
        (ExceptionGroup("", [Unreachable("gone"), ValueError("bug")]), None, "error"),
        (None, None, "ok"),
    ],
)
async def test_the_one_who_failed_is_named(bench, source_fails, client_fails, outcome):
    """A response that ends short is `cut` by its source, `left` by its client, and an `error` when it is a bug."""
    bench.resolver.found[DIGEST] = arriving(error=source_fails)
    response = await bench.ask(BLOB)
    assert isinstance(response.body, PumpBody)
    await send(response, sink=FakeSink(client_fails))
    assert bench.front.recent()[0].outcome == outcome


async def test_a_pump_that_ends_short_is_cut(bench):
    """A pump that returns before its last byte is a cut, not a success."""

    async def pump(sink):
        await sink.send_all(DATA[:5])

    bench.resolver.found[DIGEST] = Arriving(Content(DIGEST, 100, None), 0, 100, pump, lambda: None)
    await send(await bench.ask(BLOB))
    assert bench.front.recent()[0].outcome == "cut"


async def test_the_first_byte_is_the_first_that_goes_out(bench):
    """For what arrives, the first byte counts when the pump sends it; for the rest when the head is ready."""

    async def pump(sink):
        bench.now = 3.0
        await sink.send_file(FakeFile(DATA), 0, 100)
        bench.now = 5.0

    bench.resolver.found[DIGEST] = Arriving(Content(DIGEST, 100, None), 0, 100, pump, lambda: None)
    await send(await bench.ask(BLOB))
    entry = bench.front.recent()[0]
    assert (entry.first_byte_s, entry.seconds, entry.bytes_sent) == (3.0, 5.0, 100)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_pump_may_send_files(bench, leaves):
    """A pump that sends from a file is judged as one that sends bytes, and sees how much has gone out."""
    seen = []

    async def pump(sink):
        await sink.send_file(FakeFile(DATA), 0, 60)
        seen.append(sink.sent)
        await sink.send_file(FakeFile(DATA), 60, 40)

    bench.resolver.found[DIGEST] = Arriving(Content(DIGEST, 100, None), 0, 100, pump, lambda: None)
    await send(await bench.ask(BLOB), sink=FakeSink(Unreachable("client") if leaves else None))
    assert seen == ([] if leaves else [60])
    assert bench.front.recent()[0].outcome == ("left" if leaves else "ok")


async def test_a_client_that_leaves_a_file_is_named(bench):
    """A file that was not sent to its end was left by its client, which containerd does on purpose."""
    bench.resolver.found[DIGEST] = held()
    response = await bench.ask(BLOB)
    assert isinstance(response.body, FileBody)
    await send(response, sink=FakeSink(Unreachable("client")))
    assert bench.front.recent()[0].outcome == "left"


async def test_a_peer_is_known_by_its_header(bench):
    """A valid node id makes the want a peer's; anything else in that header is refused."""
    bench.resolver.found[DIGEST] = held()
    assert (await bench.ask(BLOB, P2PMirror_Peer=THERE.hex())).status == 200
    assert bench.resolver.wants[0].from_peer == THERE
    for wrong in ("", "zz" * 20, THERE.hex()[:-1], THERE.hex() + "00", "\xff" * 40):
        assert (await bench.ask(BLOB, P2PMirror_Peer=wrong)).status == 400
    assert len(bench.resolver.wants) == 1


async def test_a_cancelled_request_is_cancelled_and_ended(bench, autojump_clock):
    """Only a stop cancels a handler: it passes through, and the request is counted as cut, once."""

    async def never(want, trail):
        await trio.sleep_forever()

    bench.resolver.find = never
    with trio.move_on_after(1) as scope:
        await bench.ask(BLOB)
    assert scope.cancelled_caught
    assert bench.metric("requests_total", kind="blob", source="none", outcome="cut") == 1
    assert bench.metric("in_flight_requests") == 0
