"""A bootstrap URL may be answered by anything, byte by byte, late or never: what is good counts, the rest is logged."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmirror.errors import Unreachable
from p2pmirror.routing.bootstrap import Bootstrap, parse
from p2pmirror.routing.bootstrap.fetching import TRIED_MAX
from p2pmirror.routing.bootstrap.listing import ENTRIES_MAX, LIST_BYTES_MAX
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.memory import Link, MemoryNetwork, MemoryWorld
from tests.cancellation import cancel_at_every_checkpoint

GOOD = b'{"peers": ["10.0.0.1:29998", "[fd00::1]:7", "10.0.0.2"]}'
NAMED = ["10.0.0.1:29998", "10.0.0.2:29998", "[fd00::1]:7"]


def http(body: bytes = GOOD, status: str = "200 OK", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


class Seeds:
    """A world in which hosts answer port 80 with bytes that a test gives; `asked` has each question."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.world = MemoryWorld(Random(1), link=Link(latency_s=0.001))
        self.own = self.world.host("10.9.9.9")
        self.asked: list[tuple[str, bytes]] = []
        self._nursery = nursery

    def bootstrap(self, text: str = "http://seed/peers") -> Bootstrap:
        return parse(text).on(self.own, MemoryFiles(), Random(2))

    async def answer(self, host: str, answer: bytes, *, piece_bytes: int = 1 << 20, pause_s: float = 0.0) -> None:
        """Let a host answer every question so, in pieces, and then say FIN; it is an address of `seed`."""
        network = self.host(host)
        listener = await network.listen(Address(host, 80))

        async def connection(stream: Any) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                part = await stream.receive_some(1000)
                if not part:
                    break  # the client has given up
                head += part
            self.asked.append((host, head))
            try:
                for start in range(0, len(answer), piece_bytes):
                    await stream.send_all(answer[start : start + piece_bytes])
                    await trio.sleep(pause_s)
            except Unreachable:
                pass  # the client has heard enough
            await stream.aclose()

        async def accept() -> None:
            while True:
                self._nursery.start_soon(connection, await listener.accept())

        self._nursery.start_soon(accept)

    def host(self, host: str) -> MemoryNetwork:
        """Add a host on which nobody listens to the addresses of `seed`."""
        self.world.names.setdefault("seed", []).append(host)
        return self.world.host(host)


@asynccontextmanager
async def seeds() -> AsyncIterator[Seeds]:
    async with trio.open_nursery() as nursery:
        place = Seeds(nursery)
        yield place
        nursery.cancel_scope.cancel()


async def named(bootstrap: Bootstrap) -> list[str]:
    return [str(address) for address in await bootstrap.addresses()]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)


FRAMINGS = {
    "length": http(),
    "chunks": CHUNKED,
    "end": b"HTTP/1.0 200 OK\r\n\r\n" + GOOD,
    "informed": b"HTTP/1.1 100 Go\r\n\r\n" + http(),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
async def test_a_good_answer_in_every_framing(framing: str, piece_bytes: int, autojump_clock: Any) -> None:
    """Whole or byte by byte, with a length, in chunks or up to the end: the peers are read, sorted."""
    async with seeds() as place:
        await place.answer("10.0.1.1", FRAMINGS[framing], piece_bytes=piece_bytes)
        assert await named(place.bootstrap()) == NAMED
        ((_, head),) = place.asked
        assert head.startswith(b"GET /peers HTTP/1.1\r\nHost: seed\r\n")
        assert b"Connection: close" in head


NONSENSE = {
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "sent no HTTP"),
    "nothing": (b"", "closed the connection"),
    "an end in the head": (b"HTTP/1.1 200 O", "closed the connection"),
    "an end in the body": (http()[:-5], "cut its answer short"),
    "an end in a chunk": (CHUNKED[:-20], "cut its answer short"),
    "a long head": (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000, "no HTTP"),
    "a long announced body": (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LIST_BYTES_MAX + 1), "are the limit"),
    "a long body": (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (LIST_BYTES_MAX + 1), "more than"),
    "an error": (http(b"", "503 Busy"), "answered with 503"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "answered with 204"),
    "a redirect": (http(b"", "302 Found", "Location: http://10.0.1.2/"), "302, and redirects are not followed"),
    "text": (http(b"10.0.0.1:29998\n"), "no JSON"),
    "no text": (http(b"\xff\xfe\x00"), "no JSON"),
    "half of it": (http(GOOD[:-1]), "no JSON"),
    "depth": (http(b"[" * 500_000), "no JSON"),
    "a long number": (http(b"9" * 10_000), "no JSON"),
    "a list": (http(b'["10.0.0.1"]'), "JSON that is not"),
    "null": (http(b"null"), "JSON that is not"),
    "another object": (http(b'{"error": "too many"}'), "JSON that is not"),
    "peers that are none": (http(b'{"peers": {"10.0.0.1": 1}}'), "JSON that is not"),
    "peers that are text": (http(b'{"peers": "10.0.0.1"}'), "JSON that is not"),
}


