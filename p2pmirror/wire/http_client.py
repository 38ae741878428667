"""An HTTP/1.1 client over `wire.Network` for questions without a body: connections are kept and used again.

Laws:
- leaving a request's block gives the connection back when its answer was read to the end, or closes it; a short rest
  that is already here is read first;
- a kept connection that turns out dead before a byte of the answer came is replaced once by a fresh one (GET, HEAD);
- a cancelled request closes its own connection and touches no other;
- dialling has a limit of its own; the head of an answer has the caller's.

Follows RFC 9112 section 9.3.1 (retrying).
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_answer import BadAnswer, ClientResponse, NoAnswer, exchange
from p2pmirror.wire.http_pool import Pool
from p2pmirror.wire.network import ByteStream, Dials

__all__ = ["BadAnswer", "ClientOptions", "ClientResponse", "HttpClient"]

REST_BYTES_MAX = 64 << 10  # reading 64 KiB that are here costs less than a dial
REST_S = 0.001  # "here": a socket that has them gives them at once


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Limits of a client; each in the unit of its name."""

    dial_timeout_s: float = (
        0.3  # a handshake within a cluster takes 1 ms; one lost SYN costs 1 s: another peer is nearer
    )
    idle_s: float = (
        60.0  # less than the 75 s of our server: the side that asks closes first, and never meets a dead one
    )
    kept_per_address_max: int = 8  # a node asks another for a few layers at once; more would only sit there
    kept_max: int = 256  # descriptors, over all addresses
    head_bytes_max: int = 32 << 10  # what our own server takes


class HttpClient:
    """Asks servers over one network."""

    def __init__(self, network: Dials, options: ClientOptions) -> None:
        self._network = network
        self._options = options
        self._closed = False
        self._pool = Pool(
            idle_s=options.idle_s, per_address_max=options.kept_per_address_max, total_max=options.kept_max
        )

    @property
    def kept(self) -> int:
        """Idle connections that are kept."""
        return len(self._pool)

    async def open(self, address: Address, method: str, target: str, headers: Mapping[str, str]) -> ClientResponse:
        """Ask; return the answer once its head has come. The caller reads its body, and closes it.

        Raises `Unreachable` (no connection, or a broken one), `BadAnswer` (no HTTP), `BadRequest` (a target or a field
        that cannot be sent). Cancelled, the connection is closed.
        """
        stream = self._pool.take(address, trio.current_time())
        if stream is not None:
            try:
                return await self._exchange(stream, address, method, target, headers)
            except NoAnswer:
                _drop(self._pool.forget(address))  # as old as this one: the host has restarted
                if method not in ("GET", "HEAD"):
                    raise
        return await self._exchange(await self._dial(address), address, method, target, headers)

    @asynccontextmanager
    async def request(
        self, address: Address, method: str, target: str, headers: Mapping[str, str]
    ) -> AsyncIterator[ClientResponse]:
        """Ask, as `open` does; the block reads the body. A short rest that is already here is read after it."""
        response = await self.open(address, method, target, headers)
        try:
            yield response
            if response.unread != 0:
                await _read_rest(response)
        finally:
            response.close()

    async def let_go_of_old(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Close kept connections as they become too old, until cancelled: without questions nothing else would."""
        task_status.started()
        while True:
            await trio.sleep(self._options.idle_s / 2)
            _drop(self._pool.expire(trio.current_time()))

    async def aclose(self) -> None:
        """Close the kept connections; those in use are closed with their answers. Never waits."""
        self._closed = True
        _drop(self._pool.clear())
        await trio.lowlevel.checkpoint()

    async def _exchange(
        self, stream: ByteStream, address: Address, method: str, target: str, headers: Mapping[str, str]
    ) -> ClientResponse:
        try:
            response = await exchange(
                stream, address, method, target, headers, head_bytes_max=self._options.head_bytes_max
            )
        except BaseException:
            stream.abort()
            raise
        response.on_close(partial(self._give_back, address, stream))
        return response

    async def _dial(self, address: Address) -> ByteStream:
        timeout_s = self._options.dial_timeout_s
        with trio.move_on_after(timeout_s):
            return await self._network.connect(address)
        raise Unreachable(f"{address} did not take a connection within {timeout_s * 1000:g} ms")

    def _give_back(self, address: Address, stream: ByteStream, response: ClientResponse) -> None:
        now = trio.current_time()
        if response.is_reusable and not self._closed:
            _drop(self._pool.give(address, stream, now))
        else:
            _drop([stream, *self._pool.expire(now)])


async def _read_rest(response: ClientResponse) -> None:
    """Read what is left of a body when that is little and already here."""
    try:
        with trio.move_on_after(REST_S):
            await response.read(REST_BYTES_MAX)
    except (Unreachable, BadAnswer):
        return  # broken, or too long: not reusable, which is all that matters by now


def _drop(streams: Iterable[ByteStream]) -> None:
    """Close connections at once, whatever they still have to say."""
    for stream in streams:
        stream.abort()
