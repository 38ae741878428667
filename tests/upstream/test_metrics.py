"""Promises of what is counted: names by the rule, one count a question, bytes of bodies."""

from __future__ import annotations

import pytest

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.telemetry.metrics import lint
from p2pmirror.upstream.governor import FAILURE_S
from p2pmirror.upstream.options import BUILT_IN
from p2pmirror.upstream.protocol import Standing
from tests.registries.docker import DockerRegistry
from tests.registries.holdings import Holdings
from tests.upstream.conformance import ABSENT, REGISTRY, read
from tests.upstream.setting import Client, client


async def test_questions_and_bytes_are_counted(docker_registry: DockerRegistry, holdings: Holdings) -> None:
    """Every question is counted once under how it ended, and the bytes of what came once."""
    async with client(docker_registry.url) as made:
        await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
        await made.upstream.document(REGISTRY, holdings.repository, holdings.manifest_digest)
        async with made.upstream.blob(REGISTRY, holdings.repository, holdings.layer_digest) as download:
            await read(download)
        with pytest.raises(NotHere, match=r"registry\.test has no blob"):
            await made.upstream.blob_size(REGISTRY, holdings.repository, ABSENT)
        assert lint(made.metrics) == []
        assert (made.asked("ok"), made.asked("absent")) == (3, 1)
        bytes_read = made.metrics.get_sample_value("p2pmirror_upstream_bytes_total", {"registry": REGISTRY})
        assert bytes_read == len(holdings.manifest) + len(holdings.layer)


async def test_how_a_registry_stands(docker_registry: DockerRegistry, holdings: Holdings) -> None:
    """The configured registry comes first; it is unasked, then reachable, then not, and then rests a while."""
    labels = {"registry": REGISTRY}

    def unreachable(made: Client) -> float | None:
        return made.metrics.get_sample_value("p2pmirror_upstream_unreachable_registries", labels)

    async with client(docker_registry.url) as made:
        assert made.client.standings()[0] == Standing(REGISTRY, "through")
        assert len(made.client.standings()) == len(BUILT_IN) + 1
        await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
        assert made.client.standings()[0] == Standing(REGISTRY, "through", is_asked=True)
        assert unreachable(made) == 0
        with docker_registry.stopped(), pytest.raises(Unreachable):
            await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
        standing = made.client.standings()[0]
        assert not standing.is_reachable
        assert 0 < standing.rests_s <= FAILURE_S
        assert unreachable(made) == 1
