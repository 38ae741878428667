"""Small attacks, so that what the scenarios promise is looked at on every run of the tests."""

import pytest

from simulations.playing import Outcome, Run, play
from simulations.scenarios import find


def attacked(name: str, nodes: int, seed: int = 1, **parameters: str) -> Outcome:
    scenario = find(name)
    assert scenario is not None
    outcome = play(Run(scenario, nodes, seed, parameters))
    if outcome.error is not None or outcome.violated is not None:
        raise outcome.error or outcome.violated  # type: ignore[misc]  # one of them is there
    return outcome


@pytest.mark.parametrize("key", ["false", "true"])
def test_one_liar_leads_nobody_astray(key: str) -> None:
    """A member whose every word is a lie keeps nobody from finding what there is, and drives nobody out."""
    outcome = attacked("liars", 20, key=key, seconds="5")
    assert outcome.figures["found_percent_during"] == 100
    assert outcome.figures["adversaries_per_lookup_during"] > 0  # type: ignore[operator]  # it was heard
    assert outcome.figures["named_address_bytes"] < outcome.figures["lies_bytes"]  # type: ignore[operator]


def test_a_third_of_liars_is_forgotten_when_it_is_gone() -> None:
    """Whatever many liars do, nobody is handed out where nobody is, and soon after them all is as before."""
    outcome = attacked("liars", 12, liars="6", seconds="4")
    assert outcome.figures["lookups_during"] > 10  # type: ignore[operator]


def test_garbage_costs_time_and_no_more() -> None:
    """Members that answer garbage keep nobody from finding what there is."""
    assert attacked("garbage", 20, bad="2", seconds="5").figures["found_percent_during"] == 100


@pytest.mark.parametrize(("key", "member"), [("false", "false"), ("true", "false"), ("true", "true")])
def test_a_flood_is_borne(key: str, member: str) -> None:
    """A flood fills nothing, is not echoed, and is over when it ends; a stranger to the key gets no answer at all."""
    figures = attacked("floods", 8, key=key, member=member, seconds="2").figures
    assert figures["found_percent_during"] == 100
    assert (figures["answered_bytes"] == 0) == (key == "true" and member == "false")
    assert figures["sent_to_the_named_bytes"] < 1.5 * figures["named_in_datagrams_of_bytes"]  # type: ignore[operator]


@pytest.mark.parametrize("key", ["false", "true"])
def test_what_was_overheard_is_worth_little(key: str) -> None:
    """Copies of everything, now, a minute later and after restarts, bring back nothing that has ended."""
    assert attacked("replays", 6, key=key).figures["overheard"] > 100  # type: ignore[operator]


def test_an_attack_is_the_same_attack_again() -> None:
    """The same seed gives the same digest."""
    one, other = (attacked("garbage", 5, bad="1", seconds="1") for _ in range(2))
    assert one.trace_digest == other.trace_digest
