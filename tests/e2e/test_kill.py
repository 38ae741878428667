"""kill -9 of an agent at any moment of a fetch: nothing corrupt is served or kept, nothing is left behind."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.lab.agent import REGISTRY_PORT
from tests.lab.images import Image
from tests.lab.lab import Lab
from tests.lab.network import Host
from tests.lab.process import wait_until
from tests.lab.registry import NAME
from tests.lab.through import begun_in, blobs_in, cache_of, one_that_fetches

pytestmark = pytest.mark.lab

MIB = 1024 * 1024
LAYER_BYTES = 3 * MIB
FETCH_S = 0.5  # what a layer takes at this rate, beside what a kill and a start take
RATE = int(LAYER_BYTES * 8 / FETCH_S)
KILLS, KILLS_LONG = 10, 100


@dataclass
class Got:
    """What came of a request; `is_whole`: as many bytes as were announced."""

    status: int = 0
    body: bytes = b""
    is_whole: bool = False


@pytest.fixture
def lab(lab_run: object) -> Iterator[Lab]:
    """Make an agent with a cache and no containerd, and a registry behind a link of some megabytes a second."""
    with one_that_fetches() as lab:
        yield lab


def test_a_killed_agent_leaves_nothing_wrong(lab: Lab, *, long: bool) -> None:
    """Killed at a moment of each fetch, early, in the middle, while it is kept, it starts again cleanly every time.

    No client is given a whole answer that is wrong; what is in the cache has its digest; half of a blob is nowhere.
    """
    kills = KILLS_LONG if long else KILLS
    host, agent = lab.nodes[0].host, lab.nodes[0].agent
    image = lab.image([LAYER_BYTES] * kills)
    lab.registry.push(image)
    lab.registry.host.shape(RATE)
    whole = 0
    seen: set[Path] = set()
    for number, layer in enumerate(image.layers):
        agent.start()
        seen |= _look(lab, image, seen)
        got = _killed_meanwhile(lab, image, layer, Random(number).uniform(0, 1.4 * FETCH_S))
        assert got.status in {0, 200}
        if got.is_whole:
            whole += 1
            assert f"sha256:{hashlib.sha256(got.body).hexdigest()}" == layer, f"kill {number}"
    assert whole < kills, "some kills came in the middle"

    agent.start()
    _look(lab, image, set())
    lab.registry.host.unshape()
    for layer in image.layers:
        got = _get(host, image, layer)
        assert (got.status, got.body) == (200, image.blob(layer).read_bytes())
    assert agent.stop() == 0
    assert "Traceback" not in (host.directory / "agent.log").read_text()


def _look(lab: Lab, image: Image, seen: set[Path]) -> set[Path]:
    """See that nothing half-written is there any more, and that what is there is right, on the disk and served.

    What was `seen` is not hashed again; returns what is there.
    """
    agent = lab.nodes[0].agent
    cache = cache_of(agent)
    wait_until(lambda: not begun_in(cache), "what a killed agent began is gone")
    kept = blobs_in(cache)
    for path in set(kept) - seen:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert agent.metric("cache_bytes") == sum(path.stat().st_size for path in kept)
    for path in kept[-2:]:
        got = _get(lab.nodes[0].host, image, f"sha256:{path.name}")
        assert (got.status, got.body) == (200, path.read_bytes())
    return set(kept)


def _killed_meanwhile(lab: Lab, image: Image, layer: str, after_s: float) -> Got:
    """Ask for a layer, and kill the agent so many seconds later."""
    agent = lab.nodes[0].agent
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(_get, lab.nodes[0].host, image, layer)
        time.sleep(after_s)
        agent.kill()
        return asking.result()


def _get(host: Host, image: Image, digest: str) -> Got:
    got = Got()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", REGISTRY_PORT)
        connection.sock = host.connect(REGISTRY_PORT, timeout_s=30)
    except OSError:
        return got
    try:
        connection.request("GET", f"/v2/{image.repository}/blobs/{digest}?ns={NAME}")
        response = connection.getresponse()
        got.status = response.status
        got.body = response.read()
        got.is_whole = True
    except http.client.IncompleteRead as short:
        got.body = short.partial
    except (OSError, http.client.HTTPException):
        pass  # killed before a head, or a reset in the middle
    finally:
        connection.close()
    return got
