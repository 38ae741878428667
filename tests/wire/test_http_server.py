"""The HTTP server: heads, order, bodies, limits, drain; over pipes, and the plain exchanges over real sockets too."""

import logging
from contextlib import suppress
from random import Random
from unittest import TestCase

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.http import FileBody, PumpBody, Response
from p2pmirror.wire.http_server import ServerOptions
from p2pmirror.wire.memory import MemoryWorld
from tests.cancellation import cancel_at_every_checkpoint
from tests.wire.pipes import SERVER, MemoryFile, PipeNetwork, answer, read_count, read_to_fin, serving

GET = b"GET /a%20b?ns=docker.io HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one: 2\r\n\r\n"
CLOSE = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LAST = answer("200 OK", "Connection: close", body=b"/last")


async def echo(request):
    return Response(200, body=request.path.encode())


def fixed(make):
    async def handler(request):
        return make()

    return handler


class Ends:
    """Records what `done` and `close` were told."""

    def __init__(self):
        self.done = []
        self.cuts = 0
        self.closes = 0

    def close(self):
        self.closes += 1

    def cut(self):
        self.cuts += 1

    def pumping(self, count, pump, status=200):
        body = PumpBody(count, pump, self.close)
        return Response(status, body=body, done=lambda *told: self.done.append(told), cut=self.cut)


@pytest.fixture(params=["pipes", "sockets", "world"])
def place(request):
    """Give a network and an address to listen on."""
    if request.param == "pipes":
        return {"network": PipeNetwork(), "address": SERVER}
    if request.param == "world":
        return {"network": MemoryWorld(Random(1)).host(SERVER.host), "address": SERVER}
    return {"network": HostNetwork(), "address": Address("127.0.0.1", 0)}


# --- heads and order ---------------------------------------------------------------------------------


async def test_a_request_reaches_the_handler_as_it_was_sent(place):
    """Method, path, query and joined fields come through, whole."""
    seen = []

    async def handler(request):
        seen.append(request)
        return Response(200, {"Content-Type": "text/x"}, b"hi")

    async with serving(handler, **place) as host:
        stream = await host.dial()
        await stream.send_all(GET)
        expected = answer("200 OK", "Content-Type: text/x", body=b"hi")
        assert await read_count(stream, len(expected)) == expected
        (request,) = seen
        assert (request.method, request.path, request.query) == ("GET", "/a%20b", "ns=docker.io")
        assert request.headers == {"host": "x", "x-one": "1, 2"}
        assert request.local == host.address
        assert request.remote == stream.local
        await stream.aclose()


async def test_heads_may_come_byte_by_byte(place):
    """The cut of a request into packets changes nothing, empty lines in front of it neither."""
    async with serving(echo, **place) as host:
        text = b"\r\n\r\n" + GET + CLOSE
        pieces = [text[i : i + 1] for i in range(len(text))]
        assert await host.talk(*pieces) == answer("200 OK", body=b"/a%20b") + LAST


async def test_early_requests_are_answered_in_their_order(place):
    """Pipelined requests are handled one after the other, though the first takes longer."""
    running = 0

    async def handler(request):
        nonlocal running
        running += 1
        assert running == 1
        for _ in range(5 if request.path == "/1" else 0):
            await trio.lowlevel.checkpoint()
        running -= 1
        return await echo(request)

    async with serving(handler, **place) as host:
        first, second = (b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in (1, 2))
        got = await host.talk(first + b"\r\n" + second + CLOSE)
        assert got == answer("200 OK", body=b"/1") + answer("200 OK", body=b"/2") + LAST


async def test_head_and_small_body_are_one_send():
    """A small response costs one system call."""
    async with serving(echo) as host:
        await host.talk(GET + CLOSE)
        assert len(host.network.accepted[0].sends) == 2


async def test_head_and_small_file_are_one_send():
    """A small file is read first, and goes out with the head."""
    file = MemoryFile(CONTENT)
    async with serving(fixed(lambda: Response(200, body=FileBody(file, 1, 5000)))) as host:
        assert await host.talk(GET + CLOSE) == answer("200 OK", body=CONTENT[1:5001]) + answer(
            "200 OK", "Connection: close", body=CONTENT[1:5001]
        )
        assert len(host.network.accepted[0].sends) == 2
    assert file.closes == 2


