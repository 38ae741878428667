"""Nodes that reach no registry: what was added to one node's cache is pulled by tag on all of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.containerd import Build, PullFailed, Way
from tests.lab.lab import Lab, Node
from tests.lab.process import run, wait_until
from tests.lab.registry import NAME
from tests.lab.through import Upstream, fetch_through

pytestmark = [pytest.mark.lab, pytest.mark.any_containerd]

MIB = 1024 * 1024


def cache_dir(node: Node) -> Path:
    return node.host.directory / "cache"


@pytest.fixture(scope="module")
def alone(build: Build) -> Iterator[Lab]:
    """Make two nodes with caches, and a registry that is not started."""
    with Lab(2, build) as lab:
        for node in lab.nodes:
            fetch_through(node.agent, Upstream(lab.registry.url), cache=cache_dir(node))
            node.agent.settings["first_byte_timeout"] = "2s"
        lab.start_containerds()
        lab.start_agents()
        yield lab


def cache(node: Node, *arguments: str) -> None:
    """Run a `p2pmirror cache` command beside the node's agent."""
    command = [sys.executable, "-m", "p2pmirror", "cache", *arguments, "--cache-dir", str(cache_dir(node))]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("form", ["docker-archive", "oci"])
def test_what_skopeo_wrote_is_pulled_by_tag_without_a_registry(alone: Lab, form: str, tmp_path: Path) -> None:
    """A `docker save` archive, and a directory in OCI layout, are pulled by tag though their registry is never reached.

    The registry is one that agents fetch from: it is asked, does not answer, and what was added counts.
    """
    node = alone.nodes[0]
    image = alone.image([MIB, 10_000])
    name = f"{NAME}/{image.repository}:{form}"
    target = {"docker-archive": f"docker-archive:{tmp_path}/saved:{name}", "oci": f"oci:{tmp_path}/saved:{form}"}[form]
    run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{image.directory}:{image.tag}", target])
    cache(node, "add", str(tmp_path / "saved"), *(["--name", name] if form == "oci" else []))
    wait_until(lambda: node.host.address in node.agent.find(name), "what was added is known")

    node.containerd.pull(name)

    assert image.config in node.containerd.digests(), "whose layers containerd has unpacked and compared with it"


@pytest.mark.parametrize("way", ["cri", pytest.param("ctr", marks=pytest.mark.long)])
def test_an_archive_is_pulled_by_tag_without_a_registry(alone: Lab, way: Way, tmp_path: Path) -> None:
    """An image added on one node is pulled there and on another node, by its tag; removed, it can be no more."""
    one, two = alone.nodes
    image = alone.image([3 * MIB, 10_000], two_platforms=True)
    cache(one, "add", str(image.tar(tmp_path / "image.tar", NAME)))
    wait_until(lambda: one.host.address in two.agent.find(image.name(NAME)), "what was added is known")

    for node in (two, one):
        node.containerd.pull(image.name(NAME), way)
        assert node.containerd.verified(image)
    assert one.agent.metric("cache_bytes") >= image.size

    other = alone.image([10_000])
    cache(one, "add", str(other.tar(tmp_path / "other.tar", NAME)))
    wait_until(lambda: bool(one.agent.find(other.name(NAME))), "what was added is known")
    cache(one, "remove", other.name(NAME))
    wait_until(lambda: not two.agent.find(other.name(NAME)), "what was removed is forgotten")
    with pytest.raises(PullFailed):
        two.containerd.pull(other.name(NAME), way)
