"""Clients that name no registry (`ns`): skopeo, podman, dockerd and `ctr --plain-http` pull through an agent."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.groups import leave_out
from tests.lab.builds import distribution_build
from tests.lab.clients import AGENT, Dockerd, Podman, skopeo_copy
from tests.lab.containerd import snapshotter
from tests.lab.images import Image, make_image
from tests.lab.lab import Lab
from tests.lab.through import Upstream, fetch_through

pytestmark = pytest.mark.lab

KIB = 1024


@pytest.fixture(scope="module")
def lab(lab_run: object) -> Iterator[Lab]:
    """Make an agent that fetches for docker.io and ghcr.io, which are both the lab's registry."""
    build = distribution_build()
    assert build is not None
    with Lab(1, build, store="none") as lab:
        lab.registry.start()
        url = lab.registry.url
        agent = lab.nodes[0].agent
        fetch_through(agent, Upstream(url, "docker.io"), Upstream(url, "ghcr.io"))
        agent.start()
        yield lab


@pytest.fixture(scope="module")
def hub(lab: Lab) -> Image:
    """Give an image of Docker Hub."""
    return _pushed(lab, 1, "library/app")


@pytest.fixture(scope="module")
def ghcr(lab: Lab) -> Image:
    """Give an image of another registry."""
    return _pushed(lab, 2, "org/app")


def _pushed(lab: Lab, seed: int, repository: str) -> Image:
    directory = lab.directory / "images" / f"seed-{seed}"
    image = make_image(directory, [300 * KIB, 10_000], seed=seed, repository=repository, gzipped=True)
    lab.registry.push(image)
    return image


def _needs(command: str) -> None:
    if shutil.which(command) is None:
        leave_out(command, f"needs {command}; it is not here")


@pytest.mark.parametrize("form", ["default", "path"])
def test_skopeo_copies(lab: Lab, hub: Image, ghcr: Image, form: str, tmp_path: Path) -> None:
    """`docker://agent/library/app` is Docker Hub's, `docker://agent/ghcr.io/org/app` is ghcr.io's; all bytes are right.

    A second copy fetches no blob again.
    """
    image, source = (hub, "library/app:1") if form == "default" else (ghcr, "ghcr.io/org/app:1")
    host = lab.nodes[0].host
    for number in range(2):
        files = skopeo_copy(host, source, tmp_path / str(number))
        for digest in {image.config, *image.layers}:
            assert files[digest.removeprefix("sha256:")] == image.blob(digest).read_bytes()
        assert f"sha256:{hashlib.sha256(files['manifest.json']).hexdigest()}" == image.digest
    assert [lab.registry.asked(digest) for digest in image.layers] == [1, 1]


def test_podman_pulls(lab: Lab, hub: Image, ghcr: Image) -> None:
    """With the agent as a mirror in registries.conf, podman pulls from Docker Hub and from ghcr.io through it."""
    _needs("podman")
    podman = Podman(lab.nodes[0].host)

    assert f"sha256:{podman.pull('docker.io/library/app:1')}" == hub.config
    assert f"sha256:{podman.pull('ghcr.io/org/app:1')}" == ghcr.config
    assert f"sha256:{podman.pull(f'ghcr.io/org/app@{ghcr.digest}')}" == ghcr.config


def test_dockerd_pulls(lab: Lab, hub: Image) -> None:
    """With the agent in `registry-mirrors`, dockerd pulls Docker Hub's images through it, again without upstream."""
    _needs("dockerd")
    dockerd = Dockerd(lab.nodes[0].host)
    dockerd.start()

    assert dockerd.pull("app", "1") == hub.config
    dockerd.remove("app", "1")
    lab.registry.stop()
    try:
        assert dockerd.pull("app", "1") == hub.config
    finally:
        lab.registry.start()


def test_ctr_pulls_by_plain_http(lab: Lab, ghcr: Image) -> None:
    """`ctr images pull --plain-http agent/ghcr.io/org/app:1` names the agent as the registry, and is right."""
    containerd = lab.nodes[0].containerd
    containerd.start()

    containerd.ctr("images", "pull", "--plain-http", "--snapshotter", snapshotter(), f"{AGENT}/ghcr.io/org/app:1")

    assert containerd.verified(ghcr)


def test_lists_come_from_the_registry(lab: Lab, hub: Image) -> None:
    """`HEAD /v2/` is 200; tags and referrers are the registry's own, also of images that nobody pulled."""
    host = lab.nodes[0].host
    lab.registry.push(make_image(lab.directory / "other", [1000], seed=3, repository=hub.repository, tag="2"))

    assert host.request(29999, "/v2/", method="HEAD").status == 200
    listed = host.request(29999, "/v2/library/app/tags/list")
    assert json.loads(listed.body)["tags"] == ["1", "2"]
    referrers = host.request(29999, f"/v2/library/app/referrers/{hub.digest}")
    assert (referrers.status, json.loads(referrers.body)["manifests"]) == (200, [])