async def test_head_requests_get_the_length_and_no_body(place):
    """HEAD: Content-Length is that of GET, given or computed; the body is closed and not sent."""
    ends = Ends()

    async def pump(sink):
        raise AssertionError("a pump must not run for HEAD")

    answers = [
        Response(200, body=b"12345"),
        Response(200, {"Content-Length": "77"}),
        ends.pumping(9, pump),
    ]
    async with serving(fixed(lambda: answers.pop(0)), **place) as host:
        head = b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n"
        got = await host.talk(head + head + head.replace(b"Host", b"Connection: close\r\nHost"))
        expected = [answer("200 OK", length=5), answer("200 OK", length=77)]
        assert got == b"".join(expected) + answer("200 OK", "Connection: close", length=9)
        assert (ends.done, ends.closes) == ([(0, True)], 1)


async def test_http_1_0_closes_unless_asked_to_keep(place):
    """An HTTP/1.0 client gets its answer and FIN; one that asks for keep-alive is told that it has it."""
    async with serving(echo, **place) as host:
        assert await host.talk(b"GET /a HTTP/1.0\r\n\r\n") == answer("200 OK", "Connection: close", body=b"/a")
        got = await host.talk(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + CLOSE)
        assert got == answer("200 OK", "Connection: keep-alive", body=b"/a") + LAST


@pytest.mark.parametrize(("target", "path"), [("http://host:1/p/q", "/p/q"), ("HTTPS://host", "/")])
async def test_absolute_targets_are_read(target, path):
    """RFC 9112 section 3.2.2: a server accepts the absolute form."""
    async with serving(echo) as host:
        got = await host.talk(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert got.endswith(b"\r\n\r\n" + path.encode())


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 413),
        (b"PUT /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", 413),
        (b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        (b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /x HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 33000 + b"\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 100000, 431),
        (b"\x16\x03\x01\x02\x00\x01", 400),  # somebody speaks TLS
    ],
)
async def test_what_is_not_served_is_refused_and_closed(place, sent, status):
    """A bad head or a body: one answer that says why and closes; no handler sees it, no reset loses it."""

    async def handler(request):
        raise AssertionError("no handler sees this")

    async with serving(handler, **place) as host:
        got = await host.talk(sent)
        assert got.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nConnection: close\r\n" in got
        assert got.count(b"HTTP/1.1") == 1


async def test_a_refusal_does_not_say_a_large_head_again():
    """What is no HTTP is quoted in part: whoever sends kilobytes is answered by less than one."""
    async with serving(echo) as host:
        got = await host.talk(b"\xd1\x9c{#\x85" * 2000 + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 400 ")
        assert len(got) < 1000


async def test_refused_heads_have_no_body():
    """A refused HEAD is answered without a body."""
    async with serving(echo) as host:
        got = await host.talk(b"HEAD /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        assert got.startswith(b"HTTP/1.1 413 ")
        assert got.endswith(b"\r\n\r\n")


async def test_empty_bodies_are_no_bodies(place):
    """Content-Length: 0 is served, with and without Expect."""
    async with serving(echo, **place) as host:
        post = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n"
        assert await host.talk(post + CLOSE) == answer("200 OK", body=b"/x") + LAST


async def test_half_a_head_and_fin_is_a_bad_request(place):
    """A client that stops within a head is told so; one that stops between requests is just closed."""
    async with serving(echo, **place) as host:
        for sent, start in [(b"GET /x HT", b"HTTP/1.1 400 "), (b"", b"")]:
            stream = await host.dial()
            await stream.send_all(sent)
            await stream.send_eof()
            assert (await read_to_fin(stream)).startswith(start)
            await stream.aclose()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"Host: x", b"\r\n\r\n", b"Content-Length: ", b"5", b": ", b"\n"]
            ),
        ),
        max_size=25,
    )
)
def test_no_head_breaks_the_server(pieces):
    """Whatever comes: answers with proper heads, then FIN, nothing logged as a bug; and the next client is served."""

    async def main():
        async with serving(echo) as host:
            stream = await host.dial()
            with suppress(Unreachable):  # it may have been refused already
                for piece in filter(None, pieces):
                    await stream.send_all(piece)
                await stream.send_eof()
            got = await read_to_fin(stream)
            assert not got or got.startswith(b"HTTP/1.1 ")
            assert await host.talk(CLOSE) == LAST

    with TestCase().assertNoLogs("p2pmirror.wire"):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# --- bodies -----------------------------------------------------------------------------------------


