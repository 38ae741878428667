"""Promises of what is left behind when an asker leaves at any moment: nothing that keeps the next one waiting."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from p2pmirror.upstream.transport import CONNECTIONS_MAX
from tests.cancellation import cancel_at_every_checkpoint
from tests.registries.docker import DockerRegistry
from tests.registries.holdings import Holdings
from tests.upstream.conformance import REGISTRY, read
from tests.upstream.setting import Client, client


async def check(made: Client, held: Holdings) -> None:
    """See that the client answers, and that no connection is kept by nobody."""
    with trio.fail_after(20):
        assert await made.upstream.resolve(REGISTRY, held.repository, "v1") == held.root
    check_pools(made)


async def check_blob(made: Client, held: Holdings) -> None:
    """See that a blob comes whole, and that no connection is kept by nobody."""
    with trio.fail_after(20):
        async with made.upstream.blob(REGISTRY, held.repository, held.layer_digest) as download:
            assert await read(download) == held.layer
    check_pools(made)


def check_pools(made: Client) -> None:
    (transport,) = made.client._transports
    for pool in transport._pools.values():
        assert all(connection.is_idle() for connection in pool.connections), pool.connections
        assert len(pool.connections) <= 2
    assert all(permits.value == CONNECTIONS_MAX for permits in transport._permits.values())


@pytest.mark.parametrize("what", ["tag", "document", "blob", "tags"])
async def test_cancelled_at_any_await(docker_registry: DockerRegistry, holdings: Holdings, what: str) -> None:
    """Over HTTP/1.1, at every await of a question, on a new connection and on one that was kept."""
    where = (REGISTRY, holdings.repository)
    async with client(docker_registry.url) as made:

        async def operation() -> None:
            if what == "tag":
                await made.upstream.resolve(*where, "v1")
            elif what == "document":
                await made.upstream.document(*where, holdings.manifest_digest)
            elif what == "tags":
                await made.upstream.tags(*where)
            else:
                async with made.upstream.blob(*where, holdings.layer_digest) as download:
                    await read(download)

        assert (
            await cancel_at_every_checkpoint(
                operation, lambda: (check_blob if what == "blob" else check)(made, holdings)
            )
            > 3
        )


@pytest.mark.parametrize("kept", [pytest.param(False, marks=pytest.mark.long), True])
async def test_cancelled_at_any_await_over_http_2(
    tmp_path: Path, holdings: Holdings, certificate: tuple[Path, Path], kept: bool
) -> None:
    """Over HTTP/2, at every await, also while others ask on the same connection: they are all answered."""
    registry = DockerRegistry(tmp_path)
    registry.start()
    registry.push(holdings)
    registry.stop()
    registry.start_with_tls(*certificate)
    url = f"https://127.0.0.1:{registry.port}"
    try:
        async with client(url, ca_file=certificate[0]) as whole:

            async def operation() -> None:
                if kept:
                    await ask_twice(whole)
                else:
                    async with client(url, ca_file=certificate[0]) as made:
                        await ask_twice(made)

            async def ask_twice(made: Client) -> None:
                async with trio.open_nursery() as nursery:
                    for _ in range(2):
                        nursery.start_soon(
                            made.upstream.document, REGISTRY, holdings.repository, holdings.manifest_digest
                        )

            assert await cancel_at_every_checkpoint(operation, lambda: check(whole, holdings)) > 3
    finally:
        registry.stop()
