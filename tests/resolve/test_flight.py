"""Promises of the state of one flight: who may read how far, which pieces lack, and whose claims count."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import Digest
from p2pmirror.resolve.flight import BOOKS_MAX, FOLLOWER_S, TAIL_BYTES, Flight, PieceSizes
from p2pmirror.resolve.picking import window
from p2pmirror.store.cache.protocol import Left
from p2pmirror.wire.identity import NodeId

PIECE = 50_000  # so that what is withheld of the end is more than one piece
DIGEST = Digest.of(b"")
ONE, TWO = NodeId(b"1" * 20), NodeId(b"2" * 20)
A, B = b"a" * 32, b"b" * 32


class Arrived:
    """What has been written in its turn: all that a flight's state asks of what receives its bytes."""

    def __init__(self, written: int = 0, left: Left | None = None) -> None:
        self.written = written
        self.left = left or Left()


def flight_of(size: int, held: AbstractSet[int] = frozenset(), written: int = 0) -> Flight:
    flight = Flight(DIGEST, "registry.example/team/app", 0.0, PieceSizes(PIECE, 2 * PIECE))
    flight.open(size, Arrived(written))  # type: ignore[arg-type]
    for index in held:
        flight.add(index)
    return flight


@st.composite
def states(draw: st.DrawFn) -> tuple[int, set[int], int]:
    """Any length, whole pieces of it, and how much is written: never into a whole piece's middle, nor over a gap."""
    size = draw(st.integers(2 * PIECE, 7 * PIECE + 1))
    count = -(-size // PIECE)
    held = draw(st.sets(st.integers(0, count - 1)))
    gap = next((index for index in range(count) if index not in held), count)
    whole = draw(st.integers(0, gap))
    inside = draw(st.integers(0, PIECE - 1)) if whole == gap else 0
    return size, held, min(size, whole * PIECE + inside)


@given(states(), st.data())
def test_reading_goes_on_through_whole_pieces(state: tuple[int, set[int], int], data: st.DataObject) -> None:
    """From any byte it goes on exactly until one that is not here, and never into what waits for the digest."""
    size, held, written = state
    flight = flight_of(size, held, written)
    start = data.draw(st.integers(0, size - 1))

    def may_be_read(byte: int) -> bool:
        return (byte < written or byte // PIECE in held) and byte < size - TAIL_BYTES

    end = flight.readable_to(start)
    assert may_be_read(start) == (end > start)
    assert all(may_be_read(byte) for byte in {*range(start, end, PIECE // 10), *range(start, end)[-1:]})
    assert not may_be_read(max(start, end))
    flight.is_right = True
    assert flight.readable_to(start) == size


@given(states(), st.integers(-5, 8 * PIECE), st.integers(-5, 8 * PIECE))
def test_peers_are_given_whole_pieces(state: tuple[int, set[int], int], start: int, end: int) -> None:
    """A span is covered when each of its bytes is in a whole piece, and it is one."""
    size, held, written = state
    flight = flight_of(size, held, written)
    is_span = 0 <= start < end <= size
    pieces = set(range(start // PIECE, (end - 1) // PIECE + 1)) if is_span else set[int]()
    assert flight.covers(start, end) == (is_span and pieces <= held)


@given(states(), st.sets(st.integers(0, 7)), st.integers(0, 8))
def test_what_is_missing(state: tuple[int, set[int], int], fetching: set[int], start: int) -> None:
    """Every piece that is not whole, in order; a stream goes where nobody else fetches; what came is counted once."""
    size, held, written = state
    flight = flight_of(size, held, written)
    flight.fetching = {index: [0.0] for index in fetching}
    missing = [index for index in range(-(-size // PIECE)) if index not in held]
    assert list(flight.missing()) == missing
    span = range(min(start, flight.have.count))
    assert list(flight.missing(span)) == [index for index in missing if index in span]
    free = [index for index in missing if index >= start and index not in fetching]
    assert flight.next_for_stream(start) == (free[0] if free else None)
    assert written <= flight.arrived <= size
    assert sum(flight.extent(index)[1] for index in range(flight.have.count)) == size


def test_before_it_is_open() -> None:
    """Nothing is written, covered or missing, and nobody knows more than that it was asked for."""
    flight = Flight(DIGEST, "registry.example/team/app", 0.0)
    assert (flight.written, flight.arrived, list(flight.missing())) == (0, 0, [])
    assert not flight.covers(0, 1)
    assert (flight.registry, flight.repository) == ("registry.example", "team/app")
    seq = flight.seq
    flight.open(10, Arrived())  # type: ignore[arg-type]
    assert flight.seq > seq
    assert flight.opened.is_set()


@pytest.mark.parametrize(("size", "piece"), [(0, 1), (1, 1), (99_999, 99_999), (100_000, PIECE), (10**9, PIECE)])
def test_how_a_blob_is_cut(size: int, piece: int) -> None:
    """Below the limit it is one piece, from there on many; one of nothing has none."""
    flight = flight_of(size)
    assert flight.piece_bytes == piece
    assert flight.have.count == -(-size // piece)


@pytest.mark.parametrize(
    ("size_mib", "piece_mib"),
    [(7, 7), (8, 1), (64, 1), (127, 1), (254, 1), (255, 2), (256, 2), (508, 2), (509, 4), (1024, 4), (100_000, 4)],
)
def test_how_long_pieces_are(size_mib: int, piece_mib: int) -> None:
    """So that there are some hundred of them, each from 1 to 4 MiB."""
    assert PieceSizes().of(size_mib << 20) == piece_mib << 20


# --- claims ---


def test_the_first_claim_counts() -> None:
    """While whoever made it is around; a second author is heard when he is not, and never about what is whole here."""
    flight = flight_of(5 * PIECE)
    flight.learn(ONE, {0: A, 1: A, 2: A}, lambda _: True)
    flight.add(2, A)
    seq = flight.seq
    flight.learn(TWO, {0: B, 2: B}, lambda _: True)
    assert (flight.hashes, flight.seq) == ({0: A, 1: A, 2: A}, seq)
    flight.learn(TWO, {0: B, 1: A, 2: B}, lambda author: author != ONE)
    assert flight.hashes == {0: B, 1: A, 2: A}
    assert flight.claimed_by == {0: TWO, 1: ONE, 2: ONE}
    assert flight.hashed_at[0] == flight.seq > seq


def test_what_was_computed_here_is_nobodys_claim() -> None:
    """No author replaces it, around or not."""
    flight = flight_of(5 * PIECE)
    flight.know(0, A)
    flight.learn(TWO, {0: B}, lambda _: False)
    assert (flight.hashes, flight.claimed_by) == ({0: A}, {})


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ONE, TWO]), st.dictionaries(st.integers(0, 4), st.sampled_from([A, B])), st.booleans()
        ),
        max_size=12,
    ),
    st.sets(st.integers(0, 4)),
)
def test_claims_against_a_model(told: list[tuple[NodeId, dict[int, bytes], bool]], held: set[int]) -> None:
    """However two authors contradict each other: each hash has one claimant, and `since` finds each change once."""
    flight = flight_of(5 * PIECE, held)
    model: dict[int, tuple[bytes, NodeId]] = {}
    for author, hashes, is_around in told:
        before, seq = dict(model), flight.seq
        for index, claimed in hashes.items():
            old = model.get(index)
            if old is None or (old[0] != claimed and not is_around and index not in held):
                model[index] = (claimed, author)
        flight.learn(author, hashes, lambda _, here=is_around: here)
        assert {index: (flight.hashes[index], flight.claimed_by[index]) for index in flight.hashes} == model
        news = {index for index, at in flight.hashed_at.items() if at > seq}
        assert news == {index for index in model if model[index] != before.get(index)}


def test_followers_are_forgotten() -> None:
    """Whoever has not asked for some seconds does not follow any more; the others stay in their order."""
    flight = flight_of(5 * PIECE)
    flight.followers = {ONE: 0.0, TWO: 1.0}
    assert flight.follows_now(FOLLOWER_S - 0.1) == [ONE, TWO]
    assert flight.follows_now(FOLLOWER_S) == [TWO]
    assert flight.follows_now(FOLLOWER_S + 1.0) == []


def test_each_zone_has_a_book_of_its_own() -> None:
    """What was given into one zone is free for the others; however many there are said to be, the books are few."""
    flight = flight_of(4 * PIECE, {0})
    assert flight.spreading("a").choose(ONE, [0], 1.0) == 0
    flight.spreading("a").began(0, ONE, 1.0)
    assert flight.spreading("a").choose(TWO, [0], 1.0) is None
    assert flight.spreading("b").choose(TWO, [0], 1.0) == 0
    books = {id(flight.spreading(f"zone {number}")) for number in range(1000)}
    assert len(books) <= BOOKS_MAX + 1
    assert flight.spreading("a").is_given(0)


def test_what_an_earlier_try_has_left_is_nobodys_to_fetch_until_it_was_hashed() -> None:
    """It is neither here nor missing; proved it is here and counts as progress, disproved it is missing."""
    flight = Flight(DIGEST, "registry.example/team/app", 0.0, PieceSizes(PIECE, 2 * PIECE))
    flight.open(10 * PIECE - 1, Arrived(0, Left((PIECE, 3 * PIECE), (5 * PIECE, 9 * PIECE))))  # type: ignore[arg-type]
    assert flight.unproven == {0, 1, 2, 5, 9}
    assert list(flight.missing()) == [3, 4, 6, 7, 8]
    assert window(flight.have, 0, flight.unproven) == [3, 4, 6, 7, 8]
    assert (flight.next_for_stream(), flight.readable_to(0), flight.covers(0, 1)) == (3, 0, False)
    flight.prove(0)
    flight.prove(9, A)
    assert (flight.covers(0, PIECE), flight.hashes) == (True, {9: A})
    assert (flight.progress, flight.moved) == (2 * PIECE - 1, 0)
    flight.disprove([1, 7])
    assert (flight.unproven, flight.disproved) == ({2, 5}, {1})
    assert list(flight.missing()) == [1, 3, 4, 6, 7, 8]
    flight.add(1)
    assert flight.disproved == set()
