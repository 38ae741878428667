"""Promises of picking.py: what is missing, what nobody else was asked for, and of that the rarest."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.peers.piecemap import Bitmap
from p2pmirror.resolve.picking import ASKS_MAX, WINDOW_PIECES, rarest, wanted, window


def bitmap(count: int, indexes: set[int]) -> Bitmap:
    made = Bitmap(count)
    for index in indexes:
        made.add(index)
    return made


@given(
    st.integers(0, 200),
    st.sets(st.integers(0, 199)),
    st.integers(0, 250),
    st.sets(st.integers(0, 199)),
    st.integers(1, 300),
)
def test_the_window(count: int, held: set[int], first: int, without: set[int], most: int) -> None:
    """The next ones that are missing and not left out, in order, and no more than a window has, however long it is."""
    have = bitmap(count, {index for index in held if index < count})
    missing = [i for i in range(first, count) if i not in held]
    assert window(have, first) == missing[:WINDOW_PIECES]
    assert window(have, first, without, most=most) == [i for i in missing if i not in without][:most]


def test_what_nobody_was_asked_for_comes_first() -> None:
    """Late pieces wait while there are others, and are asked for once more when there is nothing else."""
    assert wanted([1, 2, 3], {}, 0.0) == [1, 2, 3]
    assert wanted([1, 2, 3], {1: [0.0], 3: [9.0]}, 5.0) == [2]
    assert wanted([1, 3], {1: [0.0], 3: [9.0]}, 5.0) == [1]
    assert wanted([1], {1: [5.0]}, 5.0) == []
    assert wanted([1], {1: [0.0] * ASKS_MAX}, 5.0) == []
    assert wanted([], {1: [0.0]}, 5.0) == []


def test_the_rarest() -> None:
    """The one that the fewest have, by chance among several; none of none."""
    maps = [bitmap(4, {0, 1, 2}), bitmap(4, {0, 1}), bitmap(4, {0, 3})]
    assert rarest([], maps, Random(1)) is None
    assert rarest([0, 1], maps, Random(1)) == 1
    chosen = Counter(rarest([0, 1, 2, 3], maps, Random(seed)) for seed in range(200))
    assert set(chosen) == {2, 3}
    assert min(chosen.values()) > 50
    assert {rarest([0, 1], [], Random(seed)) for seed in range(50)} == {0, 1}
