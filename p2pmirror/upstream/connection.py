"""One connection as httpcore wants it, over a `wire.Stream`, and how such connections are made.

Laws:
- deadlines are trio's scopes here; what passes one is httpcore's timeout of that kind;
- a send that was cancelled leaves half a frame behind, so nothing is sent or received after it;
- an idle connection that servers may have closed is not used again: after `IDLE_S`, or once another one was found dead.
"""

import math
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpcore
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.upstream.dialling import Dialler, NotAllowed
from p2pmirror.upstream.tls import Alpn, Trust
from p2pmirror.wire.network import Stream
from p2pmirror.wire.tls import READ_BYTES, Plain, broken_by

IDLE_S: Final = 30.0  # load balancers close after 60 s and more


class Connection(httpcore.AsyncNetworkStream):
    """One connection; `above` is what is spoken through: the plain stream, or TLS over it."""

    def __init__(self, wire: Stream, above: trio.abc.Stream, dials: "Dials") -> None:
        """Take the stream over."""
        self._wire = wire
        self._above = above
        self._dials = dials
        self._generation = dials.generation
        self._used = trio.current_time()
        self._dropped = False
        self.soiled = False  # whether somebody has left a question on it

    @property
    def is_dropped(self) -> bool:
        """Whether we have closed it ourselves."""
        return self._dropped

    def drop(self) -> None:
        """Close at once; whoever reads or writes gets an error."""
        self._dropped = True
        self._wire.abort()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return some bytes, b"" at the end. Raises httpcore.ReadError, ReadTimeout. Cancellation loses none."""
        if self._dropped:
            raise httpcore.ReadError("the connection was dropped")
        # No context managers of our own here: this runs for each part of each blob.
        began = trio.current_time()
        with trio.CancelScope(deadline=math.inf if timeout is None else began + timeout):
            try:
                data = await self._above.receive_some(max(max_bytes, READ_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise httpcore.ReadError(broken_by(error)) from None
            self._used = trio.current_time()
            return bytes(data)
        raise httpcore.ReadTimeout("there was no answer in time")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all. Raises httpcore.WriteError, WriteTimeout. Cancelled, the connection is dropped."""
        if not buffer:
            return
        if self._dropped:
            raise httpcore.WriteError("the connection was dropped")
        whole = False
        try:
            with _errors(httpcore.WriteTimeout, httpcore.WriteError), _deadline(timeout):
                await self._above.send_all(buffer)
            whole = True
        finally:
            if not whole:
                self.drop()
        self._used = trio.current_time()

    async def aclose(self) -> None:
        """Close without waiting: we have said all, and want nothing more."""
        self.drop()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "Connection":
        """Return the connection with TLS over it. Raises httpcore.ConnectError, ConnectTimeout. Cancelled: dropped."""
        assert isinstance(ssl_context, Alpn), "every pool of ours is given one"
        protocols = ssl_context.protocols
        try:
            with _errors(httpcore.ConnectTimeout, httpcore.ConnectError), _deadline(timeout):
                context = await self._dials.trust.context(protocols)
                above = trio.SSLStream(self._above, context, server_hostname=server_hostname, https_compatible=True)
                await above.do_handshake()
        except BaseException:
            self.drop()
            raise
        return Connection(self._wire, above, self._dials)

    def get_extra_info(self, info: str) -> Any:
        """Tell httpcore which protocol was agreed on, and whether an idle connection is of no more use."""
        if info == "ssl_object" and isinstance(self._above, trio.SSLStream):
            return self._above
        if info == "is_readable":
            return self.is_stale
        return None

    @property
    def is_stale(self) -> bool:
        """Whether the other end may have closed it by now."""
        idle = trio.current_time() > self._used + IDLE_S
        return self._dropped or idle or self._generation != self._dials.generation


class Dials(httpcore.AsyncNetworkBackend):
    """Makes the connections of one registry."""

    def __init__(self, dialler: Dialler, trust: Trust) -> None:
        """Dial with `dialler`; TLS as `trust` says."""
        self.trust = trust
        self.generation = 0
        self._dialler = dialler

    def retire(self) -> None:
        """Let no connection that is idle now be used again: one of them was found dead."""
        self.generation += 1

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - httpcore's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - httpcore's signature
    ) -> Connection:
        """Dial a name. Raises httpcore.ConnectError, ConnectTimeout. Cancellation: undone."""
        with _errors(httpcore.ConnectTimeout, httpcore.ConnectError), _deadline(timeout):
            stream = await self._dialler.dial(host, port)
        return Connection(stream, Plain(stream), self)

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await trio.sleep(seconds)


@contextmanager
def _deadline(timeout_s: float | None) -> Iterator[None]:
    if timeout_s is None:
        yield
    else:
        with trio.fail_after(timeout_s):
            yield


@contextmanager
def _errors(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """Say in httpcore's words what went wrong."""
    try:
        yield
    except trio.TooSlowError:
        raise late("there was no answer in time") from None
    except NotAllowed:
        raise  # not a matter of the connection: httpcore passes it on
    except (trio.BrokenResourceError, trio.ClosedResourceError, Unreachable) as error:
        raise broken(broken_by(error)) from None
