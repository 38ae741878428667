"""`swarm`: many seeds of many scenarios, each run in a process of its own.

Laws: one line a run, as it ends; a failure is never without the command that replays it; being interrupted ends every
process that was started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

import click
import trio

from simulations import scenarios
from simulations.commands.arguments import NODES, SEED_MAX, SET, scenario_named, settings_of
from simulations.playing import Run
from simulations.scenario import BadValue

STDERR_LINES = 12  # of a process that broke: its last words

_EXAMPLE = """\b
Example:
  python -m simulations swarm --seeds 20
  python -m simulations swarm join --seeds 100 --first 1000 --nodes 30
"""


@click.command(epilog=_EXAMPLE)
@click.argument("names", metavar="[SCENARIO]...", nargs=-1)
@click.option("--seeds", type=click.IntRange(1), required=True, metavar="K", help="How many seeds of each.")
@click.option(
    "--first", type=click.IntRange(0, SEED_MAX), default=1, show_default=True, metavar="S", help="The first seed."
)
@NODES
@SET
@click.option("--jobs", type=click.IntRange(1), metavar="J", help="Processes at a time; as many as there are cores.")
def swarm(
    *,
    names: tuple[str, ...],
    seeds: int,
    first: int,
    nodes: int | None,
    given: tuple[str, ...],
    jobs: int | None,
) -> int:
    """Run many seeds of some scenarios, or of all."""
    chosen = [scenario_named(name) for name in names] or scenarios.load()
    try:
        runs = [
            Run(each, each.nodes if nodes is None else nodes, seed, settings_of(given))
            for each in chosen
            for seed in range(first, first + seeds)
        ]
    except BadValue as error:
        raise click.UsageError(str(error)) from None
    began = time.monotonic()
    try:
        failed = trio.run(_all, runs, jobs or os.cpu_count() or 1)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None
    seconds = time.monotonic() - began
    print(f"{len(runs)} runs, {len(failed)} failed, {seconds:.0f} s", flush=True)
    for run in failed:
        print(f"FAILED {run.scenario.name} seed {run.seed}; replay: {run.replay()}")
    return 1 if failed else 0


async def _all(runs: Iterable[Run], jobs: int) -> list[Run]:
    """Run them, `jobs` at a time; return those that failed, in order."""
    limiter, failed = trio.CapacityLimiter(jobs), list[Run]()

    async def one(run: Run) -> None:
        async with limiter:
            if not await _one(run):
                failed.append(run)

    async with trio.open_nursery() as nursery:
        for run in runs:
            nursery.start_soon(one, run)
    return sorted(failed, key=lambda run: (run.scenario.name, run.seed))


async def _one(run: Run) -> bool:
    """Run one in a process of its own, print its line, and return whether all held. Cancellation ends the process."""
    began = time.monotonic()
    command = [sys.executable, "-m", "simulations", *run.arguments(), "--json", "--quiet"]
    done = await trio.run_process(
        command, stdin=subprocess.DEVNULL, capture_stdout=True, capture_stderr=True, check=False
    )
    document = _last_object(done.stdout.decode(errors="replace"))
    ok = done.returncode == 0 and bool(document.get("ok"))
    head = f"{'ok    ' if ok else 'FAILED'} {run.scenario.name} nodes {run.nodes} seed {run.seed}"
    took = f"{document.get('seconds_virtual', 0):.1f} s virtual, {time.monotonic() - began:.1f} s real"
    print(f"{head}: {took}, trace {document.get('trace_digest', 'none')}")
    if not ok:
        said = done.stderr.decode(errors="replace").splitlines()[-STDERR_LINES:]
        print("\n".join(f"    {line}" for line in said or [f"the process ended with {done.returncode}"]))
    sys.stdout.flush()
    return ok


def _last_object(text: str) -> dict[str, Any]:
    """Return the JSON object on the last line; an empty one when there is none."""
    try:
        value = json.loads(text.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return value if isinstance(value, dict) else {}
