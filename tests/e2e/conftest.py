"""The cluster that the end-to-end tests of a module share: four nodes and a registry, all of real parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.containerd import Build
from tests.lab.lab import Lab

NODES = 4  # one that pulls first, and three that pull at once


@pytest.fixture(scope="module")
def shared(build: Build) -> Iterator[Lab]:
    """Make the cluster of a module."""
    with Lab(NODES, build) as lab:
        lab.start()
        yield lab


@pytest.fixture
def cluster(shared: Lab) -> Lab:
    """Give the cluster with everything running, whatever the test before broke."""
    shared.repair()
    return shared
