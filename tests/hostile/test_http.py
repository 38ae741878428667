"""Requests with anything changed in them, cut anywhere: what the server, the registry and the page make of them."""

import logging
import re
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmirror.front.admission import KeyHolders
from p2pmirror.oci import Digest, mediatype
from p2pmirror.resolve.want import Content, Held, InHand
from p2pmirror.wire.http import Request, Response
from p2pmirror.wire.http_connection import Connection
from p2pmirror.wire.http_head import DateLine
from p2pmirror.wire.http_server import ServerOptions
from p2pmirror.wire.identity import PEER_HEADER
from p2pmirror.wire.peer_auth import AUTH_HEADER
from tests.front.setting import Bench as FrontBench
from tests.front.setting import FakeFile
from tests.hostile.bearing import CASES, CASES_LONG, SEEDS, pieces, shown
from tests.hostile.mutation import of_bytes
from tests.hostile.readers import ASKED, OWN, PROOF, RING
from tests.hostile.scripted import ScriptedStream
from tests.web.setting import Bench as WebBench

DATA = b"0123456789" * 10
DIGEST = Digest.of(DATA)
FOREVER_S = 10_000.0  # of virtual time: longer than every limit of a server
ANSWERS_BYTES_MAX = 64 << 10  # to one connection's requests, whose answers here are small

CONTAINERD = (
    b"Host: 127.0.0.1:29999\r\nUser-Agent: containerd/v1.6.20\r\n"
    b"Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, */*\r\n"
    b"Accept-Encoding: gzip\r\n"
)
HEADS = [
    b"GET /v2/library/nginx/manifests/1.27?ns=docker.io HTTP/1.1\r\n" + CONTAINERD + b"\r\n",
    b"HEAD /v2/library/nginx/manifests/1.27?ns=docker.io HTTP/1.1\r\n" + CONTAINERD + b"\r\n",
    b"GET /v2/library/nginx/blobs/%b?ns=docker.io HTTP/1.1\r\n" % str(DIGEST).encode()
    + CONTAINERD
    + b"Range: bytes=5-\r\nConnection: close\r\n\r\n",
    b"GET /v2/library/nginx/blobs/%b HTTP/1.1\r\nHost: 10.0.0.1:29999\r\n%b: %b\r\n%b: %b\r\n\r\n"
    % (str(DIGEST).encode(), PEER_HEADER.encode(), ASKED.sender.hex().encode(), AUTH_HEADER.encode(), PROOF.encode()),
    b'GET /v2/a/b/manifests/%b HTTP/1.0\r\nIf-None-Match: "%b"\r\nConnection: keep-alive\r\n\r\n'
    % ((str(DIGEST).encode(),) * 2),
    b"GET /v2/a/tags/list?n=1&last=a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/a/referrers/%b?artifactType=a%%2Fb HTTP/1.1\r\nHost: x\r\n\r\n" % str(DIGEST).encode(),
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n\r\n",
    b"GET /api/v1/find?ref=nginx&trace=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /readyz HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n",
    b"POST /api/v1/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
]
INSERTS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b": ",
    b" ",
    b"\r\n folded",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Range: bytes=-0\r\n",
    b"X: y\r\n" * 101,
    b"%00",
    b"%zz",
    b"?ns=a&ns=b",
    b"http://evil.example/",
    b"\xff\xfe",
    b"a" * 40_000,
)
SAMPLES = [*HEADS, HEADS[0] + HEADS[1] + HEADS[2], HEADS[5] + HEADS[8] + HEADS[10], HEADS[3] * 3]
MUTANTS = of_bytes(SAMPLES, INSERTS)

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
STATUSES = {200, 206, 304, 400, 403, 404, 405, 413, 416, 431, 501, 503}

Handler = Callable[[Request], Awaitable[Response]]


async def echo(request: Request) -> Response:
    """Answer with the path, so that an answer tells which request it is to."""
    return Response(200, {}, request.path.encode())


