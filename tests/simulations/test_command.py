"""Promises of `python -m simulations`, each shown on the command itself: equal runs, failures, exit codes, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulations import scenarios
from simulations.__main__ import main
from simulations.commands.progress import Progress
from simulations.playing import Run, play

SMALL = ("--nodes", "12", "--set", "lookups=5", "--set", "within_s=2")
IMPOSSIBLE = ("--nodes", "12", "--set", "limit_s=0.1")  # nobody has joined so soon
TIMEOUT_S = 60


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulations", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def last_object(done: subprocess.CompletedProcess[str]) -> dict:
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("whole", ["false", "true"])
def test_the_same_seed_is_the_same_run_in_any_process(whole):
    """Two processes with different PYTHONHASHSEED deliver the same bytes at the same times; another seed does not."""
    arguments = ("run", "join", *SMALL, "--set", f"whole={whole}", "--json", "--seed")
    one, other = (last_object(command(*arguments, "5", PYTHONHASHSEED=seed)) for seed in ("1", "4711"))
    assert one["ok"]
    assert one["datagrams"] > 100
    unequal = {name for name in one if one[name] != other[name]}
    assert unequal <= {"seconds_real", "memory_bytes"}
    assert last_object(command(*arguments, "6"))["trace_digest"] != one["trace_digest"]


def test_equal_runs_write_equal_traces(tmp_path):
    """`--trace` writes what happened, a line each, the same in each process, and it changes nothing."""
    files = [tmp_path / name for name in ("one", "other")]
    digests = [
        last_object(command("run", "join", *SMALL, "--json", "--trace", str(file), PYTHONHASHSEED=str(number)))
        for number, file in enumerate(files)
    ]
    one, other = (file.read_text() for file in files)
    assert one == other
    assert len(one.splitlines()) > digests[0]["datagrams"]
    assert last_object(command("run", "join", *SMALL, "--json"))["trace_digest"] == digests[0]["trace_digest"]


def test_a_failed_check_is_told_with_the_command_that_replays_it():
    """Exit code 1; stderr names scenario, seed, virtual time, check, and a command that fails in the same way again."""
    failed = command("run", "join", *IMPOSSIBLE, "--seed", "7", "--json")
    document = last_object(failed)
    assert failed.returncode == 1
    assert document["ok"] is False
    assert document["violated"]["check"] == "every node has joined"
    said = failed.stderr
    assert f"FAILED: join, 12 nodes, seed 7, at {document['seconds_virtual']:.6f} s" in said
    assert "violated: every node has joined" in said
    replay = said.splitlines()[-1].removeprefix("replay: ").split()
    assert replay[:3] == ["python", "-m", "simulations"]
    again = command(*replay[3:], "--json")
    assert again.returncode == 1
    assert again.stderr == failed.stderr
    assert {**last_object(again), "seconds_real": 0, "memory_bytes": 0} == {
        **document,
        "seconds_real": 0,
        "memory_bytes": 0,
    }


def test_people_get_a_table():
    """Without --json stdout has the figures by their names, and nothing is on stderr when all went well and fast."""
    done = command("run", "join", *SMALL, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("join: 12 nodes, seed 1", "trace digest", "datagrams per node", "every node has joined"):
        assert word in done.stdout


def test_long_runs_show_how_far_they_are():
    """Where stderr is no terminal a line at intervals says how far it is, and changes nothing."""
    scenario = scenarios.find("join")
    assert scenario is not None
    what, stream = Run(scenario, 30, 1, {"within_s": "2"}), io.StringIO()
    with Progress("join", stream, every_s=0.1) as progress:
        shown = play(what, watch=progress.show)
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= shown.seconds_real / 0.1
    assert re.fullmatch(r"join: \d+ nodes, [\d.]+ s virtual, [\d,]+ datagrams, \d+ s real", lines[-1])
    assert play(what).trace_digest == shown.trace_digest


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "no-such-scenario"),
        ("run", "../join"),
        ("run", "join", "--nodes", "many"),
        ("run", "join", "--nodes", "0"),
        ("run", "join", "--nodes", "1"),
        ("run", "join", "--seed", "-1"),
        ("run", "join", "--set", "limit_s"),
        ("run", "join", "--set", "limit_s=soon"),
        ("run", "join", "--set", "lookups=0"),
        ("run", "join", "--set", "unknown=1"),
        ("run", "join", "--trace", "/no/such/directory/file"),
        ("swarm", "join"),
        ("swarm", "join", "--seeds", "0"),
        ("swarm", "no-such-scenario", "--seeds", "1"),
        ("swarm", "join", "--seeds", "1", "--nodes", "1"),
        ("no-such-command",),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments, capsys):
    """Exit code 2, one line on stderr that says what is wrong, nothing on stdout."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1


