"""Promises of pacing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.wire.pacing import BURST_S, STEP_BYTES_MAX, STEP_BYTES_MIN, Pace


def test_the_rate_is_kept_over_time() -> None:
    """A thousand steps take as long as the rate says."""
    pace, now = Pace(1_000_000), 100.0
    for _ in range(1000):
        now = pace.grant(10_000, now)
    assert now - 100.0 == pytest.approx(10.0, abs=BURST_S + 0.01)


def test_idle_time_is_made_up_for_by_one_burst_only() -> None:
    """After an hour without a byte, the rate is still the rate."""
    pace = Pace(1_000_000)
    pace.grant(1, 0.0)
    granted = [pace.grant(10_000, 3600.0) for _ in range(100)]
    assert granted[0] == 3600.0
    assert granted[-1] == pytest.approx(3600.0 + 0.99 - BURST_S)


@given(st.integers(1, 10**12))
def test_steps_stay_within_their_bounds(rate: int) -> None:
    """Whatever the rate, a step is neither a crumb nor a mouthful."""
    assert STEP_BYTES_MIN <= Pace(rate).step_bytes <= STEP_BYTES_MAX
