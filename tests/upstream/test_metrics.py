"""Promises of what is counted: names by the rule, one count a question, bytes of bodies."""

from __future__ import annotations

import pytest

from p2pmirror.errors import NotHere
from p2pmirror.telemetry.metrics import lint
from tests.registries.docker import DockerRegistry
from tests.registries.holdings import Holdings
from tests.upstream.conformance import ABSENT, REGISTRY, read
from tests.upstream.setting import client


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