CONTENT = bytes(range(256)) * 12_000  # 3 MB: more than any slice


async def test_files_are_sent_and_closed(place):
    """A part of a file arrives to the byte, also nothing of it; the file is closed once each time."""
    file = MemoryFile(CONTENT)
    told = []
    spans = [(5, 2_900_000), (0, 0), (10, 1)]

    async def handler(request):
        offset, count = spans[int(request.path[1:])]
        return Response(206, body=FileBody(file, offset, count), done=lambda *end: told.append(end))

    async with serving(handler, **place) as host:
        for index, (offset, count) in enumerate(spans):
            got = await host.talk(b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % index)
            assert got == answer("206 Partial Content", "Connection: close", body=CONTENT[offset : offset + count])
    assert told == [(count, True) for _, count in spans]
    assert file.closes == 3


async def test_large_bytes_and_pumps_are_sent(place):
    """Bytes beyond one send, and a pump that mixes bytes and files, keep the connection."""
    ends = Ends()

    async def pump(sink):
        await sink.send_all(CONTENT[:10])
        await sink.send_file(MemoryFile(CONTENT), 10, 2_000_000)
        await sink.send_all(memoryview(CONTENT)[2_000_010:])
        assert sink.sent == len(CONTENT)

    async def handler(request):
        if request.path == "/pump":
            return ends.pumping(len(CONTENT), pump)
        return Response(200, body=CONTENT)

    async with serving(handler, **place) as host:
        got = await host.talk(b"GET /pump HTTP/1.1\r\nHost: x\r\n\r\n" + CLOSE)
        assert got == answer("200 OK", body=CONTENT) + answer("200 OK", "Connection: close", body=CONTENT)
    assert (ends.done, ends.closes) == ([(len(CONTENT), True)], 1)


class Bug(Exception):
    pass


@pytest.mark.parametrize("raised", [None, NotHere("gone"), ExceptionGroup("g", [Unreachable("u")]), Bug("bug")])
async def test_a_pump_that_fails_is_cut_short_with_fin(place, raised, caplog):
    """Short of its length, and the bytes that came are delivered; only a bug is logged."""
    ends = Ends()

    async def pump(sink):
        await sink.send_all(b"abc")
        if raised is not None:
            raise raised

    async with serving(fixed(lambda: ends.pumping(5, pump)), **place) as host:
        # The request behind it is unread: it must not turn the FIN into a reset.
        assert await host.talk(GET + GET) == answer("200 OK", body=b"abc", length=5)
        while not ends.done:
            await trio.lowlevel.checkpoint()
    assert (ends.done, ends.closes) == ([(3, False)], 1)
    assert bool(caplog.records) == (raised is None or isinstance(raised, Bug))


async def test_a_pump_cannot_send_too_much(caplog):
    """Bytes beyond the length are not sent, though the pump tries twice; the connection is cut."""
    ends = Ends()

    async def pump(sink):
        await sink.send_all(b"abcde")
        with pytest.raises(ValueError):
            await sink.send_all(b"f")
        with pytest.raises(Unreachable):
            await sink.send_all(b"")

    async with serving(fixed(lambda: ends.pumping(5, pump))) as host:
        assert await host.talk(GET + GET) == answer("200 OK", body=b"abcde")
    assert (ends.done, ends.closes) == ([(5, False)], 1)
    assert caplog.records


async def test_a_file_that_ends_early_is_cut_short(place):
    """The head promised more than the file has: FIN behind what there was."""
    file = MemoryFile(b"abc", size_said=9)
    async with serving(fixed(lambda: Response(200, body=FileBody(file, 0, 9))), **place) as host:
        assert await host.talk(GET) == answer("200 OK", body=b"abc", length=9)
    assert file.closes == 1


