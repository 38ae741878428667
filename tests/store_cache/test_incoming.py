"""A blob that is received in any order: what is hashed in its turn is what is on the disk; nothing wrong is right."""

from __future__ import annotations

from contextlib import closing
from random import Random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import Digest
from p2pmirror.store.cache import CacheStore
from p2pmirror.store.cache.protocol import Incoming
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.store_cache.setting import NAME, content, listed, looked

DATA = Random(1).randbytes(1000)
DIGEST = Digest.of(DATA)
PART = 100  # bytes of each part that comes


async def begun(store: CacheStore, data: bytes = DATA) -> Incoming:
    return await store.receive(Digest.of(data), len(data), None, NAME)


async def received_in(order: list[int], hasty: list[bool]) -> None:
    """Let parts come in an order; catch up after some of them; then look at everything."""
    store = await looked(MemoryFiles())
    async with await begun(store) as incoming:
        there: set[int] = set()
        for part, catches_up in zip(order, hasty, strict=True):
            offset, data = part * PART, DATA[part * PART : (part + 1) * PART]
            there.add(part)
            if offset == incoming.written:
                await incoming.write(data)
            else:
                await incoming.put(offset, data)
            while catches_up and incoming.written // PART in there:
                await incoming.catch_up(incoming.written + PART)
            assert all(index in there for index in range(incoming.written // PART))
            await _read_back(incoming, there)
            assert await incoming.is_right() == (incoming.written == len(DATA))
        await incoming.catch_up(len(DATA))
        assert await incoming.is_right()
        await incoming.keep()
    assert await content(store, DIGEST) == DATA


async def _read_back(incoming: Incoming, there: set[int]) -> None:
    """Hold the disk, as readers and other hashers see it, to what has come."""
    expected = bytearray(len(DATA))
    for part in there:
        expected[part * PART : (part + 1) * PART] = DATA[part * PART : (part + 1) * PART]
    with closing(await incoming.reader()) as reader:
        assert await reader.read_at(0, len(DATA)) == expected
    hasher = DIGEST.hasher()
    await incoming.feed(hasher, PART // 2, len(DATA) - PART)
    assert Digest.of(bytes(expected[PART // 2 : len(DATA) - PART // 2])).matches(hasher)


@given(st.permutations(range(len(DATA) // PART)), st.lists(st.booleans(), min_size=10, max_size=10))
def test_any_order(order: list[int], hasty: list[bool]) -> None:
    """Written in its turn, put out of it, caught up with at any moment: the bytes and the digest are the blob's."""
    trio.run(received_in, order, hasty)


async def test_what_cannot_be_is_refused_and_changes_nothing() -> None:
    """Over what is written, beyond the end, back, or beyond what there is: ValueError, and then it goes on."""
    store = await looked(MemoryFiles())
    async with await begun(store) as incoming:
        await incoming.write(DATA[:300])
        for offset, count in [(0, 10), (299, 1), (299, 100), (990, 11), (1000, 1), (2000, 0)]:
            with pytest.raises(ValueError, match="written already, or too much"):
                await incoming.put(offset, bytes(count))
        for end in (-1, 0, 299, 1001):
            with pytest.raises(ValueError, match="cannot be"):
                await incoming.catch_up(end)
        with pytest.raises(ValueError, match="more than its"):
            await incoming.write(bytes(701))
        with pytest.raises(ValueError, match="not what was received"):
            await incoming.keep()
        await incoming.put(300, DATA[300:])
        await incoming.catch_up(300)
        assert incoming.written == 300
        assert not await incoming.is_right()
        await incoming.catch_up(1000)
        assert await incoming.is_right()


@pytest.mark.parametrize("wrong", [0, 450, 999])
async def test_wrong_bytes_are_not_right(wrong: int) -> None:
    """One bit in a part that was put makes it wrong, whatever was hashed before: it is not kept, and not listed."""
    store = await looked(MemoryFiles())
    lie = bytearray(DATA)
    lie[wrong] ^= 1
    async with await begun(store) as incoming:
        await incoming.put(500, lie[500:])
        await incoming.write(lie[:500])
        await incoming.catch_up(1000)
        assert not await incoming.is_right()
        with pytest.raises(ValueError, match="not what was received"):
            await incoming.keep()
    assert listed(store) == set()


async def test_a_hole_is_not_right() -> None:
    """What was caught up with and never came reads as zeros, and has another digest."""
    store = await looked(MemoryFiles())
    async with await begun(store) as incoming:
        await incoming.put(100, DATA[100:])
        await incoming.catch_up(1000)
        assert not await incoming.is_right()


async def test_nothing_at_all() -> None:
    """A blob of no bytes is right from the beginning, and catching up with nothing changes nothing."""
    store = await looked(MemoryFiles())
    async with await begun(store, b"") as incoming:
        await incoming.catch_up(0)
        assert await incoming.is_right()
        await incoming.keep()
    assert await content(store, Digest.of(b"")) == b""
