"""`list`: which scenarios there are."""

from __future__ import annotations

import dataclasses
import json

import click

from p2pmirror.cli.text import table
from simulations import scenarios
from simulations.scenario import Scenario


@click.command("list", epilog="Example: python -m simulations list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_scenarios(*, as_json: bool) -> None:
    """List the scenarios: what they show, their nodes, what a run takes, their parameters."""
    found = scenarios.load()
    if as_json:
        print(json.dumps([_document(each) for each in found]))
        return
    rows = [(each.name, each.nodes, f"{each.seconds:g} s", each.shows) for each in found]
    print("\n".join(table(("SCENARIO", "NODES", "TAKES", "SHOWS"), rows)))
    for each in found:
        for field in dataclasses.fields(each.parameters):
            print(f"  {each.name} --set {field.name}={field.default}: {field.metadata['help']}")


def _document(each: Scenario) -> dict[str, object]:
    parameters = [
        {"name": field.name, "default": field.default, "help": field.metadata["help"]}
        for field in dataclasses.fields(each.parameters)
    ]
    return {
        "name": each.name,
        "shows": each.shows,
        "nodes": each.nodes,
        "seconds": each.seconds,
        "parameters": parameters,
    }
