"""Promises of a scarce source: each piece goes to one asker, and again only when that one did not pass it on."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from p2pmirror.resolve.spreading import (
    EXPECTED_S_FIRST,
    EXPECTED_S_MIN,
    LAST_RESORT,
    LATE,
    WEIGHT,
    Spreading,
)
from p2pmirror.wire.identity import NodeId

ONE, TWO = NodeId(b"1" * 20), NodeId(b"2" * 20)


def given_to_one() -> Spreading:
    """Return a book in which piece 0 was given to `ONE`, from the moment 0 on."""
    book = Spreading()
    book.began(0, ONE, 0.0)
    book.ended(0, ONE, EXPECTED_S_FIRST, whole=True)
    return book


def test_the_first_that_nobody_got() -> None:
    """The first lacking piece that was not given is given, whoever asks; what is being given is not given twice."""
    book = Spreading()
    assert book.choose(ONE, [2, 3], 0.0) == 2
    book.began(2, ONE, 0.0)
    assert (book.is_given(2), book.is_given(3), book.given) == (True, False, 1)
    assert book.choose(TWO, [2, 3], 100.0) == 3
    assert book.choose(TWO, [2], 100.0) is None
    assert book.choose(ONE, [2], 100.0) is None
    assert book.choose(ONE, [], 0.0) is None


def test_what_was_not_announced_is_given_again_in_twice_the_time() -> None:
    """Somebody else gets it when the first one has had twice the expected time, not a moment sooner."""
    book = given_to_one()
    due = EXPECTED_S_FIRST + LATE * EXPECTED_S_FIRST
    assert book.choose(TWO, [0], due - 0.001) is None
    assert book.choose(TWO, [0], due) == 0
    assert book.choose(TWO, [0, 1], due) == 1, "what nobody has comes first"


def test_what_was_announced_is_a_last_resort() -> None:
    """It is given again much later, because whoever announced it may have died; others' announcements do not count."""
    book = given_to_one()
    book.announced(TWO, 0, 0.0)
    assert book.choose(TWO, [0], EXPECTED_S_FIRST * (1 + LATE)) == 0
    book.announced(ONE, 0, EXPECTED_S_FIRST)
    book.announced(ONE, 7, EXPECTED_S_FIRST)
    due = EXPECTED_S_FIRST * (1 + LAST_RESORT)
    assert book.choose(TWO, [0], due - 0.001) is None
    assert book.choose(TWO, [0], due) == 0


def test_whoever_got_it_and_lacks_it_gets_it_again() -> None:
    """He threw it away, or began anew: he asks for it, so he does not have it."""
    book = given_to_one()
    assert book.choose(ONE, [0], EXPECTED_S_FIRST) == 0


def test_what_did_not_go_out_whole_was_never_given() -> None:
    """The next one gets it at once."""
    book = Spreading()
    book.began(0, ONE, 0.0)
    book.ended(0, ONE, 0.5, whole=False)
    assert not book.is_given(0)
    assert book.choose(TWO, [0], 0.5) == 0


@pytest.mark.parametrize("whole", [True, False])
def test_the_end_of_an_older_giving(whole: bool) -> None:
    """Whoever got it meanwhile keeps it."""
    book = given_to_one()
    book.began(0, TWO, 5.0)
    book.ended(0, ONE, 6.0, whole=whole)
    assert book.is_given(0)
    assert book.choose(ONE, [0], 1000.0) is None, "it is still being given to the other one"


@pytest.mark.parametrize(("seconds", "counted"), [(3.0, 3.0), (0.0, EXPECTED_S_MIN)])
def test_what_is_expected_follows_what_it_took(seconds: float, counted: float) -> None:
    """A moving average of the times until pieces were announced, each counted once, of no less than that takes."""
    book = given_to_one()
    book.began(1, TWO, 0.0)
    book.ended(1, TWO, 0.0, whole=True)
    book.announced(TWO, 1, seconds)
    book.announced(TWO, 1, 100.0)
    assert book.expected_s == pytest.approx(EXPECTED_S_FIRST + WEIGHT * (counted - EXPECTED_S_FIRST))
    due = EXPECTED_S_FIRST + LATE * book.expected_s
    assert book.choose(TWO, [0], due - 0.001) is None
    assert book.choose(TWO, [0], due + 0.001) == 0


class Book(RuleBasedStateMachine):
    """Any order of givings and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Spreading()
        self.now = 0.0
        self.under_way: list[tuple[int, NodeId]] = []

    @rule(asker=st.sampled_from([ONE, TWO]), lacks=st.lists(st.integers(0, 5), unique=True).map(sorted))
    def give(self, asker: NodeId, lacks: list[int]) -> None:
        index = self.book.choose(asker, lacks, self.now)
        free = [each for each in lacks if not self.book.is_given(each)]
        assert (index in lacks) if index is not None else not free
        if free:
            assert index == free[0]
        if index is not None:
            assert index not in [each for each, _ in self.under_way], "one giving of a piece at a time"
            self.book.began(index, asker, self.now)
            self.under_way.append((index, asker))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), whole=st.booleans())
    def end(self, data: st.DataObject, whole: bool) -> None:
        index, asker = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.book.ended(index, asker, self.now, whole=whole)
        assert self.book.is_given(index) == whole

    @rule(by=st.sampled_from([ONE, TWO]), index=st.integers(0, 5))
    def announce(self, by: NodeId, index: int) -> None:
        self.book.announced(by, index, self.now)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds


TestBook = Book.TestCase