@pytest.mark.parametrize("kind", NONSENSE)
async def test_nonsense_is_nobody_said_once(kind: str, autojump_clock: Any, caplog: Any) -> None:
    """Whatever else answers there names nobody, is told in one line of the log, and leaves no connection open."""
    answer, said = NONSENSE[kind]
    async with seeds() as place:
        await place.answer("10.0.1.1", answer)
        bootstrap = place.bootstrap()
        for _ in range(3):
            with trio.fail_after(6):
                assert await named(bootstrap) == []
        assert len(place.asked) == 3
        await trio.sleep(1)
        assert place.world.open_streams == 0
    (record,) = caplog.records
    assert record.message.startswith("bootstrap http://seed/peers names nobody: 10.0.1.1:80 ")
    assert said in record.message
    assert record.message.isprintable()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_and_any_json_raise_nothing(data: Any) -> None:
    """Arbitrary bytes, arbitrary JSON and mutilated good answers give a sorted list and no error."""
    values = st.recursive(st.none() | st.integers() | st.text() | st.floats(), st.lists, max_leaves=5)
    bodies = st.one_of(
        st.binary(max_size=300),
        st.dictionaries(st.just("peers"), st.lists(values) | values).map(lambda value: json.dumps(value).encode()),
    )
    cut = st.integers(0, 200).map(lambda count: http()[count:])
    answer = data.draw(st.one_of(st.binary(max_size=300), bodies.map(http), cut))

    async def ask() -> None:
        async with seeds() as place:
            await place.answer("10.0.1.1", answer)
            with trio.fail_after(11):
                found = await place.bootstrap().addresses()
            assert found == sorted(set(found))

    trio.run(ask, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_wrong_entries_are_named_and_left_out(autojump_clock: Any, caplog: Any) -> None:
    """The good entries count; what is none is named by its place in the list, once."""
    peers = ["10.0.0.1", 5, None, "a b", ["10.0.0.3"], "0.0.0.0:1", "10.0.0.2:7", "x\u001b[2J"]
    async with seeds() as place:
        await place.answer("10.0.1.1", http(json.dumps({"peers": peers, "more": 1}).encode()))
        bootstrap = place.bootstrap()
        for _ in range(3):
            assert await named(bootstrap) == ["10.0.0.1:29998", "10.0.0.2:7"]
    (record,) = caplog.records
    assert "is read without peers[1] (5 is no text), peers[2] (None is no text), peers[3] (" in record.message
    assert "and 3 more" in record.message


async def test_a_list_of_thousands_is_a_sample(autojump_clock: Any) -> None:
    """Of a list with more members than a bootstrap tells, others are told each time."""
    peers = [f"10.{number // 250}.{number % 250}.1" for number in range(2 * ENTRIES_MAX)]
    async with seeds() as place:
        await place.answer("10.0.1.1", http(json.dumps({"peers": peers}).encode()))
        bootstrap = place.bootstrap()
        first, second = await bootstrap.addresses(), await bootstrap.addresses()
    assert len(first) == len(second) == ENTRIES_MAX
    assert first != second


@pytest.mark.parametrize("answer", [http(b"", "500 No"), b"x", b""])
async def test_the_one_good_address_of_a_name_is_found(answer: bytes, autojump_clock: Any, caplog: Any) -> None:
    """Every address of the URL's host is tried: refusing, silent and wrong ones hide no good one, nor are they told."""
    async with seeds() as place:
        for number in range(1, 6):
            await place.answer(f"10.0.1.{number}", answer)
            place.host(f"10.0.2.{number}")  # refuses
            place.world.power_off(place.host(f"10.0.3.{number}"))
        await place.answer("10.0.4.1", http())
        bootstrap = place.bootstrap()
        with trio.fail_after(3):
            assert await named(bootstrap) == NAMED
    assert not caplog.records


async def test_who_is_asked_first_is_left_to_chance(autojump_clock: Any) -> None:
    """A thousand nodes with the same URL do not all ask the same address."""
    async with seeds() as place:
        for number in range(1, 9):
            await place.answer(f"10.0.1.{number}", http())
        bootstrap = place.bootstrap()
        for _ in range(30):
            await bootstrap.addresses()
        assert len({host for host, _ in place.asked}) > 5


async def test_a_name_of_thousands_of_other_services_is_given_up(autojump_clock: Any, caplog: Any) -> None:
    """A host with very many addresses, none of which answers, costs some seconds and a bounded number of dials."""
    async with seeds() as place:
        place.world.names["seed"] = [f"10.{number // 250}.{number % 250}.1" for number in range(5000)]
        with trio.fail_after(6):
            assert await named(place.bootstrap()) == []
        place.world.names["seed"] = [f"10.0.2.{number}" for number in range(250)]
        for host in place.world.names["seed"]:
            place.world.host(host)  # all of which refuse
        start = trio.current_time()
        assert await named(place.bootstrap()) == []
        assert trio.current_time() - start <= TRIED_MAX * 0.003
    assert f"and {TRIED_MAX - 3} more" in caplog.records[-1].message


@pytest.mark.parametrize(
    "slow",
    [
        (http(), 1, 1.0),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000, 100, 0.1),
        (b"HTTP/1.1 100 Go\r\n\r\n" * 9 + http(), 20, 9.0),
    ],
    ids=["body", "head", "informational heads"],
)
async def test_who_answers_for_ever_is_given_up(
    slow: tuple[bytes, int, float], autojump_clock: Any, caplog: Any
) -> None:
    """An answer that trickles in takes five seconds and no more, whatever it is a part of."""
    async with seeds() as place:
        answer, piece_bytes, pause_s = slow
        await place.answer("10.0.1.1", answer, piece_bytes=piece_bytes, pause_s=pause_s)
        start = trio.current_time()
        assert await named(place.bootstrap()) == []
        assert 4.9 < trio.current_time() - start < 5.1
        assert place.world.open_streams <= 1  # the server's own end
    assert caplog.records[0].message.endswith("10.0.1.1:80 did not answer within 5 s")


