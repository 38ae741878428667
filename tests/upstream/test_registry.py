"""The real client keeps every law of upstreams, against a real docker-registry."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.registries.docker import DockerRegistry
from tests.registries.holdings import Holdings
from tests.upstream.conformance import UpstreamConformance
from tests.upstream.setting import Client, client


class RegistryWorld:
    def __init__(self, made: Client, holdings: Holdings, registry: DockerRegistry) -> None:
        self.upstream = made.upstream
        self.holdings = holdings
        self._registry = registry

    async def be_away(self) -> None:
        self._registry.stop()

    async def be_back(self) -> None:
        self._registry.start()


@pytest.fixture
async def world(docker_registry: DockerRegistry, holdings: Holdings) -> AsyncIterator[RegistryWorld]:
    async with client(docker_registry.url) as made:
        yield RegistryWorld(made, holdings, docker_registry)


class TestRegistriesUpstream(UpstreamConformance):
    """See the suite."""
