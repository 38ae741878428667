"""The HTTP client: answers of every framing, kept connections, what is retried and what is not."""

from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmirror.errors import BadRequest, Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.http import Response
from p2pmirror.wire.http_client import BadAnswer, ClientOptions, HttpClient
from p2pmirror.wire.memory import MemoryWorld
from tests.cancellation import cancel_at_every_checkpoint
from tests.wire.pipes import SERVER, PipeNetwork, serving

BODY = bytes(range(256)) * 2000  # 512 KB
OK = b"HTTP/1.1 200 OK\r\n"


def client_of(network, **options):
    """Return a client that dials for as long as a busy machine may pause, unless told otherwise."""
    return HttpClient(network, ClientOptions(**{"dial_timeout_s": 5.0} | options))


async def scripted(network, script, nursery, seen=None):
    """Serve raw answers: for each connection a list of answers, each after one head; then FIN."""
    listener = await network.listen(SERVER)

    async def connection(stream, answers):
        for answer in answers:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                part = await stream.receive_some(1)
                if not part:
                    break
                head += part
            if seen is not None:
                seen.append(head)
            await stream.send_all(answer)
        await stream.aclose()

    async def accept():
        for answers in script:
            nursery.start_soon(connection, await listener.accept(), answers)

    nursery.start_soon(accept)


async def get(client, address=SERVER, target="/", method="GET", count_max=1 << 20):
    async with client.request(address, method, target, {}) as response:
        return response.status, await response.read(count_max)


async def big(request):
    return Response(200, {"Content-Type": "x/y"}, BODY)


@pytest.mark.parametrize("kind", ["pipes", "sockets", "world"])
async def test_asks_again_on_the_kept_connection(kind):
    """Bodies arrive whole, read or received in pieces; all questions use one connection."""
    networks = {"pipes": PipeNetwork, "sockets": HostNetwork, "world": lambda: MemoryWorld(Random(1)).host(SERVER.host)}
    network = networks[kind]()
    address = SERVER if kind != "sockets" else Address("127.0.0.1", 0)
    remotes = set()

    async def handler(request):
        remotes.add(request.remote)
        return await big(request)

    async with serving(handler, network=network, address=address) as host:
        client = client_of(network)
        assert await get(client, host.address) == (200, BODY)
        async with client.request(host.address, "GET", "/x", {"Range": "bytes=0-"}) as response:
            assert (response.length, response.headers["content-type"]) == (len(BODY), "x/y")
            buffer = bytearray(70_000)
            got = b""
            while count := await response.receive_into(memoryview(buffer)):
                got += buffer[:count]
            assert got == BODY
            assert await response.receive_into(memoryview(buffer)) == 0
        async with client.request(host.address, "HEAD", "/x", {}) as response:
            assert (response.length, await response.read(0)) == (len(BODY), b"")
        assert (len(remotes), client.kept) == (1, 1)
        await client.aclose()
        assert client.kept == 0


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabc", b"abc", 1),
        (OK + b"Content-Length: 0\r\n\r\n", b"", 1),
        (OK + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc", b"abc", 0),
        (OK + b"Content-Length: 3\r\n\r\nabcd", b"abc", 0),  # something follows that nobody asked for
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc", 1),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n", b"abc", 1),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1", b"abc", 0),
        (OK + b"\r\nabc", b"abc", 0),  # up to FIN
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", 0),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na", b"a", 1),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
async def test_every_framing_is_read(nursery, answer, body, kept, whole):
    """Length, chunks, FIN; kept only when the end is certain; whole or byte by byte."""
    network = PipeNetwork()
    listener = await network.listen(SERVER)

    @nursery.start_soon
    async def serve():
        stream = await listener.accept()
        await stream.receive_some(1000)
        for piece in [answer] if whole else [answer[i : i + 1] for i in range(len(answer))]:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        if answer.startswith(OK + b"\r\n"):
            await stream.send_eof()

    client = client_of(network)
    assert await get(client) == (200, body)
    # Byte by byte, what follows the end comes too late to be seen.
    assert client.kept == kept or (not whole and answer.endswith((b"abcd", b"HTTP/1.1")))
    await client.aclose()


