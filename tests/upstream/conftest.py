"""What the tests of real clients share: one docker-registry with images in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registries.docker import DockerRegistry, make_certificate
from tests.registries.holdings import Holdings
from tests.wire.conftest import pytest_collection_modifyitems

__all__ = ["pytest_collection_modifyitems"]


@pytest.fixture(scope="session")
def holdings() -> Holdings:
    return Holdings()


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory, holdings: Holdings) -> Iterator[DockerRegistry]:
    """Run a registry that lets everybody in."""
    registry = DockerRegistry(tmp_path_factory.mktemp("registry"))
    registry.start()
    registry.push(holdings)
    yield registry
    registry.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and its key."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))
