"""Blobs of registries: one flight for all who ask, right bytes or no clean end, and no pull fails for want of room."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from p2pmirror.errors import NotHere, Unreachable, UpstreamRefused
from p2pmirror.oci import Digest
from p2pmirror.resolve.course import BlobCourse
from p2pmirror.resolve.flight import TAIL_BYTES
from p2pmirror.resolve.flights import LINGER_S
from p2pmirror.resolve.steering import Step
from p2pmirror.resolve.want import Arriving, Held, Trail, Want
from p2pmirror.store.cache import CacheOptions, CacheStore
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.ranges import Unsatisfiable
from tests.cancellation import cancel_at_every_checkpoint
from tests.resolve.fakes import KeptSink
from tests.resolve.registry import REGISTRY, REPOSITORY, World

DATA = Random(1).randbytes(3_000_000)
DIGEST = Digest.of(DATA)
ROOT = Path("/cache")


@asynccontextmanager
async def node(files: MemoryFiles | None = None, **options: Any) -> AsyncIterator[World]:
    """Run a node with a cache, whose registry has `DATA`."""
    files = files or MemoryFiles()
    cache = CacheStore(ROOT, files, CacheOptions(free_bytes_min=0, **options))
    async with trio.open_nursery() as nursery, World(cache=cache) as world:
        world.files, world.cache = files, cache
        await nursery.start(cache.run)
        world.registries.put_blob(REGISTRY, REPOSITORY, DATA)
        yield world
        nursery.cancel_scope.cancel()


async def pull(world: World, byte_range: str | None = None, *, digest: Digest = DIGEST, step_s: float = 0.0) -> bytes:
    """Ask for the blob and take all of the answer."""
    found = await world.find_blob(digest, byte_range)
    if isinstance(found, Held):
        try:
            return await found.file.read_at(0, found.file.size)
        finally:
            found.file.close()
    assert isinstance(found, Arriving)
    sink = KeptSink(step_s)
    try:
        await found.pump(sink)
    finally:
        found.close()
    assert len(sink.data) == found.end - found.start
    return bytes(sink.data)


async def kept(world: World, digest: Digest = DIGEST) -> bool:
    """Wait a little, and say whether the cache has the blob."""
    await trio.sleep(1)
    try:
        (await world.cache.open(digest)).file.close()
    except NotHere:
        return False
    return True


async def test_a_blob_is_fetched_once_and_kept(autojump_clock: Any) -> None:
    """The first pull comes from the registry, the second from the cache, byte for byte; the trail says so."""
    async with node() as world:
        assert (await pull(world), world.trail.source) == (DATA, "upstream")
        assert await kept(world)
        assert (await pull(world), world.trail.source) == (DATA, "cache")
        assert world.registries.count("blob") == 1
        assert world.registries.sent_bytes == len(DATA)


async def test_a_hundred_readers_share_one_flight(autojump_clock: Any) -> None:
    """Whoever comes while a blob arrives follows it from its first byte, quick or slow; one copy is fetched."""
    async with node() as world:
        world.conduct.bytes_per_s = 1_000_000
        results: list[bytes] = []

        async def reader(number: int) -> None:
            await trio.sleep(number * 0.025)
            results.append(await pull(world, step_s=0.01 * (number % 3)))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(reader, number)
        assert results == [DATA] * 100
        assert world.registries.sent_bytes == len(DATA)


async def test_the_flight_goes_on_when_the_first_reader_leaves(autojump_clock: Any) -> None:
    """It belongs to nobody: the second reader gets everything, from one question."""
    async with node() as world:
        world.conduct.bytes_per_s = 1_000_000

        async def leave() -> None:
            with trio.move_on_after(0.5):
                await pull(world)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await trio.sleep(0.2)
            assert await pull(world) == DATA
        assert world.registries.count("blob") == 1


@pytest.mark.parametrize(
    ("byte_range", "start", "end"),
    [
        ("bytes=0-", 0, len(DATA)),
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=2900000-", 2_900_000, len(DATA)),
        ("bytes=-5", len(DATA) - 5, len(DATA)),
    ],
)
async def test_ranges_follow_the_flight(autojump_clock: Any, byte_range: str, start: int, end: int) -> None:
    """Each range has its bytes, whether they came before, come now, or will; and the registry is asked once."""
    async with node() as world:
        world.conduct.bytes_per_s = 10_000_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull, world)
            await trio.sleep(0.1)
            assert await pull(world, byte_range) == DATA[start:end]
        assert world.registries.count("blob") == 1


async def test_a_range_beyond_the_end(autojump_clock: Any) -> None:
    """It is refused with the length, and nothing is left behind."""
    async with node() as world:
        with pytest.raises(Unsatisfiable):
            await pull(world, "bytes=3000000-")
        assert await pull(world) == DATA


async def test_many_open_ranges_that_are_closed_early(autojump_clock: Any) -> None:
    """Parallel range readers that take a part each and leave get right bytes, and one copy is fetched."""
    async with node() as world:
        world.conduct.bytes_per_s = 5_000_000
        part = 100_000
        parts: dict[int, bytes] = {}

        async def reader(start: int) -> None:
            found = await world.find_blob(DIGEST, f"bytes={start}-")
            assert isinstance(found, Arriving)
            sink = KeptSink()
            with trio.CancelScope() as scope:

                class Leaving(KeptSink):
                    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
                        await sink.send_all(data)
                        if sink.sent >= part:
                            scope.cancel()

                await found.pump(Leaving())
            found.close()
            parts[start] = bytes(sink.data[:part])

        async with trio.open_nursery() as nursery:
            for start in range(0, len(DATA), part):
                nursery.start_soon(reader, start)
        assert b"".join(parts[start] for start in sorted(parts)) == DATA
        assert world.registries.sent_bytes == len(DATA)


@pytest.mark.parametrize("byte_range", [None, "bytes=1000-"])
async def test_wrong_bytes_never_end_cleanly(autojump_clock: Any, byte_range: str | None) -> None:
    """The last 64 KiB wait for the digest: the response is cut, nothing is kept, and the next pull is right again."""
    async with node() as world:
        world.conduct.falsify = lambda data: data[:-1] + b"?"
        found = await world.find_blob(DIGEST, byte_range)
        assert isinstance(found, Arriving)
        sink = KeptSink()
        with pytest.raises(UpstreamRefused):
            await found.pump(sink)
        found.close()
        assert found.start + sink.sent <= len(DATA) - TAIL_BYTES
        assert not await kept(world)
        assert world.count("upstream_wrong_digests") == 1
        world.conduct.falsify = bytes
        assert await pull(world) == DATA


async def test_a_registry_that_breaks_off(autojump_clock: Any) -> None:
    """The response ends short of its length, nothing is kept, and the next pull begins anew."""
    async with node() as world:
        world.conduct.cuts = [1_000_000]
        with pytest.raises(Unreachable):
            await pull(world)
        assert not await kept(world)
        assert await pull(world) == DATA


@pytest.mark.parametrize(("status", "error"), [(404, NotHere), (403, UpstreamRefused), (500, UpstreamRefused)])
async def test_a_refusal_is_an_answer_before_any_byte(autojump_clock: Any, status: int, error: type[Exception]) -> None:
    """All who wait get the same error, before a head went out."""
    async with node() as world:
        world.conduct.status, world.conduct.latency_s = status, 0.2
        errors: list[BaseException] = []

        async def ask() -> None:
            try:
                await world.find_blob(DIGEST)
            except (NotHere, UpstreamRefused) as caught:
                errors.append(caught)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert [type(each) for each in errors] == [error] * 5
        assert world.registries.count("blob") == 1


async def test_a_silent_registry_sends_its_clients_on(autojump_clock: Any) -> None:
    """Within two seconds the client is told to go elsewhere; the flight that nobody follows ends by itself."""
    async with node() as world:
        world.conduct.is_silent = True
        with pytest.raises(Unreachable), trio.fail_after(2.1):
            await world.find_blob(DIGEST)
        assert len(world.flights.all()) == 1
        await trio.sleep(LINGER_S + 10)
        assert world.flights.all() == []


@pytest.mark.parametrize(("left_after_s", "finishes"), [(0.5, False), (2.0, True)])
async def test_a_flight_without_readers(autojump_clock: Any, left_after_s: float, finishes: bool) -> None:
    """One that is half done is finished for the next reader; one that has only begun ends after a while."""
    async with node() as world:
        world.conduct.bytes_per_s = 30_000 if not finishes else 1_000_000
        with trio.move_on_after(left_after_s):
            await pull(world)
        await trio.sleep(LINGER_S + 10)
        assert world.flights.all() == []
        assert await kept(world) == finishes


async def test_a_fault_of_ours_ends_one_flight_and_no_other(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw cuts the readers of its own flight short, and stands in the log; the next pull is right."""
    other = DATA[:200_000]

    async def falls(self: BlobCourse, *_: object) -> Step:
        if self.question.path.endswith(DIGEST.hex):
            raise ValueError("nobody foresaw this")
        return await foreseen(self, *_)

    foreseen = BlobCourse.next
    monkeypatch.setattr(BlobCourse, "next", falls)
    async with node() as world:
        digest = world.registries.put_blob(REGISTRY, REPOSITORY, other)
        with pytest.raises(Unreachable):
            await pull(world)
        assert await pull(world, digest=digest) == other
    assert "nobody foresaw this" in caplog.text