@pytest.mark.parametrize("raised", [Unreachable("a bad sector"), Bug("bug")])
async def test_a_small_file_that_cannot_be_read_is_cut_short(place, raised, caplog):
    """The head, and FIN behind it; the end is told, and only a bug is logged."""
    told = []
    file = MemoryFile(b"abc")

    async def read_at(offset, count):
        raise raised

    file.read_at = read_at
    made = fixed(lambda: Response(200, body=FileBody(file, 0, 3), done=lambda *end: told.append(end)))
    async with serving(made, **place) as host:
        assert await host.talk(GET + GET) == answer("200 OK", body=b"", length=3)
    assert (told, file.closes) == ([(0, False)], 1)
    assert bool(caplog.records) == isinstance(raised, Bug)


@pytest.mark.parametrize(
    "make",
    [
        lambda: 1 / 0,
        lambda: Response(200, {"X": "a\r\nInjected: 1"}),
        lambda: Response(200, {"X": "a\nb"}),
        lambda: Response(200, {"X": "snow ☃"}),
        lambda: Response(200, {"X\r\n": "a"}),
        lambda: Response(200, {"Connection": "close"}),
        lambda: Response(200, {"content-length": "7"}, b"12345"),
        lambda: Response(200, {"Content-Length": "x"}),
        lambda: Response(204, body=b"1"),
        lambda: Response(101),
        lambda: Response(799),
    ],
)
async def test_bugs_of_a_handler_are_a_500(make, caplog):
    """An exception, or a response that HTTP cannot say: 500, logged with its trace, and the connection goes on."""
    told = []
    responses = []

    async def handler(request):
        if request.path == "/last":
            return await echo(request)
        response = make()
        response.done = lambda *end: told.append(end)
        responses.append(response)
        return response

    async with serving(handler) as host:
        got = await host.talk(GET + CLOSE)
    assert got.startswith(b"HTTP/1.1 500 ")
    assert got.endswith(LAST)
    assert b"Injected" not in got
    assert told == [(0, False)] * len(responses)
    (record,) = caplog.records
    assert record.name == "p2pmirror.wire"
    assert record.levelno == logging.ERROR
    assert record.exc_info


async def test_not_modified_and_no_content_have_no_body():
    """204 has no Content-Length, 304 the one it was given, and the next response follows at once."""
    answers = {"/204": Response(204), "/304": Response(304, {"Content-Length": "5", "ETag": '"e"'})}

    async def handler(request):
        return answers.get(request.path) or await echo(request)

    async with serving(handler) as host:
        got = await host.talk(b"GET /204 HTTP/1.1\r\nHost: x\r\n\r\nGET /304 HTTP/1.1\r\nHost: x\r\n\r\n" + CLOSE)
    expected = answer("204 No Content", length="none") + answer("304 Not Modified", 'ETag: "e"', length=5)
    assert got == expected + LAST


async def test_bugs_in_done_and_close_end_nothing(caplog):
    """`done` runs though `close` fails, and the connection goes on."""
    told = []

    def done(*end):
        told.append(end)
        raise Bug

    async def pump(sink):
        await sink.send_all(b"a")

    def close():
        raise Bug

    def make():
        return Response(200, body=PumpBody(1, pump, close), done=done)

    async with serving(fixed(make)) as host:
        await host.talk(GET + CLOSE)
    assert told == [(1, True)] * 2
    assert len(caplog.records) == 4


async def test_a_client_that_leaves_ends_its_response():
    """The pump is ended by `Unreachable`; the body is closed, `done` told."""
    ends = Ends()

    async def pump(sink):
        while True:
            await sink.send_all(b"x" * 1000)

    async with serving(fixed(lambda: ends.pumping(1 << 40, pump)), network=PipeNetwork(lockstep=True)) as host:
        stream = await host.dial()
        await stream.send_all(GET)
        await read_count(stream, 5000)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert host.server.connections == 0
    ((sent, finished),) = ends.done
    assert (sent >= 3000, finished, ends.closes) == (True, False, 1)


# --- limits of time and number ------------------------------------------------------------------------


async def test_idle_connections_are_closed(autojump_clock):
    """After `idle_s` without a request there is a FIN, for a new connection and a used one."""
    async with serving(echo, ServerOptions(idle_s=75)) as host:
        for first in (b"", GET):
            start = trio.current_time()
            assert await host.talk(first) == (answer("200 OK", body=b"/a%20b") if first else b"")
            assert trio.current_time() - start == pytest.approx(75)


