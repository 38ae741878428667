"""A pod in a simulated world: an API at an address, the files that the kubelet mounts, a bootstrap that asks there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import trio

from p2pmirror.kubernetes import Access
from p2pmirror.kubernetes.access import DIRECTORY
from p2pmirror.routing.bootstrap import KubernetesSetting, parse
from p2pmirror.routing.bootstrap.kubernetes import ServiceEndpoints
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.memory import Link, MemoryWorld
from p2pmirror.wire.network import Listener
from tests.kubernetes_api.api import TOKEN, Api
from tests.kubernetes_api.certificates import Certificate

API_HOST = "10.96.0.1"
SERVICE = "kubernetes:kube-system/p2pmirror"


class Pod:
    """A pod on a host of its own, and the API that it asks."""

    def __init__(self, certificate: Certificate, nursery: trio.Nursery) -> None:
        self.world = MemoryWorld(Random(1), link=Link(latency_s=0.001))
        self.network = self.world.host("10.9.9.9", "fd00::9")
        self.files = MemoryFiles()
        self.api = Api(certificate)
        self.environ = {"KUBERNETES_SERVICE_HOST": API_HOST, "KUBERNETES_SERVICE_PORT": "443"}
        self.mount(TOKEN, certificate.pem)
        self._nursery = nursery
        self._serving: list[trio.CancelScope] = []

    def mount(self, token: str | None = None, authorities: bytes | None = None) -> None:
        """Put files where the kubelet puts them."""
        if token is not None:
            self.files.put(DIRECTORY / "token", token.encode())
        if authorities is not None:
            self.files.put(DIRECTORY / "ca.crt", authorities)

    async def start_api(self, *hosts: str) -> None:
        """Let the API answer at these addresses of a host, its usual one unless given."""
        hosts = hosts or (API_HOST,)
        self.api_network = network = self.world.host(*hosts)
        for host in hosts:
            listener = await network.listen(Address(host, 443))
            self._nursery.start_soon(self._serve, listener)

    async def _serve(self, listener: Listener) -> None:
        with trio.CancelScope() as scope:
            self._serving.append(scope)
            await self.api.serve(listener)

    def stop_api(self) -> None:
        """Cut all connections, and answer no further ones."""
        for scope in self._serving:
            scope.cancel()

    def access(self) -> Access:
        return Access.of(self.environ)

    def bootstrap(self, text: str = SERVICE) -> ServiceEndpoints:
        setting = parse(text)
        assert isinstance(setting, KubernetesSetting)
        return setting.within(self.environ).on(self.network, self.files, Random(2))

    async def follow(self, bootstrap: ServiceEndpoints) -> None:
        """Run what a node runs beside its first join, and wait until it watches."""

        async def follow() -> None:
            while True:
                await bootstrap.changed()

        self._nursery.start_soon(follow)
        await self.until_watched()

    async def until_watched(self, *, limit_s: float = 60, count: int = 1) -> None:
        with trio.fail_after(limit_s):
            while self.api.watches() < count:  # noqa: ASYNC110 - in virtual time this costs nothing
                await trio.sleep(0.1)


async def named(bootstrap: ServiceEndpoints) -> list[str]:
    return [str(address) for address in await bootstrap.addresses()]


async def until_named(bootstrap: ServiceEndpoints, names: Sequence[str], limit_s: float) -> None:
    """Wait until the bootstrap names exactly these."""
    with trio.fail_after(limit_s):
        while await named(bootstrap) != names:  # noqa: ASYNC110 - a bootstrap wakes nobody up so soon
            await trio.sleep(0.1)


@asynccontextmanager
async def pod(certificate: Certificate, *, is_served: bool = True) -> AsyncIterator[Pod]:
    async with trio.open_nursery() as nursery:
        made = Pod(certificate, nursery)
        if is_served:
            await made.start_api()
        yield made
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def real_api(certificate: Certificate) -> AsyncIterator[tuple[Api, dict[str, str]]]:
    """Yield an API on a socket of this host, and the environment that leads to it."""
    api = Api(certificate)
    listener = await HostNetwork().listen(Address("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api.serve, listener)
        port = str(listener.address.port)
        yield api, {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
        nursery.cancel_scope.cancel()
    await listener.aclose()
