"""A cache that has no room, or is taken away: pulls through it succeed all the same."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.lab.builds import distribution_build
from tests.lab.lab import Lab
from tests.lab.process import wait_until
from tests.lab.registry import NAME
from tests.lab.through import Upstream, ask_the_agent_alone, begun_in, blobs_in, cache_of, fetch_through, outcomes, pull

pytestmark = pytest.mark.lab

KIB, MIB = 1024, 1024 * 1024


@pytest.fixture(scope="module")
def shared(lab_run: object) -> Iterator[Lab]:
    """Make a node whose containerd can ask its agent alone; the agent is not started."""
    build = distribution_build()
    assert build is not None
    with Lab(1, build) as lab:
        ask_the_agent_alone(lab.nodes[0])
        fetch_through(lab.nodes[0].agent, Upstream(lab.registry.url))
        lab.registry.start()
        lab.start_containerds()
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    node = shared.nodes[0]
    node.containerd.remove_all()
    shared.registry.host.unshape()
    yield shared
    node.agent.kill()


@pytest.fixture
def small_disk(lab: Lab) -> Iterator[Path]:
    """Give the cache a disk of its own, of 3 MiB."""
    cache = cache_of(lab.nodes[0].agent)
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(cache)], check=True)
    yield cache
    subprocess.run(["umount", "-l", str(cache)], check=True)


async def test_a_full_disk_fails_no_pull(lab: Lab, small_disk: Path) -> None:
    """Layers larger than the cache's disk are passed on, right, and nothing of them stays; twice does no harm."""
    node = lab.nodes[0]
    image = lab.image([5 * MIB, 300 * KIB], gzipped=True)
    lab.registry.push(image)
    node.agent.start()

    for fresh in (False, True):
        await pull(node, image.name(NAME), fresh=fresh)
        assert node.containerd.verified(image)

    assert outcomes(node.agent, "cut") + outcomes(node.agent, "error") == 0
    assert not [path for path in blobs_in(small_disk) if image.layers[0].endswith(path.name)]
    assert not begun_in(small_disk)
    assert node.agent.readiness() == ""


async def test_a_cache_that_is_wiped_in_the_middle_of_a_pull_fails_no_pull(lab: Lab) -> None:
    """With the directory removed while a layer arrives the pull goes on and is right; the next image is kept again."""
    node = lab.nodes[0]
    image, next_image = lab.image([4 * MIB], gzipped=True), lab.image([100 * KIB])
    lab.registry.push(image)
    lab.registry.push(next_image)
    node.agent.start()
    lab.registry.host.shape(20_000_000)
    cache = cache_of(node.agent)

    def wipe() -> None:
        wait_until(lambda: any(each["size"] >= 4 * MIB for each in node.agent.status()["transfers"]), "it arrives")
        shutil.rmtree(cache, ignore_errors=True)  # the agent may write into it meanwhile

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull, node, image.name(NAME))
        nursery.start_soon(trio.to_thread.run_sync, wipe)

    assert node.containerd.verified(image)
    assert outcomes(node.agent, "error") == 0
    lab.registry.host.unshape()
    await pull(node, next_image.name(NAME))
    await pull(node, next_image.name(NAME), fresh=True)
    assert node.containerd.verified(next_image)
    assert lab.registry.asked(next_image.layers[0]) == 1
