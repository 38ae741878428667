"""Promises of stampedes in simulated clusters: one copy for all, and not far from the optimum."""

import pytest

from simulations import scenarios
from simulations.playing import Outcome, Run, play


def played(name: str) -> Outcome:
    scenario = scenarios.find(name)
    assert scenario is not None
    outcome = play(Run(scenario, 4, 1, {"pieces": "16"}))
    assert outcome.ok, outcome.violated or outcome.error
    return outcome


@pytest.mark.parametrize("name", ["cold-stampede", "warm-stampede"])
def test_one_copy_soon_everywhere(name: str) -> None:
    """The registry sends it once, and half the nodes take at most twice the optimum."""
    outcome = played(name)
    assert outcome.figures["upstream_copies"] <= 1.05
    assert outcome.figures["efficiency"]["p50"] >= 0.5
