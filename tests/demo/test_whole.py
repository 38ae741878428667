"""The demo as people run it: five agents, four pulls, one death, and nothing left behind however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2pmirror.demo.failed import DemoFailed
from p2pmirror.demo.place import check_ports, places
from tests.groups import leave_out

SMALL = ("--mib", "24", "--rate", "6Mi")  # some 15 s
BEGIN_S = 30.0
END_S = 20.0


@pytest.fixture
def demo(tmp_path):
    """Start demos, with TMPDIR in `tmp_path`; skips by name where their addresses are taken."""
    try:
        check_ports(places(tmp_path))
    except DemoFailed as error:
        leave_out("demo", str(error).splitlines()[1].strip())
    started = []

    def start(*arguments):
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        argv = [sys.executable, "-m", "p2pmirror", "demo", *SMALL, *arguments]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for pid in agents(tmp_path):
        os.kill(pid, signal.SIGKILL)


def agents(directory):
    """Return the processes whose environment names this directory as the one of their store."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"P2PMIRROR_STORE=oci-layout:{directory}".encode() in environment:
                found.append(int(entry.name))
    return found


def wait_for(condition, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.long
def test_all_nodes_pull_although_one_dies(demo, tmp_path):
    """Four nodes get every byte from peers, a response goes on after the death, the last line says so; all is gone."""
    process = demo()
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    summary = json.loads(out.splitlines()[-1])
    assert (summary["nodes"], summary["pulled_nodes"], summary["verified"]) == (5, 4, True)
    assert summary["from_peers_bytes"] == 4 * summary["image_bytes"]
    assert summary["resumed"] >= 1
    assert 1 <= summary["upstream_copies"] <= 1.05
    assert agents(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(demo, tmp_path, number):
    """Ctrl-C ends the agents and removes the directory, with exit code 1 and a word about it."""
    process = demo()
    wait_for(lambda: len(agents(tmp_path)) == 5, BEGIN_S)
    process.send_signal(number)
    _, errors = process.communicate(timeout=END_S)
    assert process.returncode == 1
    assert "interrupted" in errors
    assert agents(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_agents_die_with_a_killed_demo(demo, tmp_path):
    """Even SIGKILL of the demo leaves no agent running."""
    process = demo()
    wait_for(lambda: len(agents(tmp_path)) == 5, BEGIN_S)
    process.kill()
    process.communicate()
    wait_for(lambda: not agents(tmp_path), END_S)


@pytest.mark.long
def test_a_dead_agent_is_a_failure_with_its_log(demo, tmp_path):
    """An agent that ends by itself ends the demo with exit code 1 and the end of the logs."""
    process = demo()
    wait_for(lambda: len(agents(tmp_path)) == 5, BEGIN_S)
    os.kill(agents(tmp_path)[2], signal.SIGKILL)
    _, errors = process.communicate(timeout=END_S)
    assert process.returncode == 1
    assert "ended by itself" in errors
    assert "end of its log" in errors
    assert agents(tmp_path) == []


@pytest.mark.long
def test_a_kept_demo_goes_on(demo, tmp_path):
    """With --keep the four agents that live go on, and the demo says how to end them."""
    out, errors = demo("--keep").communicate(timeout=120)
    pids = agents(tmp_path)
    assert len(pids) == 4, errors
    assert f"kill {' '.join(str(pid) for pid in sorted(pids))}" in out
    assert json.loads(out.splitlines()[-1])["verified"] is True