def registry() -> Handler:
    """Build a registry port over a blob and a manifest, which lets in whoever proves that he is a peer, and others."""
    bench = FrontBench()
    bench.resolver.found = {
        DIGEST: Held(Content(DIGEST, len(DATA), mediatype.OCI_LAYER), FakeFile(DATA)),
        "1.27": InHand(Content(DIGEST, len(DATA), mediatype.OCI_MANIFEST), DATA),
    }
    bench.resolver.held_tags = {"docker.io/library/a": ["a", "b"]}
    bench.build()

    async def nowhere(_address: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "10.0.0.9"

    admission = KeyHolders(RING, lambda: OWN, allowed=(), source_host=nowhere, metrics=bench.front._journal._metrics)
    bench.front._admission = admission
    return bench.front.handle


HANDLERS: dict[str, Callable[[], Handler]] = {
    "server": lambda: echo,
    "registry": registry,
    "page": lambda: WebBench().web.handle,
}


class Place:
    """A handler behind a server's connection, which holds that every request that reaches it is well formed."""

    def __init__(self, handler: Handler, errors: Callable[[], list[str]]) -> None:
        self._handler = handler
        self._errors = errors
        self._seen: list[Request] = []

    async def _handle(self, request: Request) -> Response:
        self._seen.append(request)
        assert TOKEN.fullmatch(request.method)
        assert request.path.startswith("/") or (request.path, request.method) == ("*", "OPTIONS")
        assert (request.path + request.query).isascii()
        assert (request.path + request.query).isprintable()
        assert " " not in request.path + request.query
        for name, value in request.headers.items():
            assert TOKEN.fullmatch(name)
            assert name == name.lower()
            assert not set("\r\n\0") & set(value)
        return await self._handler(request)

    async def talk(self, said: list[bytes], what: str) -> tuple[bytes, bool]:
        """Say the pieces and FIN; return the answers once they were found well formed, and whether a refusal followed.

        How a refusal is said may depend on the cut: what is both wrong and too large is whichever is seen first.
        """
        self._seen.clear()
        stream = ScriptedStream(said)
        with trio.move_on_after(FOREVER_S) as patience:
            await Connection(stream, self._handle, ServerOptions(), DateLine(lambda: 0.0)).run()
        assert not patience.cancelled_caught, f"{what}: hangs"
        assert not self._errors(), f"{what}: {self._errors()}"
        heard = bytes(stream.heard)
        assert len(heard) <= ANSWERS_BYTES_MAX + sum(map(len, said)), f"{what}: {len(heard)} bytes of answers"
        try:
            refusal_bytes = self._hold_answers(heard)
        except (AssertionError, h11.ProtocolError) as error:
            raise AssertionError(f"{what}: {heard[:500]!r} is no sequence of answers: {error!r}") from error
        return heard[: len(heard) - refusal_bytes], refusal_bytes > 0

    def _hold_answers(self, heard: bytes) -> int:
        """Hold that the bytes are one answer for each request, and perhaps one refusal behind; return its size."""
        methods = [request.method for request in self._seen]
        while heard:
            refused, left = not methods, len(heard)
            method = methods.pop(0) if methods else "GET"
            client = h11.Connection(h11.CLIENT)
            client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
            client.send(h11.EndOfMessage())
            client.receive_data(heard)
            answer = client.next_event()
            assert isinstance(answer, h11.Response)
            assert answer.status_code in STATUSES, answer.status_code
            event = client.next_event()
            while isinstance(event, h11.Data):
                event = client.next_event()
            heard = client.trailing_data[0]
            if refused:
                # To a HEAD it has no body; who sent what is no request sees the connection close behind it.
                assert event is h11.NEED_DATA or isinstance(event, h11.EndOfMessage)
                assert not heard
                return left
            assert isinstance(event, h11.EndOfMessage)
        assert not methods
        return 0


@pytest.fixture
def bugs(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what was logged as a bug of ours."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_changed_requests(
    handler: str, seed: int, long: bool, bugs: Callable[[], list[str]], autojump_clock: Any
) -> None:
    """Whatever comes is answered in HTTP, with no error of ours, and the same however it was cut into packets."""
    random = Random(f"{handler}/{seed}")
    place = Place(HANDLERS[handler](), bugs)
    for case in range(CASES_LONG // 3 if long else CASES // 4):
        how, data = MUTANTS(random)
        what = f"{handler}, seed {seed}, case {case} ({how}): {shown(data)}"
        whole = await place.talk([data], what)
        cut = await place.talk(list(pieces(data, random)), f"{what}, cut")
        if handler != "page":  # which tells the time and counts
            assert cut == whole, f"{what}: {whole!r:.500}, cut into pieces {cut!r:.500}"


def test_any_bytes(long: bool, bugs: Callable[[], list[str]]) -> None:
    """Whatever hypothesis thinks of as the bytes of a connection is answered in HTTP, or not at all."""
    words = st.sampled_from([*HEADS, *INSERTS[:-1], b"GET ", b"/v2/", b" HTTP/1.1"]) | st.binary(max_size=40)

    @settings(max_examples=3_000 if long else 150, deadline=None)
    @given(st.lists(words, max_size=12), st.sampled_from(sorted(HANDLERS)))
    def check(said: list[bytes], handler: str) -> None:
        place = Place(HANDLERS[handler](), bugs)
        trio.run(place.talk, said, "any bytes", clock=trio.testing.MockClock(autojump_threshold=0))

    check()
