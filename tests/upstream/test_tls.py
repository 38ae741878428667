"""Promises of TLS and HTTP/2, with a real registry that speaks both: who is trusted, and what shares a connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from p2pmirror.errors import Unreachable, UpstreamRefused
from p2pmirror.upstream.credentials.login import Login
from p2pmirror.upstream.tokens import TokenKey, Tokens
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from tests.registries.docker import DockerRegistry, make_certificate
from tests.registries.faults import LOOPBACK, FaultProxy, redirect
from tests.registries.holdings import Holdings
from tests.registries.tls import TlsNetwork
from tests.upstream.conformance import ABSENT, REGISTRY, read
from tests.upstream.setting import client


@pytest.fixture(scope="module")
def secure(
    tmp_path_factory: pytest.TempPathFactory, holdings: Holdings, certificate: tuple[Path, Path]
) -> Iterator[DockerRegistry]:
    registry = DockerRegistry(tmp_path_factory.mktemp("secure"))
    registry.start()
    registry.push(holdings)
    registry.stop()
    registry.start_with_tls(*certificate)
    yield registry
    registry.stop()


def protocols(registry: DockerRegistry) -> set[str]:
    """Return which versions of HTTP its access log tells of since the last call."""
    log = registry.directory / "registry.log"
    said = log.read_text()
    log.write_text("")
    return {version for version in ("HTTP/1.1", "HTTP/2.0") if f'{version}" 200' in said}


async def test_documents_over_http_2_and_blobs_over_http_1(
    secure: DockerRegistry, holdings: Holdings, certificate: tuple[Path, Path]
) -> None:
    """Many small questions share a connection, each blob has one; all of it is right at once."""
    url = f"https://127.0.0.1:{secure.port}"
    protocols(secure)
    async with client(url, ca_file=certificate[0]) as made:

        async def document() -> None:
            found = await made.upstream.document(REGISTRY, holdings.repository, holdings.manifest_digest)
            assert found.data == holdings.manifest

        async def blob() -> None:
            async with made.upstream.blob(REGISTRY, holdings.repository, holdings.layer_digest) as download:
                assert await read(download) == holdings.layer

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(document)
        assert protocols(secure) == {"HTTP/2.0"}
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(blob)
        assert protocols(secure) == {"HTTP/1.1"}
        assert made.asked("ok") == 38


async def test_askers_that_leave_do_not_stop_the_others(
    secure: DockerRegistry, holdings: Holdings, certificate: tuple[Path, Path]
) -> None:
    """Questions on one connection of which some are cancelled in the middle are all answered that were not."""
    url = f"https://127.0.0.1:{secure.port}"
    answered = []
    async with client(url, ca_file=certificate[0]) as made:

        async def document(patience_s: float) -> None:
            with trio.move_on_after(patience_s):
                await made.upstream.document(REGISTRY, holdings.repository, holdings.manifest_digest)
                answered.append(patience_s)

        await document(20)
        with trio.fail_after(60):
            for number in range(1, 9):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(document, 30)
                        nursery.start_soon(document, number / 1000)
    assert answered.count(30) == 40


async def test_a_stranger_s_certificate_is_not_believed(
    secure: DockerRegistry, holdings: Holdings, tmp_path: Path
) -> None:
    """Without the authority that signed it, or with another one, a registry is Unreachable, and the reason is told."""
    other, _ = make_certificate(tmp_path)
    for ca_file in (None, other):
        async with client(f"https://127.0.0.1:{secure.port}", ca_file=ca_file) as made:
            with pytest.raises(Unreachable, match="certificate is not trusted"):
                await made.upstream.resolve(REGISTRY, holdings.repository, "v1")


async def test_a_certificate_for_another_name_is_not_believed(
    secure: DockerRegistry, holdings: Holdings, certificate: tuple[Path, Path]
) -> None:
    """The name that is asked for must stand in the certificate."""
    async with client(f"https://localhost:{secure.port}", ca_file=certificate[0]) as made:
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            await made.upstream.resolve(REGISTRY, holdings.repository, "v1")


async def test_a_ca_file_that_is_none_is_told_and_may_be_mended(
    secure: DockerRegistry, holdings: Holdings, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    """A file that cannot be used is named; once it can, the registry is asked without a restart."""
    ca_file = tmp_path / "ca.pem"
    async with client(f"https://127.0.0.1:{secure.port}", ca_file=ca_file) as made:
        with pytest.raises(Unreachable, match=r"ca\.pem"):
            await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
        ca_file.write_bytes(certificate[0].read_bytes())
        await trio.sleep(0.5)  # the pause after a failure
        assert await made.upstream.resolve(REGISTRY, holdings.repository, "v1") == holdings.root


async def test_plain_words_to_a_tls_port_and_the_other_way(
    secure: DockerRegistry, docker_registry: DockerRegistry
) -> None:
    """A wrong scheme in the settings is an error and not a hang."""
    for url in (f"https://127.0.0.1:{docker_registry.port}", f"http://127.0.0.1:{secure.port}"):
        async with client(url) as made:
            with trio.fail_after(10), pytest.raises(Exception, match=r"TLS failed|answered 400"):
                await made.upstream.resolve(REGISTRY, "library/app", "v1")


async def test_no_redirect_leads_from_tls_to_none(
    docker_registry: DockerRegistry, certificate: tuple[Path, Path], nursery: trio.Nursery
) -> None:
    """A registry over TLS cannot send a question where it could be read, or answered by anybody, on the way."""
    behind = Address("127.0.0.1", docker_registry.port)
    secure, plain = FaultProxy(TlsNetwork(*certificate), behind), FaultProxy(HostNetwork(), behind)
    await nursery.start(secure.run, LOOPBACK)
    await nursery.start(plain.run, LOOPBACK)
    secure.on("/blobs/", redirect(f"{plain.url}{{target}}"))
    async with client(f"https://{secure.address}", ca_file=certificate[0]) as made:
        with pytest.raises(UpstreamRefused, match="not followed") as caught:
            await made.upstream.blob_size(REGISTRY, "library/app", ABSENT)
    assert caught.value.status == 502
    assert secure.asked
    assert not plain.asked


async def test_no_password_is_sent_without_tls() -> None:
    """A public registry over TLS cannot name a token server without it: nobody is asked, and no name looked up."""
    tokens = Tokens(unasked, plain_realms=False)
    for realm in ("http://token.test/token", "http://registry.test/token", "//token.test", "token"):
        with pytest.raises(UpstreamRefused, match="none that is asked"):
            await tokens.get(TokenKey(realm, "s", "repository:a:pull", "ada"), Login("ada", "secret"))


async def unasked(request: httpx.Request, bytes_max: int) -> tuple[int, bytes]:
    raise AssertionError("a token server was asked without TLS")
