"""`python -m soak`: it ends well on a sound agent, and says what is wrong and how to replay it otherwise."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from soak.levels import SLACK, Level, complaints

ROOT = Path(__file__).parents[2]
AT_REST = Level(45e6, 12, 20, 0, 7, 100, 10)


def run(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soak", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.long)])
def test_nothing_is_left_behind(seconds: int) -> None:
    """After some seconds of pulls and faults every byte was right and everything is back where it was."""
    done = run("--seconds", str(seconds), "--nodes", "4", timeout_s=seconds + 150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "faults are over" in done.stdout
    assert done.stderr == ""


def test_wrong_arguments() -> None:
    """They are one line and exit code 2; --help names the exit codes and an example."""
    done = run("--nodes", "1", timeout_s=30)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    shown = run("--help", timeout_s=30)
    assert shown.returncode == 0
    for said in ("--seed", "Example", "Exit codes"):
        assert said in shown.stdout


@pytest.mark.parametrize("name", list(SLACK))
def test_growth_is_found(name: str) -> None:
    """Whatever one agent uses more of than any did before, beyond its slack, is named."""
    grown = replace(AT_REST, **{name: getattr(AT_REST, name) + SLACK[name] + 1})
    assert complaints([AT_REST] * 3, [AT_REST] * 3) == []
    (line,) = complaints([AT_REST] * 3, [AT_REST, grown, AT_REST])
    assert line.startswith(f"agent 2: {name} ")


def test_records_that_outlive_their_nodes_image_are_no_growth() -> None:
    """So many and no more: a node that died with an image and came back without it is named until its time is over."""
    more = replace(AT_REST, records=AT_REST.records + 3)
    assert complaints([AT_REST], [more], records_outlived=3) == []
    assert len(complaints([AT_REST], [more], records_outlived=2)) == 1


def test_what_was_pulled_may_be_kept() -> None:
    """An agent may say that it has so many blobs more or less as there are to pull, and others may know it."""
    more, less = (
        replace(AT_REST, keys=AT_REST.keys + 3, records=AT_REST.records + 6),
        replace(AT_REST, keys=AT_REST.keys - 3),
    )
    assert complaints([AT_REST] * 2, [more, less], kept=3) == []
    assert len(complaints([AT_REST] * 2, [more, less], kept=2)) == 3
