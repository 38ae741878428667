"""Descriptors, disk or processor time run short: the agent serves what it can, says the rest quickly, and recovers."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.agent import REGISTRY_PORT
from tests.lab.crew import REGISTRY, Crew, Mate
from tests.lab.process import wait_until
from tests.lab.quota import cpu_quota
from tests.store.images import Image

pytestmark = pytest.mark.lab

KIB, MIB = 1024, 1024 * 1024
BACK_S = 10.0
MISS_S = 1.5  # headers or a 404 come within a second, by the agent's clock


@pytest.fixture
def crew(lab_run: object) -> Iterator[Crew]:
    """Give two agents that do not run yet."""
    with Crew(2) as crew:
        yield crew


@pytest.fixture
def disk(crew: Crew) -> Iterator[Path]:
    """Give the first one's layout a disk of its own, of 4 MiB."""
    layout = crew.mates[0].layout
    _run("mount", "-t", "tmpfs", "-o", "size=4m", "none", str(layout))
    yield layout
    _run("umount", "-l", str(layout))


def test_descriptors_run_out(crew: Crew) -> None:
    """Connections beyond the limit wait; who is connected gets an answer, never a 500; afterwards all is as before."""
    image = crew.image(200 * KIB)
    mate = crew.mates[0]
    mate.put(image)
    crew.start()
    mate.wait_known(image.layers[0], mate)
    process = mate.agent.process
    assert process is not None
    early = http.client.HTTPConnection("127.0.0.1", REGISTRY_PORT)
    early.sock = mate.host.connect(REGISTRY_PORT)
    assert _ask(early, image)[0] == 200
    limit = len(list(Path(f"/proc/{process.pid}/fd").iterdir())) + 5
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with ExitStack() as closing:
        for _ in range(50):
            closing.enter_context(mate.host.connect(REGISTRY_PORT))
        time.sleep(1)
        ticks = _cpu_s(process.pid)
        for _ in range(3):
            began = time.monotonic()
            assert _ask(early, image)[0] in (200, 404)
            assert time.monotonic() - began < MISS_S
            time.sleep(1)
        assert _cpu_s(process.pid) - ticks < 1.5, "it does not turn in circles"
    got = mate.get(image.layers[0])
    assert (got.status, got.body == image.content[image.layers[0]][0]) == (200, True)
    assert mate.agent.readiness() == ""
    assert "Traceback" not in process.tail()
    early.close()


def test_the_disk_is_full_or_can_only_be_read(crew: Crew, disk: Path) -> None:
    """A disk without room is served from, also by an agent that starts on it; so is one that is read-only."""
    mate, other = crew.mates
    image = crew.image(300 * KIB)
    mate.put(image)
    with contextlib.suppress(OSError), (disk / "full").open("wb") as file:
        while True:
            file.write(bytes(64 * KIB))
    crew.start()
    _serves(mate, image)
    _run("mount", "-o", "remount,ro", str(disk))
    mate.agent.stop()
    crew.start()
    _serves(mate, image)
    other.wait_known(image.layers[0], mate)
    _serves(other, image)


def test_the_content_directory_disappears(crew: Crew) -> None:
    """Without its directory a node says so and is served by its peers; once it is back all is as before."""
    mate, other = crew.mates
    image, lone = crew.image(300 * KIB), crew.image(300 * KIB)
    mate.put(image, lone)
    other.put(image)
    crew.start()
    mate.wait_known(image.layers[0], mate, other)
    away = mate.layout.with_name("away")
    mate.layout.rename(away)
    wait_until(lambda: mate.agent.readiness() != "", "it says so", timeout_s=BACK_S)
    _serves(mate, image)
    for asking in crew.mates:
        missing = asking.get(lone.layers[0])
        assert (missing.status, missing.seconds < MISS_S) == (404, True)
    away.rename(mate.layout)
    wait_until(lambda: mate.agent.readiness() == "", "it is as before", timeout_s=BACK_S)
    other.wait_known(lone.layers[0], mate)
    _serves(other, lone)


def test_half_a_core(crew: Crew) -> None:
    """Under Kubernetes' limit of 500m no hit is taken for a miss, no source for a slow one, and a miss stays cheap."""
    holder, asking = crew.mates
    image = crew.image(*(KIB * number for number in range(1, 21)), 32 * MIB)
    holder.put(image)
    crew.start()
    for layer in image.layers:
        asking.wait_known(layer, holder)
    pids = [mate.agent.process.pid for mate in crew.mates if mate.agent.process is not None]
    with cpu_quota(500, *pids):
        for layer in image.layers:
            got = asking.get(layer)
            assert (got.status, got.body == image.content[layer][0]) == (200, True)
        for number in range(10):
            got = asking.get(f"sha256:{number:064x}")
            assert (got.status, got.seconds < MISS_S) == (404, True)
    assert asking.agent.metric("resolve_resumes_total") == 0


def _serves(mate: Mate, image: Image) -> None:
    for layer in image.layers:
        got = mate.get(layer)
        assert (got.status, got.body == image.content[layer][0]) == (200, True)


def _ask(connection: http.client.HTTPConnection, image: Image) -> tuple[int, bytes]:
    """Ask for the first layer over a kept connection."""
    connection.request("GET", f"/v2/app/blobs/{image.layers[0]}?ns={REGISTRY}")
    response = connection.getresponse()
    return response.status, response.read()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
