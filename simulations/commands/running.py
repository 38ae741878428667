"""`run`: one scenario, once."""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from p2pmirror.cli.text import size, table
from simulations.commands.arguments import NODES, SEED_MAX, SET, scenario_named, settings_of
from simulations.commands.progress import Progress
from simulations.playing import Outcome, Run, play
from simulations.scenario import BadValue

_EXAMPLE = """\b
Example:
  python -m simulations run join --nodes 100 --seed 7
  python -m simulations run join --set within_s=1 --json
"""


@click.command(epilog=_EXAMPLE)
@click.argument("name", metavar="SCENARIO")
@NODES
@click.option("--seed", type=click.IntRange(0, SEED_MAX), default=1, show_default=True, help="All chance is its.")
@SET
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout.")
@click.option("--quiet", is_flag=True, help="Do not show how far it is.")
@click.option("--trace", "trace_file", type=click.Path(path_type=Path), help="Write a line for each event.")
def run(
    name: str,
    nodes: int | None,
    seed: int,
    given: tuple[str, ...],
    *,
    as_json: bool,
    quiet: bool,
    trace_file: Path | None,
) -> int:
    """Run a scenario and show its figures."""
    scenario = scenario_named(name)
    try:
        what = Run(scenario, scenario.nodes if nodes is None else nodes, seed, settings_of(given))
    except BadValue as error:
        raise click.UsageError(str(error)) from None
    with ExitStack() as closing:
        lines = closing.enter_context(_opened(trace_file)) if trace_file is not None else None
        progress = None if quiet else closing.enter_context(Progress(scenario.name, sys.stderr))
        outcome = play(what, lines=lines, watch=progress.show if progress is not None else None)
    print("\n".join([json.dumps(outcome.document())] if as_json else for_people(outcome)))
    if not outcome.ok:
        print("\n".join(complaint(outcome)), file=sys.stderr)
    return 0 if outcome.ok else 1


def _opened(path: Path) -> Any:
    try:
        return path.open("w")
    except OSError as error:
        raise click.UsageError(f"--trace: {path} cannot be written ({error.strerror})") from None


def for_people(outcome: Outcome) -> list[str]:
    """Return the lines of a table of an outcome's figures."""
    what = outcome.run
    rows: list[tuple[str, str]] = [
        ("virtual time", f"{outcome.seconds_virtual:.3f} s"),
        ("real time", f"{outcome.seconds_real:.1f} s"),
        ("memory", size(outcome.memory_bytes)),
        ("datagrams", f"{outcome.datagrams:,} of {size(outcome.datagram_bytes)}"),
        ("trace digest", outcome.trace_digest),
    ]
    rows += [(name.replace("_", " "), str(figure)) for name, figure in outcome.figures.items()]
    rows += [(name, f"held {looks} {'time' if looks == 1 else 'times'}") for name, looks in outcome.checks.items()]
    head = f"{what.scenario.name}: {what.nodes} nodes, seed {what.seed}"
    return [head, *(f"  {line}" for line in table(("", ""), rows)[1:])]


def complaint(outcome: Outcome) -> list[str]:
    """Return the lines that say what did not hold, when, and how to see it again."""
    what = outcome.run
    lines = [f"FAILED: {what.scenario.name}, {what.nodes} nodes, seed {what.seed}, at {outcome.seconds_virtual:.6f} s"]
    if outcome.violated is not None:
        lines += [f"violated: {outcome.violated.check}", f"seen: {outcome.violated.detail}"]
        cause = outcome.violated.__cause__
        lines += "".join(traceback.format_exception(cause)).splitlines() if cause is not None else []
    elif outcome.error is not None:
        lines += "".join(traceback.format_exception(outcome.error)).splitlines()
    return [*lines, f"replay: {what.replay()}"]
