"""An agent that ends while a large layer arrives goes on where it was when it starts again, between real parts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.agent import Agent
from tests.lab.clients import skopeo_copy
from tests.lab.images import make_image
from tests.lab.lab import Lab
from tests.lab.process import CommandFailed, wait_until
from tests.lab.through import begun_in, blobs_in, cache_of, one_that_fetches

pytestmark = [pytest.mark.lab, pytest.mark.long]

MIB = 1024 * 1024
LAYER_BYTES = 200 * MIB
RATE = 40 * MIB * 8  # the layer takes five seconds
COPIES = 1.1


@pytest.fixture
def lab(lab_run: object) -> Iterator[Lab]:
    """Make an agent with a cache and no containerd, and a registry behind a link of 40 MiB/s."""
    with one_that_fetches("docker.io") as lab:
        lab.nodes[0].agent.settings["shutdown_grace"] = "1s"
        yield lab


@pytest.mark.parametrize("how", ["killed", "stopped", "killed twice"])
def test_the_registry_sends_one_copy(how: str, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    """SIGKILL or SIGTERM half-way through a layer: the pull after the start is right, byte for byte, and soon.

    The registry sends hardly more than one copy in all, and nothing half-written is left.
    """
    agent = lab.nodes[0].agent
    image = make_image(lab.directory / "image", [LAYER_BYTES], seed=1, repository="library/app")
    lab.registry.push(image)
    lab.registry.host.shape(RATE)
    before = lab.registry.host.sent_bytes()
    for share in (0.3, 0.6) if how == "killed twice" else (0.6,):
        agent.start()
        _interrupted(lab, share, how)
    agent.start()
    target = tmp_path_factory.mktemp("pulled")
    files = skopeo_copy(lab.nodes[0].host, "library/app:1", target)
    (layer,) = image.layers
    assert f"sha256:{hashlib.sha256(files[layer.removeprefix('sha256:')]).hexdigest()}" == layer
    assert lab.registry.host.sent_bytes() - before <= COPIES * LAYER_BYTES
    assert agent.metric("cache_resumed_bytes_total") >= 0.4 * LAYER_BYTES
    wait_until(lambda: not begun_in(cache_of(agent)), "nothing half-written is left")
    assert any(path.name == layer.removeprefix("sha256:") for path in blobs_in(cache_of(agent)))
    assert agent.stop() == 0
    assert "Traceback" not in (lab.nodes[0].host.directory / "agent.log").read_text()


def _interrupted(lab: Lab, share: float, how: str) -> None:
    """Pull, and end the agent when so much of the layer has come."""
    host, agent = lab.nodes[0].host, lab.nodes[0].agent
    with ThreadPoolExecutor(1) as threads:
        pulling = threads.submit(skopeo_copy, host, "library/app:1", host.directory / f"cut-{share}")
        wait_until(lambda: _arrived(agent) >= share * LAYER_BYTES, "it is half-way")
        if how == "stopped":
            assert agent.stop() == 0
        else:
            agent.kill()
        began = time.monotonic()
        with pytest.raises(CommandFailed):
            pulling.result()
        assert time.monotonic() - began < 60


def _arrived(agent: Agent) -> float:
    """Return how much has come of what an agent fetches, and what it resumed."""
    transfers = agent.status()["transfers"]
    return max((each["sent_bytes"] for each in transfers), default=0.0)
