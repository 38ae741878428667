"""The real client, with what it says and counts, for tests."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from p2pmirror.store.files import Files
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.upstream.client import RegistriesUpstream
from p2pmirror.upstream.options import registry
from p2pmirror.upstream.protocol import Upstream
from p2pmirror.upstream.registries import Registries
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.network import Network
from tests.upstream.conformance import REGISTRY


class Client:
    """A client of one registry, `REGISTRY`, at a URL."""

    def __init__(
        self, url: str, *, network: Network | None = None, files: Files | None = None, path: str = "", **options: Any
    ) -> None:
        self.metrics = CollectorRegistry()
        one = registry(REGISTRY, url, **({"private_addresses": True} | options))
        self.client = RegistriesUpstream(
            Registries([one]),
            network or HostNetwork(),
            files or HostFiles(),
            random=Random(7),
            registry=self.metrics,
            wall_s=time.time,
            helper_path=path,
        )
        self.upstream: Upstream = self.client

    def asked(self, outcome: str) -> float:
        """Return how many questions ended so."""
        labels = {"registry": REGISTRY, "outcome": outcome}
        return self.metrics.get_sample_value("p2pmirror_upstream_requests_total", labels) or 0.0


@asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[Client]:
    """Yield a client, and close its connections at the end."""
    made = Client(url, **options)
    try:
        yield made
    finally:
        await made.client.aclose()
