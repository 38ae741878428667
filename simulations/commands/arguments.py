"""What the commands read from their arguments: scenarios, seeds, parameters."""

from __future__ import annotations

import click

from simulations import scenarios
from simulations.scenario import Scenario

SEED_MAX = 2**63 - 1  # what every reader of JSON takes for a whole number


def scenario_named(name: str) -> Scenario:
    """Return the scenario of this name. Raises `click.UsageError` when there is none."""
    found = scenarios.find(name)
    if found is None:
        names = ", ".join(each.name for each in scenarios.load())
        raise click.UsageError(f"there is no scenario {name}; there are {names}")
    return found


def settings_of(texts: tuple[str, ...]) -> dict[str, str]:
    """Read KEY=VALUE texts. Raises `click.UsageError` for what is none."""
    pairs = [text.partition("=") for text in texts]
    for text, (key, equals, _) in zip(texts, pairs, strict=True):
        if not key or not equals:
            raise click.UsageError(f"--set {text}: write KEY=VALUE")
    return {key: value for key, _, value in pairs}


NODES = click.option("--nodes", type=click.IntRange(1), metavar="N", help="How many nodes; a scenario has its number.")
SET = click.option("--set", "given", multiple=True, metavar="KEY=VALUE", help="A parameter; `list` names them.")