async def test_slow_heads_are_closed(autojump_clock):
    """A head has `head_s` from its first byte on; bytes that drip in do not extend it. Empty lines are no head."""
    async with serving(echo, ServerOptions(head_s=10)) as host:
        stream = await host.dial()
        await trio.sleep(20)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def drip():
                for index in range(len(GET)):
                    await stream.send_all(GET[index : index + 1])
                    await trio.sleep(1)

            assert await read_to_fin(stream) == b""
            nursery.cancel_scope.cancel()
        assert trio.current_time() - start == pytest.approx(10)


async def test_a_handler_may_take_its_time(autojump_clock):
    """No limit of the connection runs while the handler thinks or the pump waits for its source."""
    ends = Ends()

    async def pump(sink):
        await trio.sleep(1000)
        await sink.send_all(b"a")

    async def handler(request):
        await trio.sleep(1000)
        return ends.pumping(1, pump)

    async with serving(handler) as host:
        assert await host.talk(CLOSE) == answer("200 OK", "Connection: close", body=b"a")


@pytest.mark.parametrize("kind", ["bytes", "large", "file", "pump"])
async def test_a_client_that_takes_nothing_is_cut(autojump_clock, kind):
    """`stall_s` after the last byte it took the client is cut, whatever the body."""
    ends = Ends()
    file = MemoryFile(CONTENT)

    async def pump(sink):
        await sink.send_all(CONTENT)

    bodies = {"bytes": b"abc", "large": CONTENT, "file": FileBody(file, 0, len(CONTENT))}

    async def handler(request):
        if kind == "pump":
            return ends.pumping(len(CONTENT), pump)
        return Response(200, body=bodies[kind], done=lambda *end: ends.done.append(end))

    async with serving(handler, ServerOptions(stall_s=30), network=PipeNetwork(lockstep=True)) as host:
        stream = await host.dial()
        await stream.send_all(GET)
        if kind != "bytes":
            await read_count(stream, 100_000)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        while not ends.done:  # noqa: ASYNC110 - virtual seconds are what is measured
            await trio.sleep(1)
        assert 30 <= trio.current_time() - start <= 31.5
        assert ends.done[0][1] is False
        await trio.testing.wait_all_tasks_blocked()
        assert host.server.connections == 0
    assert file.closes == (kind == "file")
    assert ends.closes == (kind == "pump")


async def test_a_client_that_becomes_slow_in_the_middle_of_a_file_is_served_to_the_end(autojump_clock):
    """Whoever takes a part in every `stall_s` is not cut, however quick it was before and however large the file."""
    told = []
    made = fixed(
        lambda: Response(200, body=FileBody(MemoryFile(CONTENT), 0, len(CONTENT)), done=lambda *end: told.append(end))
    )
    async with serving(made, ServerOptions(stall_s=30), network=PipeNetwork(lockstep=True)) as host:
        stream = await host.dial()
        await stream.send_all(CLOSE)
        got = await read_count(stream, 1_500_000)
        while part := await stream.receive_some(128 << 10):
            got += part
            await trio.sleep(20)
        assert got.endswith(CONTENT)
    assert told == [(len(CONTENT), True)]


async def test_a_slow_client_is_served_to_the_end(autojump_clock):
    """A client that takes 4 KiB a second is not cut, though it needs minutes."""
    body = b"s" * 600_000
    told = []
    made = fixed(lambda: Response(200, body=body, done=lambda *end: told.append(end)))
    async with serving(made, network=PipeNetwork(lockstep=True)) as host:
        stream = await host.dial()
        await stream.send_all(CLOSE)
        got = b""
        while part := await stream.receive_some(4096):
            got += part
            await trio.sleep(1)
        assert got.endswith(body)
    assert told == [(len(body), True)]


async def test_beyond_the_limit_a_client_is_told_and_closed(place):
    """One connection too many: 503 and FIN; when one has ended the next is served."""
    async with serving(echo, ServerOptions(connections_max=2), **place) as host:
        streams = [await host.dial() for _ in range(2)]
        for stream in streams:
            await stream.send_all(GET)
            await read_count(stream, 10)
        got = await host.talk(GET)
        assert got.startswith(b"HTTP/1.1 503 ")
        assert b"Connection: close" in got
        await streams[0].aclose()
        while host.server.connections == 2:  # noqa: ASYNC110 - a server tells nobody that a client has gone
            await trio.sleep(0.001)
        assert await host.talk(CLOSE) == LAST
        await streams[1].aclose()


