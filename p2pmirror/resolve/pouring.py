"""The bytes of a flight on their way into its file, and their hashes.

Laws: a stream writes in order, piece by piece, and stops before a piece that somebody else has or fetches; what is
whole is hashed in its turn for the digest of all of it, and by itself once a peer asks for hashes.
"""

from collections.abc import Callable

import trio

from p2pmirror.errors import Unreachable, only_error
from p2pmirror.resolve.backlog import Backlog
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.sharing import hash_of
from p2pmirror.upstream.protocol import Download


async def pour(flight: Flight, download: Download, index: int, is_wanted: Callable[[int], bool]) -> None:
    """Write what a download brings from a piece on, in steps, until a piece comes that is not wanted."""
    backlog = Backlog()

    async def take() -> None:
        while data := await download.receive():
            await backlog.put(data)
        backlog.end()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            flight.streaming = index
            await _write(flight, backlog, is_wanted)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise only_error(group) from None
    finally:
        flight.streaming = None


async def _write(flight: Flight, backlog: Backlog, is_wanted: Callable[[int], bool]) -> None:
    assert flight.incoming is not None
    assert flight.streaming is not None
    end = sum(flight.extent(flight.streaming))
    position = flight.begins_at(flight.streaming)
    while data := await backlog.step():
        rest = memoryview(data)
        while rest:
            part = rest[: end - position]
            if position == flight.incoming.written:
                await flight.incoming.write(part)
            else:
                await flight.incoming.put(position, part)
            position, rest = position + len(part), rest[len(part) :]
            flight.moved += len(part)
            if position < end:
                flight.changed()
                continue
            flight.add(flight.streaming)
            following = flight.streaming + 1
            if following == flight.have.count or not is_wanted(following):
                return
            flight.streaming = following
            end += flight.extent(following)[1]
    raise Unreachable(f"{flight.digest} ended at byte {position} of {flight.size}")


async def catch_up(flight: Flight) -> None:
    """Hash pieces in their turn, so that what came out of it counts as written."""
    await flight.opened.wait()
    while flight.incoming is not None and flight.written < flight.size:
        index = flight.written // flight.piece_bytes
        if index in flight.have:
            await flight.incoming.catch_up(sum(flight.extent(index)))
            flight.changed()
        else:
            await flight.wait_for_pieces()


async def hash_pieces(flight: Flight) -> None:
    """Compute the hashes of pieces that have none, once somebody asks for them."""
    while True:
        lacking = (index for index in range(flight.have.count) if _lacks_hash(flight, index))
        index = next(lacking, None) if flight.are_hashes_asked else None
        if index is None:
            await flight.wait_for_pieces()
        else:
            await hash_of(flight, index)


def _lacks_hash(flight: Flight, index: int) -> bool:
    return index in flight.have and index not in flight.hashes
