"""The lab itself, without any agent: what the end-to-end tests stand on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.lab import sweep
from tests.lab.builds import distribution_build
from tests.lab.containerd import Build, PullFailed, Way
from tests.lab.images import make_image
from tests.lab.lab import Lab, at_once
from tests.lab.network import Host
from tests.lab.process import CommandFailed, run, wait_until
from tests.lab.registry import NAME

pytestmark = pytest.mark.lab

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def lab(build: Build) -> Iterator[Lab]:
    """Two nodes with a containerd and no agent, and a registry."""
    with Lab(2, build) as lab:
        lab.registry.start()
        lab.start_containerds()
        yield lab


@pytest.fixture(scope="module")
def hosts(lab_run: Path) -> Iterator[Lab]:
    """Three hosts on which nothing runs."""
    build = distribution_build()
    assert build is not None
    with Lab(3, build) as lab:
        yield lab


@pytest.mark.parametrize("way", ["ctr", "cri"])
@pytest.mark.parametrize("gzipped", [False, True])
async def test_pulls_by_tag_and_by_digest_from_the_registry(lab: Lab, way: Way, *, gzipped: bool) -> None:
    """With no agent at the mirror's address containerd pulls from the registry, both ways; all bytes are there."""
    image = lab.image([MIB, 3 * MIB], gzipped=gzipped, two_platforms=True)
    lab.registry.push(image)
    first, second = (node.containerd for node in lab.nodes)
    before = lab.registry.sent_bytes()

    outcomes = await at_once(
        partial(first.pull, image.name(NAME), way), partial(second.pull, image.name_by_digest(NAME), way)
    )

    assert outcomes == [None, None]
    assert set(image.here) <= first.digests()
    assert set(image.here) <= second.digests()
    assert lab.registry.sent_bytes() - before >= 2 * (image.size - image.sizes[image.digest])
    for containerd in (first, second):
        containerd.remove_all()
        assert containerd.digests() == set()


def test_a_stopped_registry_fails_the_pull_at_once_and_serves_again_after(lab: Lab) -> None:
    """Stopping the registry makes pulls fail within a second; started again it still has what was pushed."""
    image = lab.image([1000])
    lab.registry.push(image)
    containerd = lab.nodes[0].containerd
    lab.registry.stop()
    started = time.monotonic()

    for way in ("ctr", "cri"):
        with pytest.raises(PullFailed, match="refused"):
            containerd.pull(image.name(NAME), way)

    assert time.monotonic() - started < 2
    lab.registry.start()
    containerd.pull(image.name(NAME))
    containerd.images.remove(image.name(NAME))
    assert image.name(NAME) not in containerd.names()


def test_containerd_keeps_its_images_over_restart_and_kill(lab: Lab) -> None:
    """What was imported from a tar is there after a restart and after a kill."""
    image = lab.image([1000, 2000])
    containerd = lab.nodes[0].containerd
    containerd.import_tar(image.tar(lab.directory / "import.tar", NAME))

    containerd.restart()
    assert image.name(NAME) in containerd.images.tags()
    containerd.kill()
    containerd.start()

    assert image.name(NAME) in containerd.images.tags()
    assert set(image.here) <= containerd.digests()


def test_the_same_seed_makes_the_same_image(tmp_path: Path) -> None:
    """Digests follow from the seed; another seed gives other layers."""
    one, same, other = (make_image(tmp_path / str(n), [500], seed=seed) for n, seed in enumerate([1, 1, 2]))

    assert one.here == same.here
    assert not set(one.here) & set(other.here)


def test_a_shaped_link_carries_its_rate_both_ways(hosts: Lab) -> None:
    """At 40 Mbit/s, 4 MiB take 0.8 s in either direction; unshaped they take a fraction of that."""
    one, two = (node.host for node in hosts.nodes[:2])
    one.shape(40_000_000)

    assert 0.6 < _seconds_for(4 * MIB, one, two) < 3
    assert 0.6 < _seconds_for(4 * MIB, two, one) < 3

    one.unshape()
    assert _seconds_for(4 * MIB, one, two) < 0.5


def test_islands_see_only_themselves_until_healed(hosts: Lab) -> None:
    """A cut network carries nothing between its parts; a pulled cable carries nothing at all; healing mends both."""
    one, two, three = (node.host for node in hosts.nodes)

    hosts.network.part([one, two])
    assert _reaches(one, two)
    assert not _reaches(one, three)
    hosts.network.heal()
    assert _reaches(one, three)
    two.link(up=False)
    assert not _reaches(one, two)
    hosts.network.heal()
    assert _reaches(one, two)


