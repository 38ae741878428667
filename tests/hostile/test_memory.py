"""What is read takes memory in proportion to what was sent, whatever it is: the worst of each kind is measured."""

import gc
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
import trio

from p2pmirror.oci import DOCUMENT_BYTES_MAX, Invalid, mediatype, parse_manifest
from p2pmirror.routing.bootstrap.listing import LIST_BYTES_MAX, read_entries
from p2pmirror.wire.http_connection import Connection
from p2pmirror.wire.http_head import DateLine
from p2pmirror.wire.http_server import ServerOptions
from tests.hostile.bearing import Reader, shown
from tests.hostile.readers import READERS
from tests.hostile.scripted import ScriptedStream
from tests.hostile.test_http import echo
from tests.oci.documents import descriptor, encoded, image, index

FACTOR = 13  # bytes held at most for each byte read: text of four bytes a character, twice, and what is made of it
ALLOWANCE_BYTES = 400 << 10  # caches of patterns and paths, which are bounded, and an exception's frames
MANIFEST_BYTES_MAX = 50 << 20  # while one is read; those of 10,000 layers take 8
MUTANTS = 30  # of each reader: tracing makes each some five times as slow


def peak_of(read: Callable[[], object]) -> int:
    """Return how many bytes more than before were held at the worst moment."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    read()
    return tracemalloc.get_traced_memory()[1] - before


@pytest.fixture(autouse=True)
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_changed_input(reader: Reader) -> None:
    """No mutant of real input takes more than its share."""
    random = Random(reader.name)
    for case in range(MUTANTS):
        how, data = reader.mutants(random)

        def read(data: bytes = data) -> None:
            with suppress(*reader.errors):
                reader.read(data)

        peak = peak_of(read)
        assert peak <= FACTOR * len(data) + ALLOWANCE_BYTES, f"case {case} ({how}) took {peak} bytes: {shown(data)}"


HEAD = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"x":'


def filled(unit: bytes, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """Return as large an index as is read, which holds `unit` again and again in a field that nobody knows."""
    count = (DOCUMENT_BYTES_MAX - len(HEAD) - 10) // len(unit)
    return HEAD + opening + (unit * count).rstrip(b",") + closing + b"}"


ANNOTATED = [
    descriptor(mediatype.OCI_MANIFEST, b"%d" % n, annotations={f"{k:x}": "" for k in range(300)}) for n in range(600)
]
DOCUMENTS = {
    "lists": filled(b"[],"),
    "objects": filled(b'{"":0},'),
    "texts": filled(b'"ab",'),
    "numbers": filled(b"999,"),
    "fractions": filled(b"1.5,"),
    "keys": HEAD + b"{" + b",".join(b'"%x":0' % number for number in range(400_000)) + b"}}",
    "keys within the limit": HEAD + b"{" + b",".join(b'"%x":0' % number for number in range(190_000)) + b"}}",
    "a long text of wide characters": HEAD + b'"' + b"a" * 4_000_000 + "\U0001f600".encode() + b'"}',
    "open lists": b"[" * DOCUMENT_BYTES_MAX,
    "open objects": b'{"":' * (DOCUMENT_BYTES_MAX // 4),
    "a long number": HEAD + b"9" * 4_000_000 + b"}",
    "10,000 layers": encoded(image(*(b"%d" % number for number in range(10_000)))),
    "600 descriptors of 300 annotations": encoded(index(*ANNOTATED)),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_worst_manifests(name: str) -> None:
    """Of 4 MiB, whatever they are, at most some 50 MB are made, and that in seconds."""
    data = DOCUMENTS[name]

    def read() -> None:
        with suppress(Invalid):
            parse_manifest(data, None)

    peak = peak_of(read)
    assert peak <= MANIFEST_BYTES_MAX, f"{peak} bytes for {len(data)}"


@pytest.mark.parametrize("name", ["10,000 layers", "600 descriptors of 300 annotations", "keys within the limit"])
def test_large_manifests_are_read(name: str) -> None:
    """What the limits are for is far beyond honest documents: large ones are read."""
    parse_manifest(DOCUMENTS[name], None)


@pytest.mark.parametrize("unit", [b"a", b"X: y\r\n", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0"])
async def test_the_worst_heads(unit: bytes) -> None:
    """A connection holds some heads' worth of memory, however much is sent, and however it is cut."""
    options = ServerOptions()
    for start in (b"", b"GET /", b"GET / HTTP/1.1\r\nX: "):
        data = start + unit * (60_000 // len(unit))
        stream = ScriptedStream([data[at : at + 5000] for at in range(0, len(data), 5000)])
        connection = Connection(stream, echo, options, DateLine(lambda: 0.0))
        gc.collect()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        await connection.run()
        peak = tracemalloc.get_traced_memory()[1] - before - len(stream.heard) * 2
        assert peak <= FACTOR * options.head_bytes_max + ALLOWANCE_BYTES, f"{peak} bytes for {unit!r} after {start!r}"


async def test_the_longest_list_of_members() -> None:
    """A bootstrap's list, as long as is read, of entries that are none, takes its share, and one line to tell of."""
    lines = [(f"line {number}", "\U0001f600 ") for number in range(LIST_BYTES_MAX // 6)]
    gc.collect()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    listing = await read_entries(lines, Random(1))
    assert tracemalloc.get_traced_memory()[1] - before <= FACTOR * LIST_BYTES_MAX
    assert not listing.places
    assert len(listing.wrong) < 500
    await trio.lowlevel.checkpoint()
