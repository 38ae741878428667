"""`python -m soak`: some agents, random pulls, random faults, and nothing left behind.

Laws: one seed is one order of pulls and faults; exit codes are 0 all held, 1 something did not (stderr says what, and
the one command that replays it), 2 wrong arguments, 130 interrupted; nothing of a run stays unless a failed one is to
keep it.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from typing import Final

import click
import trio

from p2pmirror.demo.failed import DemoFailed
from p2pmirror.errors import MirrorError
from soak.cluster import Cluster
from soak.levels import Level, complaints
from soak.story import LAYERS, MOVED, Story, Violated

WARM_PART: Final = 0.15  # of the time is pulls without faults: what an agent uses then is what it may use afterwards
REST_S: Final = 20.0  # at most, until what a run used is free again
SAY_S: Final = 10.0
KEYS_PER_IMAGE: Final = 3  # its tag, its manifest, its layer; all have the same config
INTERRUPTED: Final = 130


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(5), default=600.0, show_default=True, help="how long to pull")
@click.option("--nodes", type=click.IntRange(4, 50), default=8, show_default=True, help="how many agents")
@click.option("--seed", type=click.IntRange(0), help="which pulls and faults  [default: drawn, and said]")
@click.option("--keep", is_flag=True, help="keep the agents' directories and logs when it fails, and say where")
def soak(seconds: float, nodes: int, seed: int | None, *, keep: bool) -> int:
    r"""Let real agents pull from one another under faults, then look whether anything was left behind.

    Agents are processes on loopback addresses: no root, nothing to install. They are killed, stopped, frozen, and lose
    and get images; readers leave; every byte is checked. Memory, descriptors, tasks and tables must be back afterwards.

    \b
    Example:
      python -m soak --seconds 60 --seed 7

    \b
    Exit codes:
      0  all held
      1  something did not: stderr says what and how to replay it
      2  wrong arguments
    """
    drawn = SystemRandom().randrange(1 << 32) if seed is None else seed
    directory = Path(tempfile.mkdtemp(prefix="p2pmirror-soak-"))
    say(f"{nodes} agents, {seconds:g} s, seed {drawn}")
    wrong = ["interrupted, or broken by a bug"]
    try:
        wrong = trio.run(_run, nodes, seconds, drawn, directory)
    finally:
        if not (wrong and keep):
            shutil.rmtree(directory, ignore_errors=True)
    if wrong:
        for line in wrong:
            print(f"violated: {line}", file=sys.stderr)
        print(f"replay: python -m soak --seconds {seconds:g} --nodes {nodes} --seed {drawn}", file=sys.stderr)
        if keep:
            print(f"kept: {directory}", file=sys.stderr)
    return 1 if wrong else 0


async def _run(nodes: int, seconds: float, seed: int, directory: Path) -> list[str]:
    """Run; return what did not hold."""
    cluster = Cluster(nodes, directory)
    story = Story(cluster, seed)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_say_now_and_then, story)
            wrong = await _told(cluster, story, seconds)
            nursery.cancel_scope.cancel()
    finally:
        cluster.kill()
        await cluster.client.aclose()
    return wrong


async def _told(cluster: Cluster, story: Story, seconds: float) -> list[str]:
    """Tell the story and compare levels; return what did not hold, with the ends of the logs when it was a pull."""
    wrong: list[str] = []
    try:
        await cluster.start()
        await story.prepare()
        await story.pull(seconds * WARM_PART)
        await trio.sleep(2)
        before = [await node.level() for node in cluster.nodes]
        say(f"warm: {_summary(before)}")
        await story.disturb(seconds * (1 - WARM_PART))
        say("faults are over")
        await story.all_right()
        wrong = await _compared(cluster, before, KEYS_PER_IMAGE * story.counts[MOVED])
    except* (Violated, DemoFailed, MirrorError) as group:
        wrong = [*map(str, _leaves(group)), *cluster.tails()]
    return wrong


async def _compared(cluster: Cluster, before: Sequence[Level], records_outlived: int) -> list[str]:
    """Compare until everything is back, at most `REST_S`."""
    with trio.move_on_after(REST_S):
        while True:
            after = [await node.level() for node in cluster.nodes]
            if not (wrong := complaints(before, after, records_outlived=records_outlived, kept=LAYERS)):
                break
            await trio.sleep(1)
    say(f"rest: {_summary(after)}")
    return wrong


def _summary(levels: Sequence[Level]) -> str:
    memory = max(level.memory_bytes for level in levels) / (1 << 20)
    descriptors, tasks = (max(getattr(level, name) for level in levels) for name in ("descriptors", "tasks"))
    return f"at most {memory:.0f} MiB, {descriptors:.0f} descriptors, {tasks:.0f} tasks an agent"


async def _say_now_and_then(story: Story) -> None:
    began = trio.current_time()
    while True:
        await trio.sleep(SAY_S)
        counts = ", ".join(f"{count} {name}" for name, count in sorted(story.counts.items()))
        say(f"{trio.current_time() - began:.0f} s: {counts}")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


def say(line: str) -> None:
    """Say how it goes."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell had it ignored
    try:
        return int(soak.main(arguments, prog_name="python -m soak", standalone_mode=False))
    except click.ClickException as error:
        print(f"error: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
