"""The scenario `lookups`, at sizes that take a second or two."""

from typing import Any

import pytest

from simulations.playing import Run, play
from simulations.scenarios import find


def played(nodes: int, seed: int = 1, **given: str) -> dict[str, Any]:
    scenario = find("lookups")
    assert scenario is not None
    outcome = play(Run(scenario, nodes, seed, {"lookups": "60", "keys": "30", **given}))
    assert outcome.ok, outcome.document()
    return outcome.document()


@pytest.mark.parametrize("dead", ["0", "0.3"])
def test_a_small_cluster_has_the_hops_of_theory(dead: str) -> None:
    """Of nodes that know one another every lookup is as long as in theory, and finds what the living have."""
    figures = played(40, dead=dead)
    assert figures["hops_mean"] == figures["hops_mean_theory"]
    assert figures["found_share"] == 1
    assert figures["first_ms_p99"] < 50


def test_the_papers_numbers_can_be_set() -> None:
    """With k and r of the paper tables are small, records are at 20 nodes, and the published hops stand beside."""
    figures = played(50, dead="0", k="20", r="20")
    assert figures["hops_mean_reference"] == 0.59
    assert figures["hops_mean"] == pytest.approx(0.59, rel=0.3)
    assert 20 <= figures["contacts_mean"] < 49
    assert figures["questions_per_trace"] > 15


def test_few_nodes_are_all_holders() -> None:
    """In a cluster of as many nodes as a key has holders nobody needs to ask."""
    assert played(8, dead="0")["hops_mean"] == 0


def test_ideal_tables_can_be_given_instead_of_joining() -> None:
    """Nodes that begin with ideal tables find what others have, also where nobody knows everybody."""
    figures = played(60, dead="0", k="8", join="false")
    assert figures["contacts_mean"] < 45
    assert figures["found_share"] == 1
    assert figures["hops_ratio"] == pytest.approx(1, abs=0.15)