def test_the_process_ends_with_the_code():
    """What `main` returns is the exit code of the process."""
    done = command("run", "no-such-scenario")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_list_names_every_scenario_with_its_parameters():
    """`list` is for people, `list --json` for scripts."""
    people, scripts = command("list"), command("list", "--json")
    (join,) = [each for each in json.loads(scripts.stdout) if each["name"] == "join"]
    assert {"name", "shows", "nodes", "seconds", "parameters"} <= set(join)
    assert "join --set within_s=10.0" in people.stdout
    assert join["shows"] in people.stdout


def test_ctrl_c_ends_a_run_at_once(tmp_path):
    """Exit code 130 within seconds, one line, no traceback."""
    trace = tmp_path / "trace"
    arguments = ["run", "join", "--nodes", "1000", "--set", "within_s=1", "--quiet", "--trace", str(trace)]
    process = subprocess.Popen(
        [sys.executable, "-m", "simulations", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + TIMEOUT_S
    while not (trace.exists() and trace.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)  # until it is well under way
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, said = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, said.strip()) == (130, "", "interrupted")
    assert time.monotonic() - began < 20


def test_a_swarm_runs_every_seed_and_tells_each():
    """One line a run and a summary; exit code 0 when all went well."""
    done = command("swarm", "join", *SMALL, "--seeds", "3", "--first", "5", "--jobs", "2")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert sorted(line.split(":")[0] for line in lines[:3]) == [
        f"ok     join nodes 12 seed {seed}" for seed in (5, 6, 7)
    ]
    assert lines[3].startswith("3 runs, 0 failed")
    assert len(lines) == 4


def test_a_swarm_with_failures_gives_the_command_for_each():
    """Exit code 1; each failure is told with its seed, its check, and the command that replays it."""
    done = command("swarm", "join", *IMPOSSIBLE, "--seeds", "2")
    assert done.returncode == 1
    assert "2 runs, 2 failed" in done.stdout
    assert "violated: every node has joined" in done.stdout
    for seed in (1, 2):
        assert (
            f"FAILED join seed {seed}; replay: "
            f"python -m simulations run join --nodes 12 --seed {seed} --set limit_s=0.1" in done.stdout
        )


def test_ctrl_c_ends_a_swarm_with_all_its_processes():
    """Exit code 130, and no process is left."""
    arguments = [sys.executable, "-m", "simulations", "swarm", "join", "--seeds", "4", "--nodes", "1000"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children: list[Path] = []
    for _ in range(100):
        if children := children_of(process.pid):
            break
        time.sleep(0.1)
    assert children
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, said.strip()) == (130, "interrupted")
    assert not any(child.exists() for child in children)


def children_of(pid: int) -> list[Path]:
    """Return the directories in /proc of the processes that any thread of a process has started."""
    lists = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    return [place for each in lists for child in each if _is_worker(place := Path(f"/proc/{child}"))]


def _is_worker(place: Path) -> bool:
    """Say whether a process is one of ours, and not what the standard library runs while it is imported."""
    try:
        return b"python" in (place / "cmdline").read_bytes()
    except OSError:
        return False