@pytest.mark.parametrize(
    "answer",
    [OK + b"Content-Length: 5\r\n\r\nabc", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", b"HTTP/1.1 200", b""],
)
async def test_a_cut_is_unreachable(nursery, answer):
    """FIN before the announced end, or before the head's, is a broken connection; nothing is kept."""
    network = PipeNetwork()
    await scripted(network, [[answer]], nursery)
    client = client_of(network)
    with pytest.raises(Unreachable):
        await get(client)
    assert client.kept == 0
    assert network.dialled[0].closes == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"\x16\x03\x01",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"X: " + b"y" * 70_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"Content-Length: 11\r\n\r\n01234567890",
        OK + b"\r\n01234567890",
    ],
)
async def test_what_is_no_answer_is_bad(nursery, answer):
    """Not HTTP, contradictory, absurd, or longer than the reader takes: `BadAnswer`, and nothing is kept."""
    network = PipeNetwork()
    await scripted(network, [[answer]], nursery)
    client = client_of(network)
    with pytest.raises(BadAnswer):
        await get(client, count_max=10)
    assert (client.kept, network.dialled[0].closes) == (0, 1)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"]))
def test_no_answer_breaks_the_client(noise, start):
    """Whatever comes: an answer, `Unreachable` or `BadAnswer`, and no connection is left."""

    async def main():
        network = PipeNetwork()
        async with trio.open_nursery() as nursery:
            await scripted(network, [[start + noise]], nursery)
            client = client_of(network)
            try:
                await get(client)
            except (Unreachable, BadAnswer):
                assert client.kept == 0
            await client.aclose()
            assert [stream.closes for stream in network.dialled] == [1]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize(("method", "dials"), [("GET", 2), ("HEAD", 2), ("POST", 1)])
async def test_a_stale_connection_is_replaced_once(nursery, method, dials):
    """The server has closed the kept one: GET and HEAD get a fresh one, others an error."""
    network = PipeNetwork()
    answer = OK + b"Content-Length: 0\r\n\r\n"
    await scripted(network, [[answer], [answer]], nursery)
    client = client_of(network)
    assert await get(client) == (200, b"")
    assert client.kept == 1
    await trio.testing.wait_all_tasks_blocked()
    if method == "POST":
        with pytest.raises(Unreachable):
            await get(client, method=method)
    else:
        assert await get(client, method=method) == (200, b"")
    assert len(network.dialled) == dials


async def test_the_siblings_of_a_stale_connection_go_with_it():
    """A host that has restarted is met once as such: its other kept connections are closed, untried."""
    network = PipeNetwork()
    client = client_of(network)
    async with serving(big, network=network), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(get, client)
    assert client.kept == 3
    async with serving(big, network=network):
        assert await get(client) == (200, BODY)
        assert client.kept == 1
        assert [stream.closes for stream in network.dialled] == [1, 1, 1, 0]
        await client.aclose()


@pytest.mark.parametrize("second", [[b""], [b"HTTP/1.1 2"]])
async def test_nothing_is_retried_twice(nursery, second):
    """A fresh connection that breaks is the end, and so is a kept one that began its answer."""
    network = PipeNetwork()
    answer = OK + b"Content-Length: 0\r\n\r\n"
    await scripted(network, [[answer, *second], [b""], [answer]], nursery)
    client = client_of(network)
    await get(client)
    with pytest.raises(Unreachable):
        await get(client)
    assert len(network.dialled) == (2 if second == [b""] else 1)


async def test_dialling_has_its_limit(autojump_clock):
    """A host that says nothing costs `dial_timeout_s`; one that refuses nothing."""
    network = PipeNetwork()
    network.silent.add(SERVER)
    client = HttpClient(network, ClientOptions())
    with pytest.raises(Unreachable, match="300 ms"):
        await get(client)
    assert trio.current_time() == pytest.approx(0.3)
    with pytest.raises(Unreachable):
        await get(client, Address("10.9.9.9", 1))


