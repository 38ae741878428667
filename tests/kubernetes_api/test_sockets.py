"""On real sockets, with files as the kubelet exchanges them: a token and a list of ten thousand endpoints."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from random import Random

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.kubernetes import Access
from p2pmirror.kubernetes.slices import Service
from p2pmirror.routing.bootstrap.kubernetes import KubernetesSetting, ServiceEndpoints
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.tls import TlsDials, TlsStream
from tests.kubernetes_api.api import TOKEN
from tests.kubernetes_api.certificates import Certificate
from tests.kubernetes_api.setting import named, real_api
from tests.registries.tls import TlsListener


class Mount:
    """A projected volume: the names are links, through a link that is turned over."""

    def __init__(self, directory: Path, certificate: Certificate) -> None:
        self.directory = directory
        self._authorities = certificate.pem
        self._count = 0
        self.write(TOKEN)
        for name in ("token", "ca.crt"):
            (directory / name).symlink_to(f"..data/{name}")

    def write(self, token: str) -> None:
        self._count += 1
        version = self.directory / f"..{self._count}"
        version.mkdir()
        (version / "token").write_text(token)
        (version / "ca.crt").write_bytes(self._authorities)
        fresh = self.directory / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.directory / "..data")


def bootstrap(environ: dict[str, str], directory: Path) -> ServiceEndpoints:
    access = Access.of(environ, directory)
    setting = KubernetesSetting("kubernetes:kube-system/p2pmirror", Service("kube-system", "p2pmirror"), access)
    return setting.on(HostNetwork(), HostFiles(), Random(1))


async def test_a_token_that_the_kubelet_exchanges(certificate: Certificate, tmp_path: Path) -> None:
    """After an exchange the old token is worth nothing, and everybody is still found, by the watch and by a list."""
    mount = Mount(tmp_path, certificate)
    async with real_api(certificate) as (api, environ), trio.open_nursery() as nursery:
        api.put("a", ["10.0.0.1"])
        asked = bootstrap(environ, tmp_path)
        assert await named(asked) == ["10.0.0.1:29998"]
        nursery.start_soon(asked.changed)
        with trio.fail_after(60):
            while not api.watches():  # noqa: ASYNC110 - the API of the test tells nobody
                await trio.sleep(0.01)
        api.tokens = {"second.token"}
        mount.write("second.token")
        api.break_watches()
        await trio.sleep(0.1)
        api.put("a", ["10.0.0.2"])
        with trio.fail_after(60):
            while await named(asked) != ["10.0.0.2:29998"]:  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
            while not api.watches():  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
        assert {each.headers["authorization"] for each in api.watched()} == {f"Bearer {TOKEN}", "Bearer second.token"}
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - their number is all
        nursery.cancel_scope.cancel()
    with trio.fail_after(60):
        while len(os.listdir("/proc/self/fd")) >= descriptors:  # noqa: ASYNC110, PTH208 - as above
            await trio.sleep(0.01)


async def test_ten_thousand_endpoints_on_a_socket(certificate: Certificate, tmp_path: Path) -> None:
    """A list of ten thousand is read page by page within the five seconds that a bootstrap has."""
    Mount(tmp_path, certificate)
    async with real_api(certificate) as (api, environ):
        for number in range(100):
            api.put(f"part-{number}", [f"10.{number}.0.{host}" for host in range(100)])
        asked = bootstrap(environ, tmp_path)
        with trio.fail_after(120):
            while len(await asked.addresses()) != 4096:  # noqa: ASYNC110 - a machine that stands still is asked again
                await trio.sleep(0.1)
        assert len(asked._endpoints.places) == 10_000
        assert {each.query["limit"] for each in api.lists()} == {"10"}


async def speak_on(stream: TlsStream) -> None:
    while True:
        await stream.send_all(b"to nobody")


async def test_a_connection_that_is_reset_under_tls(certificate: Certificate) -> None:
    """Whoever writes on a connection that the other end has dropped is told `Unreachable`, whatever TLS says."""
    listener = await HostNetwork().listen(Address("127.0.0.1", 0))
    trusting = ssl.create_default_context(cadata=certificate.pem.decode())

    async def context() -> ssl.SSLContext:
        await trio.lowlevel.checkpoint()
        return trusting

    async def drop() -> None:
        stream = await TlsListener(listener, certificate.serving).accept()
        assert await stream.receive_some(100) == b"hello"
        stream.abort()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drop)
            stream = await TlsDials(HostNetwork(), "127.0.0.1", context).connect(listener.address)
            assert stream.remote == listener.address
            await stream.send_all(b"hello")
        with pytest.raises(Unreachable):
            await speak_on(stream)
        stream.abort()
        await listener.aclose()
