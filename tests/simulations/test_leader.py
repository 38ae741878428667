"""Promises of leadership in simulated clusters: one leads, and after its death the next one."""

import pytest

from simulations import scenarios
from simulations.playing import Outcome, Run, play


def played(nodes: int, seed: int, **given: str) -> Outcome:
    scenario = scenarios.find("leader")
    assert scenario is not None
    outcome = play(Run(scenario, nodes, seed, given))
    assert outcome.ok, outcome.violated or outcome.error
    return outcome


@pytest.mark.parametrize(
    ("nodes", "given"),
    [
        (3, {}),
        (12, {"loss": "0"}),
        (12, {"loss": "0.2"}),
        (12, {"reported": "true"}),
        (12, {"seeds": "3"}),
        (12, {"seeds": "12", "loss": "0"}),
        (12, {"dies": "false", "within_s": "3"}),
        pytest.param(300, {}, marks=pytest.mark.long),
    ],
)
def test_one_leads_and_the_next_one_after_its_death(nodes: int, given: dict[str, str]) -> None:
    """Small clusters, with losses and seeds, reported deaths and unreported ones; the scenario's checks hold."""
    outcome = played(nodes, 1, **given)
    assert outcome.figures["leaders_granted"] >= 1
    assert (outcome.figures["leaders_granted_after_the_death"] == 0) == (given.get("dies") == "false")
    assert outcome.figures["wants"] >= nodes


def test_a_reported_death_costs_no_lease() -> None:
    """Where those who follow report that their leader cannot be dialled, the next one leads within a second."""
    for seed in range(1, 4):
        assert played(12, seed, reported="true", loss="0").figures["seconds_until_the_next_leads"] < 1.0


@pytest.mark.parametrize("seeds", [6, pytest.param(100, marks=pytest.mark.long)])
def test_losses_make_few_further_leaders(seeds: int) -> None:
    """With a twentieth of the datagrams lost, a key has 1.05 leaders in the mean, at first and after a death."""
    figures = [played(20, seed).figures for seed in range(1, seeds + 1)]
    for name in ("leaders_granted", "leaders_granted_after_the_death"):
        assert sum(each[name] for each in figures) <= 1.05 * seeds