@pytest.mark.parametrize(("size", "kept"), [(60_000, 1), (len(BODY), 0)])
async def test_an_unread_rest(size, kept, mock_clock):
    """A short rest that is here is read and the connection kept; a long one closes it. Time stands still."""
    async with serving(lambda request: big_of(size)) as host:
        client = client_of(host.network)
        async with client.request(SERVER, "GET", "/", {}) as response:
            await response.receive_into(memoryview(bytearray(10)))
            await trio.testing.wait_all_tasks_blocked()
        assert (client.kept, host.network.dialled[0].closes) == (kept, 1 - kept)
        await client.aclose()


async def big_of(size):
    return Response(200, body=BODY[:size])


async def test_a_rest_that_is_not_here_is_not_waited_for(nursery, autojump_clock):
    """Leaving the block costs a millisecond, not the source's time."""
    network = PipeNetwork()
    listener = await network.listen(SERVER)

    @nursery.start_soon
    async def serve():
        stream = await listener.accept()
        await stream.send_all(OK + b"Content-Length: 9\r\n\r\nabc")
        await trio.sleep_forever()

    client = client_of(network)
    start = trio.current_time()
    async with client.request(SERVER, "GET", "/", {}) as response:
        assert response.status == 200
    assert trio.current_time() - start < 0.01
    assert (client.kept, network.dialled[0].closes) == (0, 1)


async def test_kept_connections_have_limits(autojump_clock):
    """So many for an address, so many in all, so long."""
    async with serving(big) as host, serving(big, network=host.network, address=Address("10.0.0.3", 80)) as other:
        client = client_of(host.network, kept_per_address_max=2, kept_max=3, idle_s=60)
        for address in (SERVER, other.address):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(get, client, address)
        assert client.kept == 3
        assert sum(stream.closes for stream in host.network.dialled) == 7
        await trio.sleep(61)
        assert await get(client) == (200, BODY)
        assert len(host.network.dialled) == 11
        assert client.kept == 1
        await client.aclose()
        assert all(stream.closes == 1 for stream in host.network.dialled)


@pytest.mark.parametrize(
    ("target", "headers"), [("/a b", {}), ("/", {"X": "a\r\nb: c"}), ("/☃", {}), ("/", {"X": "☃"})]
)
async def test_what_cannot_be_asked(target, headers):
    """A target or a field that HTTP cannot say never reaches the wire."""
    async with serving(big) as host:
        client = client_of(host.network)
        with pytest.raises(BadRequest):
            async with client.request(SERVER, "GET", target, headers):
                pass
        assert host.network.dialled[0].sends == []


async def test_cancelled_at_any_point_a_request_closes_only_its_own(autojump_clock):
    """Cancelled anywhere: its connection is closed or kept, none leaks, and the next request is served."""
    async with serving(big) as host:
        client = client_of(host.network)

        async def check():
            assert sum(not stream.closes for stream in host.network.dialled) == client.kept
            assert all(stream.closes <= 1 for stream in host.network.dialled)
            assert await get(client) == (200, BODY)

        assert await cancel_at_every_checkpoint(lambda: get(client), check) > 2
        await client.aclose()


async def test_two_requests_do_not_disturb_each_other(autojump_clock):
    """While one is cancelled in its body, another on the same address goes on to its end."""
    async with serving(big, network=PipeNetwork(lockstep=True)) as host:
        client = client_of(host.network)
        async with client.request(SERVER, "GET", "/", {}) as response:
            with trio.move_on_after(1):
                async with client.request(SERVER, "GET", "/", {}) as other:
                    await other.receive_into(memoryview(bytearray(10)))
                    await trio.sleep_forever()
            assert await response.read(1 << 20) == BODY
        assert [stream.closes for stream in host.network.dialled] == [0, 1]
        await client.aclose()
