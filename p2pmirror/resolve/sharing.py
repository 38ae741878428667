"""What peers may know and have of the flights of this node, while they go on.

Laws:
- only a flight that leads makes a peer wait for bytes; any flight makes him wait for news, for as long as he said;
- who leads tells news the less often the more follow it: what they need at once comes with the pieces;
- who follows a flight that leads only once it has come to its end takes the pieces of his choice: by then others have
  them as well;
- a map says what is whole and what its author claims; hashes are computed once somebody asks for a map, not before;
- what a flight that leads has is given to one peer of each zone (`spreading`), and to others through that one;
- with a piece goes its hash only where it is the giver's own: what others claim maps alone say, as theirs.

DESIGN.md section 4, "Flights and pieces".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Final

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.peers.piecemap import FOLLOWERS_MAX, Bitmap, PieceMap
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.spreading import Spreading
from p2pmirror.resolve.turns import Turns
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import File

WAIT_S_MAX: Final = 10.0  # whatever a peer says
COALESCED_S: Final = 0.2  # changes that follow one another within this go out together
CROWD_S: Final = 0.005  # and at a leader within so much more for each who follows: it has other things to do
BOOK_S: Final = 0.25  # between two looks into the book of who was given what
TURN_LATE: Final = 4.0  # times the expected time until a piece of which nothing is heard is in nobody's way any more
FOLLOWERS_KEPT_MAX: Final = 1024  # peers of one flight that are remembered


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece that is given to a peer; `ended` is to be called once, with whether it went out whole."""

    file: File
    offset: int
    count: int
    size: int
    piece_hash: bytes | None  # None: somebody else claims it, as maps say
    ended: Callable[[bool], None]


async def piece_map(flight: Flight, own: NodeId, asker: NodeId, *, since: int, wait_s: float) -> PieceMap:
    """Return what there is, once it differs from `since` or `wait_s` have passed. Raises what ended the flight."""
    _note(flight, asker)
    if not flight.are_hashes_asked:
        flight.are_hashes_asked = True
        flight.changed_pieces()
    with trio.move_on_after(min(wait_s, WAIT_S_MAX)):
        while flight.failed is None and flight.news <= since:
            await flight.wait_for_pieces()
        if since and flight.failed is None and not flight.have.is_full:
            await trio.sleep(COALESCED_S + CROWD_S * (len(flight.followers) if flight.leads else 0))
    if flight.failed is not None:
        raise NotHere(f"{flight.digest} does not arrive any more: {flight.failed}")
    is_open = flight.incoming is not None
    followers = [each for each in flight.follows_now(trio.current_time()) if each != asker]
    hashes = {index: flight.hashes[index] for index, at in flight.hashed_at.items() if at > since and is_open}
    return PieceMap(
        flight.seq,
        flight.size if is_open else None,
        flight.piece_bytes if is_open else 1,
        flight.have if is_open else Bitmap(0),
        hashes,
        flight.author or own,
        flight.leads and not (flight.is_right and not since),
        tuple(followers[-FOLLOWERS_MAX:]),
        _claims_of_others(flight, own, hashes),
    )


def _claims_of_others(flight: Flight, own: NodeId, hashes: Iterable[int]) -> dict[NodeId, tuple[int, ...]]:
    """Return which of these hashes are claims of others than the author of a flight, by claimant."""
    author, found = flight.author or own, dict[NodeId, list[int]]()
    for index in hashes:
        claimant = flight.claimed_by.get(index, own)
        if claimant != author:
            found.setdefault(claimant, []).append(index)
    return {claimant: tuple(indexes) for claimant, indexes in found.items()}


async def next_piece(
    flight: Flight, turns: Turns, asker: NodeId, *, first: int, lacks: bytes, wait_s: float, zone: str = ""
) -> Piece | None:
    """Return a piece for a peer who lacks these from `first` on; None when there is none within `wait_s`.

    Who asks again says so that what he was given before is with him, or that he does not want it any more.

    Raises `NotHere` when this flight does not lead or has failed. Cancellation: nothing was given.
    """
    _note(flight, asker)
    if (before := flight.turns.pop(asker, None)) is not None:
        turns.end(before)
    book, lacked = flight.spreading(zone), _lacked(first, lacks)
    _announce(flight, book, asker, lacked)

    def choose() -> int | None:
        if flight.failed is not None or not flight.leads:
            raise NotHere(f"{flight.digest} is not spread from here")
        return book.choose(asker, [i for i in lacked if i in flight.have], trio.current_time())

    with trio.move_on_after(min(wait_s, WAIT_S_MAX)):
        while True:
            if choose() is not None:
                turn = await turns.take(lambda: len(flight.have) - book.given, TURN_LATE * book.expected_s)
                try:
                    index = choose()  # others went on meanwhile
                    if index is not None:
                        piece = await _give(flight, book, index, asker, partial(turns.end, turn))
                        flight.turns[asker] = turn
                        return piece
                except BaseException:
                    turns.end(turn)
                    raise
                turns.end(turn)
            with trio.move_on_after(BOOK_S):  # the book looks at the time, too
                await flight.wait_for_pieces()
    return None


def _lacked(first: int, lacks: bytes) -> list[int]:
    """Return the pieces of a bitmap that begins with `first`."""
    return [first + at for at in range(8 * len(lacks)) if lacks[at >> 3] & (0x80 >> (at & 7))]


def _announce(flight: Flight, book: Spreading, asker: NodeId, lacked: list[int]) -> None:
    """Take note of what a peer has who lacks these."""
    now, lacks = trio.current_time(), set(lacked)
    for index in range(min(lacked[-1], flight.have.count) if lacked else 0):
        if index not in lacks:
            book.announced(asker, index, now)


async def _give(flight: Flight, book: Spreading, index: int, asker: NodeId, lost: Callable[[], None]) -> Piece:
    """Return a piece for a peer; `lost` is called when it did not go out whole."""
    assert flight.incoming is not None
    offset, count = flight.extent(index)
    book.began(index, asker, trio.current_time())
    is_over = False

    def ended(whole: bool) -> None:  # noqa: FBT001  # the shape of a callback
        nonlocal is_over
        if not is_over:
            is_over = True
            book.ended(index, asker, trio.current_time(), whole=whole)
            if not whole:
                lost()
            flight.changed_pieces()

    try:
        with trio.CancelScope(shield=True):  # a hash and an open file, some milliseconds
            piece_hash = await hash_of(flight, index)
            file = await flight.incoming.reader()
    except Unreachable:
        ended(False)  # noqa: FBT003
        raise NotHere(f"{flight.digest} has ended") from None
    is_own = flight.is_right or index not in flight.claimed_by
    return Piece(file, offset, count, flight.size, piece_hash if is_own else None, ended)


async def hash_of(flight: Flight, index: int) -> bytes:
    """Return the hash of a piece that is here, computing it when it is not known. Raises `Unreachable`."""
    if index not in flight.hashes:
        assert flight.incoming is not None
        hasher = sha256()
        offset, count = flight.extent(index)
        await flight.incoming.feed(hasher, offset, count)
        flight.know(index, hasher.digest())
        flight.changed_pieces()
    return flight.hashes[index]


def _note(flight: Flight, asker: NodeId) -> None:
    flight.followers.pop(asker, None)
    flight.followers[asker] = trio.current_time()
    if len(flight.followers) > FOLLOWERS_KEPT_MAX:
        del flight.followers[next(iter(flight.followers))]
