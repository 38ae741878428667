"""A process that does not run for a moment, as under a CPU quota, takes no hit for a miss."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.agent import REGISTRY_PORT
from tests.lab.images import Image
from tests.lab.lab import Lab, Node
from tests.lab.process import Process, wait_until
from tests.lab.registry import NAME

pytestmark = [pytest.mark.lab, pytest.mark.any_containerd]

KIB = 1024
FREEZE_S = 0.15  # one and a half periods of a quota: five times what a pull waits for its first provider
LAYERS = 24  # each is asked for once, so that each is looked up; the freeze falls elsewhere in each
STEP_S = 0.0004  # a request takes some 10 ms, from the first byte read to the first byte sent


@pytest.mark.parametrize("frozen", ["asker", "holder"])
def test_a_frozen_process_finds_what_there_is(cluster: Lab, frozen: str) -> None:
    """Whenever in a request the asking agent is frozen, or the one that holds the blob: the answer is the blob."""
    holder, asker, *_ = cluster.nodes
    image = cluster.image([KIB + number for number in range(LAYERS)])
    holder.containerd.import_tar(image.tar(cluster.directory / f"{frozen}.tar", NAME))
    wait_until(lambda: _all_known(asker, image, holder), "all layers are known", timeout_s=10)
    process = (asker if frozen == "asker" else holder).agent.process
    assert process is not None

    with ThreadPoolExecutor(1) as threads:
        statuses = []
        for number, layer in enumerate(image.layers):
            asking = threads.submit(_status, asker, image, layer)
            time.sleep(number * STEP_S)
            _freeze(process)
            statuses.append(asking.result())

    assert statuses == [200] * LAYERS


def _all_known(asker: Node, image: Image, holder: Node) -> bool:
    return all(holder.host.address in asker.agent.find(layer) for layer in image.layers)


def _status(asker: Node, image: Image, digest: str) -> int:
    return asker.host.request(REGISTRY_PORT, f"/v2/{image.repository}/blobs/{digest}?ns={NAME}").status


def _freeze(process: Process) -> None:
    process.pause()
    time.sleep(FREEZE_S)
    process.resume()
