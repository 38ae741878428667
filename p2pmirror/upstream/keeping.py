"""Connections that are kept between questions, so that whoever leaves in the middle of one leaves nothing behind.

httpcore 1.0 does not survive every cancellation: a connection whose asker left before the first word stays in its pool
for ever; one whose first asker is joined by others (HTTP/2) is forgotten, open, when one of those leaves; a stream that
was given up goes on taking from what its connection may carry. A newer httpcore without these would retire this module.

Laws:
- the first question on a connection is alone on it until it is answered; when it fails, the connection does;
- a connection on which a question was given up takes no new one, and is closed when the others on it are done;
- a connection is closed when it has been idle for too long, by trio's clock.
"""

import httpcore
import trio

from p2pmirror.upstream.connection import Connection
from p2pmirror.upstream.whole import hand_on_parts


class Kept(httpcore.AsyncConnectionInterface):
    """One connection of a pool."""

    def __init__(self, inner: httpcore.AsyncConnectionInterface) -> None:
        """Guard `inner`, which has not been opened."""
        self._inner = inner
        self._first = trio.Lock()
        self._stream: Connection | None = None  # once it has answered
        self._failed = False
        self._askers = 0

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Ask. Raises what httpcore raises. Cancellation: see the module."""
        self._askers += 1
        try:
            if self._stream is None:
                async with self._first:
                    if self._failed:
                        raise httpcore.ConnectionNotAvailable
                    if self._stream is None:
                        return await self._begin(request)
            return await self._go_on(request)
        finally:
            self._askers -= 1
            if self._stream is None and not self._askers:
                self._failed = True  # nobody came to open it, and nobody will

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()

    def info(self) -> str:
        """Tell its state."""
        return self._inner.info()

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        """Say whether it leads there."""
        return self._inner.can_handle_request(origin)

    def is_available(self) -> bool:
        """Say whether a question more may be put on it."""
        return not self._failed and not self._is_soiled and self._inner.is_available()

    def has_expired(self) -> bool:
        """Say whether it should be closed."""
        if self._failed or self._inner.has_expired():
            return True
        return self._stream is not None and self._inner.is_idle() and (self._is_soiled or self._stream.is_stale)

    def is_idle(self) -> bool:
        """Say whether nobody uses it."""
        return self._inner.is_idle()

    def is_closed(self) -> bool:
        """Say whether it is closed."""
        return self._failed or self._inner.is_closed()

    @property
    def _is_soiled(self) -> bool:
        return self._stream is not None and self._stream.soiled

    async def _begin(self, request: httpcore.Request) -> httpcore.Response:
        try:
            response = await self._inner.handle_async_request(request)
            self._stream = _stream_of(response)
            hand_on_parts(response)
        except BaseException:
            self._failed = True
            with trio.CancelScope(shield=True):  # bounded: to close one of ours waits for nothing
                await self._inner.aclose()
            raise
        return response

    async def _go_on(self, request: httpcore.Request) -> httpcore.Response:
        try:
            return await self._inner.handle_async_request(request)
        except httpcore.ConnectionNotAvailable:
            raise
        except BaseException:
            assert self._stream is not None, "it has answered before"
            self._stream.soiled = True
            raise


def _stream_of(response: httpcore.Response) -> Connection:
    stream = response.extensions.get("network_stream")
    if not isinstance(stream, Connection):
        raise httpcore.RemoteProtocolError("the connection was turned into something else")
    return stream


class Pool(httpcore.AsyncConnectionPool):
    """A pool of direct connections."""

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """See httpcore."""
        return Kept(super().create_connection(origin))


class ProxyPool(httpcore.AsyncHTTPProxy):
    """A pool of connections through a proxy."""

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """See httpcore."""
        return Kept(super().create_connection(origin))