async def test_a_host_without_an_address_is_nobody(autojump_clock: Any, caplog: Any) -> None:
    """A name that does not resolve is told by name; when all is well again, that is told too."""
    async with seeds() as place:
        bootstrap = place.bootstrap()
        with caplog.at_level(logging.INFO):
            assert await named(bootstrap) == []
            assert await named(bootstrap) == []
            await place.answer("10.0.1.1", http())
            assert await named(bootstrap) == NAMED
    messages = [record.message.removeprefix("bootstrap ") for record in caplog.records]
    assert messages[0].startswith("name seed does not resolve")
    assert messages[1:] == [
        "http://seed/peers names nobody: it has no address",
        "name seed resolves again",
        "http://seed/peers names peers again",
    ]


async def test_names_in_the_answer_are_looked_up(autojump_clock: Any) -> None:
    """A server may name hosts by name."""
    async with seeds() as place:
        place.world.names["node-7"] = ["10.0.0.7"]
        await place.answer("10.0.1.1", http(b'{"peers": ["node-7", "node-8:5"]}'))
        assert await named(place.bootstrap("http://10.0.1.1")) == ["10.0.0.7:29998"]
        assert place.asked[0][1].startswith(b"GET /api/v1/peers HTTP/1.1\r\nHost: 10.0.1.1\r\n")


async def test_cancelled_anywhere_no_connection_is_left(autojump_clock: Any) -> None:
    """Whoever gives up asking leaves nothing open, wherever it was."""
    async with seeds() as place:
        await place.answer("10.0.1.1", CHUNKED, piece_bytes=40)
        place.host("10.0.1.2")
        bootstrap = place.bootstrap()

        async def check() -> None:
            await trio.sleep(1)
            assert place.world.open_streams == 0

        assert await cancel_at_every_checkpoint(lambda: named(bootstrap), check) > 10