async def test_no_room_means_passing_through(autojump_clock: Any) -> None:
    """A cache that is too small for a blob does not fail its pull: the bytes are right, and nothing is kept."""
    async with node(bytes_max=1_000_000) as world:
        assert (await pull(world), world.trail.source) == (DATA, "upstream")
        assert await pull(world, "bytes=10-19") == DATA[10:20]
        assert not await kept(world)


async def test_a_disk_that_fills_up_in_the_middle(autojump_clock: Any) -> None:
    """The same response goes on from the registry at the very next byte, and its end waits for the digest as before."""
    files = MemoryFiles()
    async with node(files) as world:
        world.conduct.bytes_per_s = 1_000_000

        async def fill() -> None:
            await trio.sleep(1.5)
            files.read_only = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            assert await pull(world) == DATA
        assert world.registries.count("blob") == 2


async def test_a_wiped_cache_costs_no_pull(autojump_clock: Any) -> None:
    """The directory goes while a blob arrives: its readers get all of it."""
    files = MemoryFiles()
    async with node(files) as world:
        world.conduct.bytes_per_s = 1_000_000

        async def wipe() -> None:
            await trio.sleep(1.5)
            for path in [path for path in files.entries if path.is_relative_to(ROOT)]:
                await files.unlink(path)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wipe)
            assert await pull(world) == DATA


