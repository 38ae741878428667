"""The sockets of this host keep the promises of every network, and a few of their own."""

import errno
import os
import socket
from pathlib import Path

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire import file_sending
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from tests.wire.conformance import Conformance, DiskFile, Setup, connection, receive_all, some_bytes


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class TestHosts(Conformance):
    @pytest.fixture(params=["127.0.0.1", "::1"])
    def setup(self, request: pytest.FixtureRequest) -> Setup:
        network = HostNetwork()
        return Setup(network, network, request.param, open_descriptors)

    async def test_cold_pages(self, setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the page cache cannot say, or says no, a thread reads every byte first and all of them arrive."""
        content = some_bytes(3_000_001)
        path = tmp_path / "content"
        path.write_bytes(content)
        file = DiskFile(path)
        answers = [errno.EAGAIN, errno.EOPNOTSUPP]
        reads: list[int] = []
        real = os.preadv

        def preadv(fd: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
            if flags:
                answers.append(answers.pop(0))
                raise OSError(answers[-1], "cold")
            reads.append(len(buffers[0]))
            return real(fd, buffers, offset)

        monkeypatch.setattr(file_sending.os, "preadv", preadv)
        before = open_descriptors()
        async with connection(setup) as (client, server), trio.open_nursery() as nursery:

            async def send() -> None:
                await server.send_file(file, 0, len(content))
                await server.send_eof()

            nursery.start_soon(send)
            assert await receive_all(client) == content
        assert sum(reads) >= len(content)
        assert open_descriptors() == before
        file.close()

    async def test_accept_without_descriptors(self, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
        """Accepting goes on after the descriptor table was full and after a connection that was gone."""
        listener = await setup.server.listen(Address.of(setup.host, 0))
        failures = [errno.EMFILE, errno.ECONNABORTED, errno.ENFILE]
        real = listener._sock.accept

        async def accept() -> object:
            if failures:
                raise OSError(failures.pop(), "")
            return await real()

        monkeypatch.setattr(listener._sock, "accept", accept, raising=False)
        client = await setup.client.connect(listener.address)
        with trio.fail_after(5):
            server = await listener.accept()
        assert server.remote == client.local
        assert not failures
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            nursery.start_soon(server.aclose)
        await listener.aclose()

    async def test_close_waits_a_second_at_most(self, setup: Setup) -> None:
        """A peer that never closes holds `aclose` for about a second, not longer."""
        async with connection(setup) as (_, server):
            with trio.fail_after(5):
                await server.aclose()


async def test_localhost_has_an_address() -> None:
    """A name is looked up in a thread; its addresses come sorted and once."""
    found = await HostNetwork().resolve("localhost", 80)
    assert found == sorted(set(found))
    assert {address.host for address in found} <= {"127.0.0.1", "::1"}


async def test_dialling_oneself() -> None:
    """A dial that Linux would join to itself is refused."""
    network = HostNetwork()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        with pytest.raises(Unreachable):
            await network.connect(Address("127.0.0.1", port))
    with pytest.raises(Unreachable, match="not to dial"):
        await network.connect(Address("0.0.0.0", port))
