"""A network whose listeners speak TLS, for servers that do not know of it."""

from __future__ import annotations

import ssl
from pathlib import Path

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.network import Listener, Stream
from p2pmirror.wire.tls import Plain


class TlsNetwork(HostNetwork):
    """This host's network; whoever dials a listener of it must speak TLS."""

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, key)

    async def listen(self, address: Address) -> TlsListener:
        return TlsListener(await super().listen(address), self._context)


class TlsListener:
    def __init__(self, listener: Listener, context: ssl.SSLContext) -> None:
        self._listener = listener
        self._context = context

    @property
    def address(self) -> Address:
        return self._listener.address

    async def accept(self) -> TlsStream:
        return TlsStream(await self._listener.accept(), self._context)

    async def aclose(self) -> None:
        await self._listener.aclose()


class TlsStream:
    """As much of a `wire.Stream` as servers of tests use."""

    def __init__(self, stream: Stream, context: ssl.SSLContext) -> None:
        self._stream = stream
        self._tls = trio.SSLStream(Plain(stream), context, server_side=True, https_compatible=True)

    async def send_all(self, data: bytes) -> None:
        try:
            await self._tls.send_all(data)
        except trio.BrokenResourceError as error:
            raise Unreachable(str(error)) from None

    async def receive_some(self, count_max: int) -> bytes:
        try:
            return bytes(await self._tls.receive_some(count_max))
        except trio.BrokenResourceError as error:
            raise Unreachable(str(error)) from None

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        self._stream.abort()
