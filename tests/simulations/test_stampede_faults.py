"""Promises of stampedes in which something fails, stalls or lies: the right bytes everywhere, soon, of few copies."""

from __future__ import annotations

import pytest

from simulations import scenarios
from simulations.playing import Outcome, Run, play
from simulations.scenarios.stampede_faults import FAULTS

SMALL = {"pieces": "8", "piece_bytes": "65536"}
LARGER = {"pieces": "16", "piece_bytes": "131072"}
CHEAP = ["leader-killed", "leader-lies-bytes-and-hashes", "peers-lies-hashes", "leader-lies-size"]


def played(fault: str, nodes: int, seed: int = 1, **given: str) -> Outcome:
    scenario = scenarios.find("faulty-stampede")
    assert scenario is not None
    run = Run(scenario, nodes, seed, {"fault": fault, **given})
    outcome = play(run)
    assert outcome.ok, f"{outcome.violated or outcome.error}: {run.replay()}"
    return outcome


@pytest.mark.parametrize("fault", CHEAP)
def test_a_small_stampede_gets_over(fault: str) -> None:
    """The scenario's checks hold with three nodes, and its figures say how near to the optimum they came."""
    figures = played(fault, 3, **SMALL).figures
    assert figures["failed"] == 0
    assert 0 < figures["efficiency"]["max"] <= figures["efficiency"]["p50"] <= 1
    assert figures["upstream_copies"] >= 1


def test_whom_a_leader_gives_nothing() -> None:
    """One of them goes to the registry, and leads the others: two copies, and not one for each."""
    assert played("leader-lies-nothing", 5, at="0.0", copies_max="2.1", **SMALL).figures["upstream_copies"] == 2


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_any_fault(fault: str) -> None:
    """Whatever fails, at the beginning, in the middle or near the end, the scenario's checks hold with eight nodes."""
    for at in ("0.0", "0.4", "0.9"):
        for seed in (1, 2):
            outcome = played(fault, 8, seed, at=at, **LARGER)
            assert outcome.figures["failed"] == 0 or fault == "registry-gone"


@pytest.mark.long
@pytest.mark.parametrize("fault", ["leader-killed", "leader-unplugged", "leader-lies-nothing"])
@pytest.mark.parametrize("at", [f"{tenth / 10}" for tenth in range(11)])
def test_the_leader_fails_at_any_tenth(fault: str, at: str) -> None:
    """Wherever in the transfer it does, the others get all of it: what was given is kept, and the rest fetched."""
    for seed in (1, 2, 3):
        played(fault, 8, seed, at=at, **LARGER)


@pytest.mark.long
@pytest.mark.parametrize("lie", ["bytes-and-hashes", "hashes", "size", "nothing"])
def test_a_third_of_the_peers_lies(lie: str) -> None:
    """Several who tell the same lie keep nobody from the right bytes."""
    for seed in (1, 2, 3):
        played(f"peers-lies-{lie}", 9, seed, liars="3", at="0.1", **LARGER)
