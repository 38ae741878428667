"""Scenarios that only tests play, and how they play them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from simulations.playing import Outcome, Run, play
from simulations.scenario import Scenario, parameter
from simulations.world import Simulation


@dataclass(frozen=True)
class Parameters:
    """One of each type."""

    count: int = parameter(3, "a number", low=1, high=9)
    seconds: float = parameter(1.5, "seconds", low=0)
    loud: bool = parameter(default=False, help="a switch")
    word: str = parameter("quiet", "a word")


def scenario_of(story: Callable[[Simulation, Any], Awaitable[Mapping[str, Any]]], **rest: Any) -> Scenario:
    """Return a scenario around a story, which is not registered."""
    return Scenario("test", "Nothing.", nodes=3, seconds=1, story=story, parameters=Parameters, **rest)


def told(
    story: Callable[[Simulation, Any], Awaitable[Mapping[str, Any]]], *, nodes: int = 3, seed: int = 1, **rest: Any
) -> Outcome:
    """Play a story."""
    return play(Run(scenario_of(story, **rest), nodes, seed))


def figures(story: Callable[[Simulation, Any], Awaitable[Any]], *, nodes: int = 3, seed: int = 1) -> Any:
    """Play a story that must end well; return what it returned."""
    kept: list[Any] = []

    async def keeping(sim: Simulation, parameters: Any) -> Mapping[str, Any]:
        kept.append(await story(sim, parameters))
        return {}

    outcome = told(keeping, nodes=nodes, seed=seed)
    if outcome.error is not None or outcome.violated is not None:
        raise outcome.error or outcome.violated  # type: ignore[misc]  # one of them is there
    return kept[0]
