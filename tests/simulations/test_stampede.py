"""Promises of stampedes in simulated clusters: one copy for all, and not far from the optimum."""

import os
import subprocess
import sys

import pytest

from simulations import scenarios
from simulations.playing import Outcome, Run, play


def played(name: str, pieces: int = 16, **settings: str) -> Outcome:
    scenario = scenarios.find(name)
    assert scenario is not None
    outcome = play(Run(scenario, 4, 1, {"pieces": str(pieces), **settings}))
    assert outcome.ok, outcome.violated or outcome.error
    return outcome


@pytest.mark.parametrize("name", ["cold-stampede", "warm-stampede"])
def test_one_copy_soon_everywhere(name: str) -> None:
    """The registry sends it once, and half the nodes take at most a quarter more than the optimum.

    It is asked once for the tag, once for its manifest and once for the layer; once more for the tag when it is gone.
    """
    outcome = played(name)
    assert outcome.figures["upstream_manifests"] == 1
    if name == "cold-stampede":
        assert outcome.figures["upstream_tags"] == 1
        assert outcome.figures["upstream_requests"] == 3
    assert outcome.figures["upstream_copies"] <= 1.05
    assert outcome.figures["efficiency"]["p50"] >= 0.8


def test_slow_disks_make_nobody_a_liar() -> None:
    """Who takes long to make room is told of pieces before he can tell of any, and is believed by all afterwards."""
    outcome = played("cold-stampede", room_s="2", stagger_s="0.2")
    assert outcome.figures["efficiency"]["p50"] >= 0.5


def test_a_stampede_is_the_same_in_any_process() -> None:
    """Flights, pieces and a registry over HTTP: another process, some seconds later, sees the same, to the byte."""
    code = "from tests.simulations.test_stampede import played; print(played('cold-stampede', 4).trace_digest)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == played("cold-stampede", 4).trace_digest


def test_late_nodes_take_it_from_all_who_have_it() -> None:
    """Starts five seconds apart: nobody shares one giver with others who take pieces of him (30 s for one of eight)."""
    scenario = scenarios.find("cold-stampede")
    assert scenario is not None
    outcome = play(Run(scenario, 8, 1, {"pieces": "64", "piece_bytes": "65536", "stagger_s": "5"}))
    assert outcome.ok, outcome.violated or outcome.error
    assert outcome.figures["upstream_copies"] <= 1.05
    assert outcome.figures["seconds_max"] < 27.5


@pytest.mark.long
@pytest.mark.parametrize("at_once", ["3", "4"])
def test_four_layers_at_once(at_once: str) -> None:
    """Streams that are being opened and pieces that are given or asked for do not get in each other's way.

    Nodes that pull three of them take all the same three first, as containerd does, and lose nothing by it.
    """
    scenario = scenarios.find("cold-stampede")
    assert scenario is not None
    outcome = play(Run(scenario, 8, 1, {"layers": "4", "pieces": "16", "at_once": at_once}))
    assert outcome.ok, outcome.violated or outcome.error
    assert outcome.figures["upstream_copies"] <= 1.05
    assert outcome.figures["efficiency"]["max"] >= 0.7