async def test_slowloris_does_not_hinder_another_client(autojump_clock):
    """200 clients with half a head each: another one is served at once, and they are gone after `head_s`."""
    async with serving(echo, ServerOptions(head_s=10)) as host:
        for _ in range(200):
            stream = await host.dial()
            await stream.send_all(b"GET / HTTP/1.1\r\nHost")
        start = trio.current_time()
        assert await host.talk(CLOSE) == LAST
        assert trio.current_time() == start
        assert host.server.connections >= 200
        await trio.sleep(11)
        assert host.server.connections == 0


# --- drain and cancellation -----------------------------------------------------------------------------


async def test_drain_closes_the_idle_and_finishes_the_running(autojump_clock):
    """New dials are refused, idle clients get a FIN at once, a running response its end and `Connection: close`."""
    gate = trio.Event()

    async def handler(request):
        await gate.wait()
        return await echo(request)

    async with serving(handler) as host:
        idle, busy = await host.dial(), await host.dial()
        await busy.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.server.drain, trio.current_time() + 20)
            assert await read_to_fin(idle) == b""
            with pytest.raises(Unreachable):
                await host.dial()
            gate.set()
            assert await read_to_fin(busy) == answer("200 OK", "Connection: close", body=b"/a%20b")
        assert trio.current_time() < 3
        assert host.server.connections == 0


async def test_drain_cuts_at_the_deadline(autojump_clock):
    """What is not finished by then ends with a FIN short of its length, and is told that it was cut."""
    ends = Ends()

    async def pump(sink):
        await sink.send_all(b"abc")
        await trio.sleep_forever()

    async with serving(fixed(lambda: ends.pumping(5, pump))) as host:
        stream = await host.dial()
        await stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        await host.server.drain(start + 20)
        assert 20 <= trio.current_time() - start <= 23
        assert await read_to_fin(stream) == answer("200 OK", body=b"abc", length=5)
    assert (ends.done, ends.closes, ends.cuts) == ([(3, False)], 1, 1)


async def test_drain_of_a_server_that_does_not_run_returns():
    """Also before its start: nothing is waited for, and the start then ends at once."""
    async with serving(echo) as host:
        await host.server.drain(trio.current_time() + 5)
        await host.server.drain(trio.current_time() + 5)


async def test_cancelled_servers_end_their_responses_with_fin(place):
    """Cancelling `run` is a FIN for everybody, close and `done` once each."""
    ends = Ends()

    async def pump(sink):
        await sink.send_all(b"abc")
        await trio.sleep_forever()

    async with serving(fixed(lambda: ends.pumping(5, pump)), **place) as host:
        stream = await host.dial()
        await stream.send_all(GET)
        got = await read_count(stream, len(answer("200 OK", body=b"abc", length=5)))
    assert got.endswith(b"abc")
    assert await read_to_fin(stream) == b""
    await stream.aclose()
    assert (ends.done, ends.closes, ends.cuts) == ([(3, False)], 1, 1)


async def test_a_server_cancelled_at_any_point_leaves_nothing(caplog):
    """Wherever `run` is cancelled, every body is closed once, every `done` told once, every stream closed once."""
    made = []
    file = MemoryFile(CONTENT)
    networks = []

    async def pump(sink):
        await sink.send_file(file, 0, 1000)
        await sink.send_all(b"x" * 1000)

    async def handler(request):
        await trio.lowlevel.checkpoint()
        made.append(Ends())
        return made[-1].pumping(2000, pump)

    async def operation():
        networks.append(PipeNetwork(lockstep=True))
        async with serving(handler, network=networks[-1]) as host:
            await host.talk(GET + GET + CLOSE)

    async def check():
        assert all(ends.closes == len(ends.done) == 1 for ends in made)
        assert all(stream.closes == 1 for stream in networks[-1].accepted)

    assert await cancel_at_every_checkpoint(operation, check) > 20
    assert any(ends.done == [(2000, True)] for ends in made)
    assert any(ends.done[0][1] is False for ends in made)
    assert not caplog.records