async def test_whoever_comes_as_a_flight_ends_that_could_not_be_kept(autojump_clock: Any) -> None:
    """A reader that comes at any moment of a flight in a wiped cache gets all of it, also when it ends just then."""
    data = DATA[:1000]
    for checkpoints in range(60):
        files = MemoryFiles()
        async with node(files) as world, trio.open_nursery() as nursery:
            digest = world.registries.put_blob(REGISTRY, REPOSITORY, data)
            want = Want("blob", REGISTRY, REPOSITORY, digest)

            async def wipe(files: MemoryFiles = files) -> None:
                while True:
                    for path in [path for path in files.entries if path.is_relative_to(ROOT)]:
                        await files.unlink(path)
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(partial(pull, world, digest=digest))
            nursery.start_soon(wipe)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            found = await world.resolver.find(want, Trail())
            assert isinstance(found, Arriving), checkpoints
            sink = KeptSink()
            await found.pump(sink)
            found.close()
            assert sink.data == data, checkpoints
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [0, 1, TAIL_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1])
async def test_short_blobs(autojump_clock: Any, size: int) -> None:
    """A blob no longer than what is withheld comes whole, too."""
    data = DATA[:size]
    async with node() as world:
        digest = world.registries.put_blob(REGISTRY, REPOSITORY, data)
        assert await pull(world, digest=digest) == data
        assert await pull(world, digest=digest) == data


async def test_head_says_the_length_and_fetches_nothing(autojump_clock: Any) -> None:
    """A HEAD costs the registry a HEAD; while the blob arrives, nothing."""
    async with node() as world:
        found = await world.find_blob(DIGEST, head=True)
        assert found.content.size == len(DATA)
        assert (world.registries.count("blob_size"), world.registries.count("blob")) == (1, 0)


async def test_cancelling_a_pull_anywhere(autojump_clock: Any) -> None:
    """A client that leaves at any moment leaves no file open, and the next pull is right."""
    async with node() as world:
        small = world.registries.put_blob(REGISTRY, REPOSITORY, DATA[:200_000])

        async def check() -> None:
            await trio.sleep(LINGER_S + 10)
            assert world.flights.all() == []
            assert not any(entry.is_open for entry in world.cache.entries)
            await world.cache.remove([small])

        assert await cancel_at_every_checkpoint(lambda: pull(world, digest=small), check) >= 5
