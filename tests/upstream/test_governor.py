"""Promises of the governor: when a registry is asked again, and what is kept of its quota."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.upstream.governor import FAILURE_S_MAX, LATE_S, LIMITED_S_MAX, PROBE_S, Governor
from p2pmirror.upstream.hints import RETRY_AFTER_S_MAX, Hints

COSTS = ("free", "document", "spare")


def governor(seed: int = 1) -> Governor:
    return Governor(Random(seed))


def quota(remaining: int, limit: int = 100) -> Hints:
    return Hints(200, limit, remaining, 21_600.0)


def test_nothing_is_held_back_at_first() -> None:
    """A registry of which nothing is known is asked, and taken for reachable."""
    new = governor()
    assert all(new.may_ask_at(cost) <= 0 for cost in COSTS)
    assert new.is_reachable
    assert new.remaining is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_is_asked_for_is_kept(status: int) -> None:
    """Until then nothing is asked, whatever it costs; that is the registry's wish, and no failure."""
    held = governor()
    held.answered(100.0, Hints(status, retry_after_s=90.0))
    assert all(held.may_ask_at(cost) == 190.0 for cost in COSTS)
    assert all(held.is_limited(cost) for cost in COSTS)


def test_a_429_without_a_wait_is_waited_out_longer_each_time() -> None:
    """Refusals in a row double the pause, up to ten minutes; an answer ends the row."""
    held = governor()
    pauses = []
    for _ in range(12):
        held.answered(0.0, Hints(429))
        pauses.append(held.may_ask_at("free"))
    assert 5 <= pauses[0] <= 10
    assert all(later >= earlier for earlier, later in pairwise(pauses))
    assert LIMITED_S_MAX / 2 <= pauses[-1] <= LIMITED_S_MAX
    held.answered(1000.0, Hints(200))
    held.answered(1000.0, Hints(429))
    assert held.may_ask_at("free") <= 1010


def test_failures_make_pauses_longer_up_to_a_minute() -> None:
    """Failures back off exponentially with jitter; one answer ends it, and the registry is reachable again."""
    failing = governor()
    now = 0.0
    for _ in range(12):
        failing.failed(now)
        assert not failing.is_reachable
        assert not failing.is_limited("free")
        pause = failing.may_ask_at("free") - now
        assert 0 < pause <= FAILURE_S_MAX
        now = failing.may_ask_at("free")
    assert pause >= FAILURE_S_MAX / 2
    failing.answered(now, Hints(404))
    assert failing.is_reachable
    assert failing.may_ask_at("document") <= now


def test_who_gave_up_waiting_spares_the_next_ones() -> None:
    """After a late answer there is a pause, then one question alone, however many gave up; one answer ends it."""
    late = governor()
    late.asks(0.0)
    assert late.may_ask_at("free") <= 0, "as long as all is well nobody waits for another's answer"
    for _ in range(20):
        late.late(2.0)
    assert (late.is_reachable, late.is_late) == (False, True)
    assert LATE_S / 2 <= late.may_ask_at("free") - 2.0 <= LATE_S
    now = late.may_ask_at("free")
    late.asks(now)
    assert late.may_ask_at("free") == now + PROBE_S
    late.late(now + 2.0)
    assert late.may_ask_at("free") - now - 2.0 >= LATE_S
    late.asks(100.0)
    late.answered(101.0, Hints(200))
    assert (late.is_reachable, late.is_late) == (True, False)
    assert late.may_ask_at("free") <= 101


def test_an_answer_ends_no_wait_that_was_asked_for() -> None:
    """A question that was under way before a 429 and succeeds after it does not cut its wait short."""
    held = governor()
    held.answered(0.0, Hints(429, retry_after_s=90.0))
    for now in (1.0, 2.0):
        held.answered(now, Hints(200))
        assert held.may_ask_at("free") == 90.0
        assert held.is_limited("free")


def test_a_status_of_500_is_a_failure() -> None:
    """A gateway's error is no answer of the registry's own; a refusal is one."""
    failing = governor()
    failing.answered(0.0, Hints(502))
    assert not failing.is_reachable
    assert failing.may_ask_at("free") > 0
    failing.answered(10.0, Hints(401))
    assert failing.is_reachable


def test_the_last_of_a_quota_is_kept_for_manifests() -> None:
    """With a tenth left only manifests are asked for; with nothing left, one when the window has moved on by one."""
    low = governor()
    low.answered(0.0, quota(11))
    assert all(low.may_ask_at(cost) <= 0 for cost in COSTS)
    low.answered(0.0, quota(10))
    assert low.may_ask_at("document") <= 0
    assert low.may_ask_at("spare") == 216.0
    assert low.is_limited("spare")
    low.answered(0.0, quota(0))
    assert low.may_ask_at("document") == 216.0
    assert low.may_ask_at("free") <= 0, "HEAD and blobs cost nothing"
    assert not low.is_limited("free")
    low.answered(50.0, quota(60))
    assert all(low.may_ask_at(cost) <= 50 for cost in COSTS)
    assert low.remaining == 60


def test_nodes_that_failed_together_do_not_come_back_together() -> None:
    """Chance spreads what a common failure has aligned."""
    pauses = set()
    for seed in range(20):
        failing = governor(seed)
        failing.failed(0.0)
        pauses.add(round(failing.may_ask_at("free"), 3))
    assert len(pauses) > 15


STEPS = st.one_of(
    st.none(),
    st.builds(
        Hints,
        st.sampled_from([200, 206, 401, 404, 429, 500, 503]),
        limit=st.none() | st.integers(0, 10**6),
        remaining=st.none() | st.integers(0, 10**6),
        window_s=st.none() | st.floats(1, 1e6),
        retry_after_s=st.none() | st.floats(0, RETRY_AFTER_S_MAX),
    ),
)


@given(st.lists(st.tuples(st.floats(0, 100), STEPS), max_size=30))
def test_whatever_happens_a_registry_is_asked_again(steps: list[tuple[float, Hints | None]]) -> None:
    """No row of answers and failures locks a registry out: free questions within an hour, and manifests never first."""
    held, now = governor(), 0.0
    for pause, hints in steps:
        now += pause
        held.failed(now) if hints is None else held.answered(now, hints)
        assert held.may_ask_at("free") <= now + RETRY_AFTER_S_MAX
        assert held.may_ask_at("free") <= held.may_ask_at("document")
