"""Promises of the judgement on what a source delivers."""

from math import inf

import pytest

from p2pmirror.resolve.delivery import GIVE_UP_S, RATE_MIN, SAMPLES_MAX, SLOW_PART, SLOW_S, STALL_S, Delivery, State

STEP_S = 0.5


def delivered(
    rate: float, seconds: float, *, waited: float = 1.0, usual: float | None = None
) -> tuple[Delivery, State]:
    """Deliver at `rate` per second of waiting, which takes that part of the time; look each half second."""
    delivery, now = Delivery(), 0.0
    state: State = "good"
    while now < seconds:
        delivery.waits(now)
        now += STEP_S * waited
        delivery.ends_waiting(now, int(rate * STEP_S * waited))
        now += STEP_S * (1 - waited)
        state = delivery.look(now, usual)
    return delivery, state


def test_nothing_for_a_second_is_a_stall() -> None:
    """Not a moment before, and not when nothing is waited for."""
    delivery = Delivery()
    assert delivery.look(100.0, None) == "good"
    delivery.waits(100.0)
    assert delivery.look(100.0 + STALL_S - 0.01, None) == "good"
    assert delivery.look(100.0 + STALL_S, None) == "stalls"
    delivery.ends_waiting(101.5, 1)
    assert delivery.look(110.0, None) == "good"


@pytest.mark.parametrize(
    ("rate", "usual", "expected"),
    [
        (RATE_MIN - 100, None, "drips"),
        (RATE_MIN + 100, None, "good"),
        (10 * RATE_MIN, 9 * SLOW_PART * RATE_MIN, "good"),
        (10 * RATE_MIN, 11 * SLOW_PART * RATE_MIN, "slow"),
        (RATE_MIN - 100, 11 * SLOW_PART * RATE_MIN, "drips"),
    ],
)
def test_a_rate_is_judged_over_two_seconds(rate: float, usual: float | None, expected: State) -> None:
    """Against a floor, and against what is usual."""
    assert delivered(rate, SLOW_S + 1, usual=usual)[1] == expected
    assert delivered(rate, SLOW_S - 0.5, usual=usual)[1] == "good"


def test_a_client_that_takes_its_time_is_not_counted() -> None:
    """A source that is waited for a hundredth of the time is judged after two hundred seconds, by what it gave then."""
    assert delivered(RATE_MIN / 2, 100, waited=0.01)[1] == "good"
    assert delivered(RATE_MIN / 2, 300, waited=0.01)[1] == "drips"
    assert delivered(100 * RATE_MIN, 300, waited=0.01)[1] == "good"


def test_next_to_nothing_for_ten_seconds_is_hopeless() -> None:
    """Whether nothing comes or little; a quick beginning is forgotten."""
    silent = Delivery()
    silent.waits(0.0)
    assert not silent.is_hopeless(GIVE_UP_S - 0.1)
    assert silent.is_hopeless(GIVE_UP_S)
    dripping, _ = delivered(RATE_MIN / 2, GIVE_UP_S + 1)
    assert dripping.is_hopeless(GIVE_UP_S + 1)
    assert not delivered(RATE_MIN * 2, GIVE_UP_S + 1)[0].is_hopeless(GIVE_UP_S + 1)
    assert not delivered(RATE_MIN / 2, GIVE_UP_S - 1)[0].is_hopeless(GIVE_UP_S - 1)


def test_the_rest_is_computed_from_the_present_rate() -> None:
    """For ever when nothing is known, or nothing comes."""
    assert Delivery().rest_s(1, 0.0) == inf
    assert delivered(0, 5)[0].rest_s(1, 5.0) == inf
    assert delivered(1000, 5)[0].rest_s(5000, 5.0) == pytest.approx(5.0, rel=0.1)


def test_memory_is_bounded() -> None:
    """A day of dripping keeps no more samples than ten seconds."""
    delivery, _ = delivered(1, 10_000)
    assert len(delivery._samples) == SAMPLES_MAX


def test_who_waits_for_nothing_owes_nothing() -> None:
    """A wait that has ended ends once: bytes are counted for no second one."""
    delivery = Delivery()
    delivery.waits(0.0)
    delivery.ends_waiting(1.0, 1000)
    delivery.ends_waiting(9.0, 5000)
    delivery.waits(9.0)
    assert delivery.look(9.5, None) == "good"
    assert not delivery.is_hopeless(9.5)
    assert delivery.rest_s(1000, 9.5) == inf, "only a second and a half was waited for"