def test_there_is_no_way_out(hosts: Lab) -> None:
    """A host knows no route beyond its subnet."""
    with pytest.raises(OSError, match="unreachable"):
        hosts.nodes[0].host.connect(80, address="192.0.2.1")


def test_a_command_that_fails_says_what_it_printed(hosts: Lab) -> None:
    """A failed command's message holds its output, its code, and for one that hangs, that it did not end."""
    host = hosts.nodes[0].host

    with pytest.raises(CommandFailed, match="ended with 3:\nthis is why"):
        host.run(["sh", "-c", "echo this is why >&2; exit 3"])
    with pytest.raises(CommandFailed, match="did not end in time"):
        host.run(["sleep", "60"], timeout_s=0.1)


def test_a_paused_process_goes_on_when_resumed(hosts: Lab) -> None:
    """SIGSTOP and SIGCONT reach the process; SIGTERM ends it also when it is paused."""
    process = hosts.nodes[0].host.start("counter", ["sh", "-c", "while :; do echo x; sleep 0.01; done"])
    wait_until(lambda: "x" in process.tail(), "the process prints")

    process.pause()
    time.sleep(0.1)
    printed = process.log.stat().st_size
    time.sleep(0.2)
    assert process.log.stat().st_size == printed
    process.resume()
    wait_until(lambda: process.log.stat().st_size > printed, "the process goes on")
    process.pause()

    assert process.stop() == -signal.SIGTERM


# A run of the lab in a process of its own, which tells its mark and then waits to be killed.
RUN = """
import os, time
from tests.lab import sweep
from tests.lab.builds import distribution_build
from tests.lab.lab import Lab
mark = sweep.mark_of(os.getpid())
keeper = sweep.Keeper(mark)
lab = Lab(1, distribution_build())
lab.registry.start()
lab.start_containerds()
image = lab.image([1000])
lab.registry.push(image)
lab.nodes[0].containerd.pull(image.name("registry.lab"))
print(mark, keeper._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("keeper_lives", [True, False])
def test_a_killed_run_leaves_nothing(lab_run: Path, *, keeper_lives: bool) -> None:
    """After kill -9 of a run its processes, mounts, namespaces and files are gone; a live run's are left alone."""
    victim = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, cwd=sweep.ROOT, text=True)
    assert victim.stdout is not None
    with victim.stdout:
        mark, keeper = victim.stdout.readline().split()
    assert mark in sweep.marks()
    assert mark not in sweep.sweep(), "a live run was swept"
    assert sweep.directory_of(mark).exists()

    if not keeper_lives:
        os.kill(int(keeper), signal.SIGKILL)
    victim.kill()
    victim.wait()
    if not keeper_lives:
        assert sweep.sweep() == [mark]

    # The keeper bears the mark too, and ends after what it removes.
    wait_until(lambda: not _traces(mark), "nothing of the run is left", timeout_s=20)
    assert sweep.mark_of(os.getpid()) in sweep.marks()


def _traces(mark: str) -> list[str]:
    """Return what the machine still shows of that run: its namespaces and directories, mounts and processes."""
    lines = [*Path("/proc/self/mounts").read_text().splitlines(), *run(["ps", "-eo", "args"]).splitlines()]
    return [trace for trace in (*sweep.marks(), *lines) if mark in trace]


def _seconds_for(size: int, source: Host, sink: Host) -> float:
    """How long `size` bytes take from one host to the other."""
    with sink.make_socket() as listener:
        listener.bind((sink.address, 0))
        listener.listen()
        started = time.monotonic()
        sending = source.connect(listener.getsockname()[1], address=sink.address)
        receiving, _ = listener.accept()
        with sending, receiving:
            return _pump(size, sending, receiving) - started


def _pump(size: int, sending: socket.socket, receiving: socket.socket) -> float:
    unsent, received = memoryview(bytes(size)), 0
    sending.setblocking(False)
    receiving.settimeout(0.001)
    while received < size:
        with contextlib.suppress(BlockingIOError):
            unsent = unsent[sending.send(unsent) :] if unsent else unsent
        with contextlib.suppress(TimeoutError):
            received += len(receiving.recv(MIB))
    return time.monotonic()


def _reaches(one: Host, two: Host) -> bool:
    """Whether a TCP connection from one host to the other comes about within half a second."""
    with two.make_socket() as listener:
        listener.bind((two.address, 0))
        listener.listen()
        try:
            one.connect(listener.getsockname()[1], address=two.address, timeout_s=0.5).close()
        except OSError:
            return False
        return True
