"""Promises of the plan: who is asked when, and when a race is lost."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.resolve.plan import BUSY_S, Plan
from p2pmirror.routing.protocol import Provider
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId


def provider(number: int) -> Provider:
    return Provider(NodeId(bytes([number]) * 20), Address("10.0.0.1", number))


def plan(now: float = 0.0, asks_max: int = 3) -> Plan:
    return Plan(now=now, asks_max=asks_max, dial_gap_s=0.05, first_provider_s=0.03, head_s=1.0, pick=lambda _: 0)


def test_the_first_provider_is_asked_at_once() -> None:
    """Nothing is waited for when somebody is known."""
    race = plan()
    race.learnt(provider(1))
    assert race.next_ask(0.0) == provider(1)


def test_the_next_one_is_asked_after_the_gap() -> None:
    """A second dial is for a first one that is slow."""
    race = plan()
    race.learnt(provider(1))
    race.learnt(provider(2))
    race.next_ask(0.0)
    assert race.next_ask(0.04) is None
    assert race.wakes_at() == 0.05
    assert race.next_ask(0.05) == provider(2)


def test_after_a_failure_the_next_one_is_asked_at_once() -> None:
    """A refused dial costs no time."""
    race = plan()
    race.learnt(provider(1))
    race.learnt(provider(2))
    race.next_ask(0.0)
    race.failed(provider(1))
    assert race.next_ask(0.01) == provider(2)


def test_a_provider_counts_once() -> None:
    """Learning the same one from two holders does not ask it twice."""
    race = plan()
    race.learnt(provider(1))
    race.learnt(provider(1))
    race.next_ask(0.0)
    race.failed(provider(1))
    race.learnt(provider(1))
    assert race.next_ask(0.5) is None


def test_nobody_known_in_time_is_a_lost_race() -> None:
    """A miss costs `first_provider_s` at most, and less when the lookup has ended before."""
    race = plan()
    assert not race.lost(0.029)
    assert race.wakes_at() == 0.03
    assert race.lost(0.03)
    early = plan()
    early.lookup_ended()
    assert early.lost(0.001)


def test_somebody_who_is_being_checked_is_waited_for() -> None:
    """A provider that is named but was not heard lately is no miss after 30 ms; the end of the lookup decides."""
    race = plan()
    race.hoped()
    assert not race.lost(0.05)
    assert race.wakes_at() == 1.0
    race.lookup_ended()
    assert race.lost(0.05)
    found = plan()
    found.hoped()
    found.learnt(provider(1))
    assert found.next_ask(0.06) == provider(1)


def test_a_known_provider_keeps_the_race_alive_after_the_first_deadline() -> None:
    """An answer may take longer than the knowledge of whom to ask."""
    race = plan()
    race.learnt(provider(1))
    race.next_ask(0.0)
    assert not race.lost(0.5)
    assert race.wakes_at() == 1.0
    assert race.lost(1.0)


def test_all_failed_is_lost_only_when_no_more_can_come() -> None:
    """While the lookup goes on somebody may still turn up."""
    race = plan()
    race.learnt(provider(1))
    race.next_ask(0.0)
    race.failed(provider(1))
    assert not race.lost(0.02)
    race.lookup_ended()
    assert race.lost(0.02)


def test_a_waiting_provider_keeps_the_race_alive() -> None:
    """The end of the lookup does not matter while somebody is left to ask."""
    race = plan()
    race.learnt(provider(1))
    race.lookup_ended()
    assert not race.lost(0.1)


def test_no_more_than_the_allowed_number_is_asked() -> None:
    """`mirror_resolve_retries` bounds the work that a single want makes."""
    race = plan(asks_max=2)
    for number in (1, 2, 3):
        race.learnt(provider(number))
    for number in (1, 2):
        assert race.next_ask(number / 10) is not None
        race.failed(provider(number))
    assert race.next_ask(0.5) is None
    assert race.lost(0.5)
    assert race.wakes_at() == 1.0


def test_nobody_is_asked_at_the_deadline() -> None:
    """An ask that cannot be answered in time is not begun."""
    race = plan()
    race.learnt(provider(1))
    assert race.next_ask(1.0) is None


@given(
    st.lists(
        st.one_of(st.tuples(st.just("learn"), st.integers(1, 6)), st.just(("end", 0)), st.just(("fail", 0))),
        max_size=30,
    )
)
def test_every_race_ends(events: list[tuple[str, int]]) -> None:
    """Whatever happens, following `wakes_at` reaches the end of the race by its deadline, asking nobody twice."""
    race, now, asked = plan(), 0.0, []
    for event, number in [*events, *[("wait", 0)] * 60]:
        if race.lost(now):
            break
        match event:
            case "learn":
                race.learnt(provider(number))
            case "end":
                race.lookup_ended()
            case "fail" if asked:
                race.failed(asked[-1])
            case "wait":
                assert now <= race.wakes_at() < inf
                now = race.wakes_at()
        while (chosen := race.next_ask(now)) is not None:
            asked.append(chosen)
    assert race.lost(now)
    assert now <= 1.0
    assert len(asked) == len(set(asked)) <= 3


def test_who_is_busy_is_asked_again() -> None:
    """Not at once but soon, again and again until the race ends, and as often as it takes."""
    race = plan(asks_max=1)
    race.learnt(provider(1))
    race.lookup_ended()
    assert race.next_ask(0.0) == provider(1)
    for moment in (0.0, BUSY_S, 2 * BUSY_S):
        race.busy(provider(1), moment)
        assert race.next_ask(moment) is None
        assert not race.lost(moment)
        assert race.wakes_at() == moment + BUSY_S
        assert race.next_ask(moment + BUSY_S) == provider(1)
        assert not race.lost(moment + BUSY_S)
    race.busy(provider(1), 0.9)
    assert race.next_ask(1.0) is None
    assert race.lost(1.0)


def test_while_one_is_busy_another_one_is_asked() -> None:
    """At once; and whoever is not busy comes before one who was."""
    race = plan()
    race.learnt(provider(1))
    assert race.next_ask(0.0) == provider(1)
    race.busy(provider(1), 0.01)
    race.learnt(provider(2))
    assert race.next_ask(0.01) == provider(2)
    race.learnt(provider(3))
    assert race.next_ask(0.5) == provider(3)
    assert race.next_ask(0.5) == provider(1)
