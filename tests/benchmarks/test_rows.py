"""The figures of the bench: budgets, ratios, turns and the table."""

import itertools

from benchmarks.rows import Budget, Row, compared, table, turns


def test_a_ratio_is_held_to_a_budget_of_ratios():
    """A budget of ratios looks at ours over the peer's, and at nothing when there is no peer."""
    budget = Budget(">=", 0.9, of="ratio")
    assert Row("r", "GiB/s", 0.95, 1.0, budget).met is True
    assert Row("r", "GiB/s", 0.85, 1.0, budget).met is False
    assert Row("r", "GiB/s", 0.95, None, budget).met is None


def test_a_figure_is_held_to_a_budget_of_figures():
    """Bounds are included, and a row without a figure has met nothing."""
    budget = Budget("<=", 5)
    assert [Row("r", "ms", ours, budget=budget).met for ours in (4.9, 5.0, 5.1, None)] == [True, True, False, None]


def test_turns_alternate_and_the_first_does_not_count():
    """Sides are measured A B A B; the first turn of each warms up."""
    calls = []
    numbers = itertools.count()

    def side(name):
        calls.append(name)
        return next(numbers)

    ours, peer = turns(2, lambda: side("ours"), lambda: side("peer"))
    assert calls == ["ours", "peer"] * 3
    assert (ours, peer) == ([2, 4], [3, 5])


def test_without_a_peer_only_ours_is_measured():
    """A row without a peer has no ratio, and takes half the time."""
    numbers = itertools.count()
    assert turns(2, lambda: next(numbers), None) == ([1, 2], [])


def test_a_compared_row_has_the_medians_and_says_the_spread():
    """One odd turn changes the spread that is told, not the figure."""
    row = compared(Row("r", "GiB/s", note="how"), [1.0, 2.0, 90.0], [4.0, 1.0, 5.0])
    assert (row.ours, row.peer, row.ratio) == (2.0, 4.0, 0.5)
    assert row.note == "how; ours 1 to 90, peer 1 to 5"


def test_the_table_is_markdown_and_says_what_is_not_met():
    """Every line has the same columns; a missed budget stands out; notes stand below under their number."""
    lines = table([Row("a", "ms", 6, budget=Budget("<=", 5), note="so"), Row("b", "", None)]).splitlines()
    assert {line.count("|") for line in lines[:4]} == {8}
    assert "NO" in lines[2]
    assert "a (1)" in lines[2]
    assert lines[-1] == "1. so"
