"""HTTP to registries: httpx requests over httpcore's connections over `wire.Network`.

Laws:
- whatever goes wrong below is `Unreachable` above; no exception of httpx, httpcore, h11, h2 or ssl leaves this module;
- a body that is given up takes its connection with it, at once: nothing of it is read into the void; others
  whose answers it carried (HTTP/2) are told so by `Dropped`;
- documents may share one connection (HTTP/2); each blob has one of its own (HTTP/1.1), so that one that is given up or
  read slowly holds no other back;
- no clock but trio's and no environment decides anything: proxies come from the settings, idle connections are dropped
  by our own clock, since httpcore's is the real one.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, Literal, NoReturn

import h2.exceptions
import httpcore
import httpx
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.upstream.connection import Connection, Dials
from p2pmirror.upstream.dialling import Dialler
from p2pmirror.upstream.keeping import Pool, ProxyPool
from p2pmirror.upstream.tls import Alpn, Trust

CONNECT_S: Final = 10.0  # for names, dials and TLS: three lost packets in a row
SILENCE_S: Final = 20.0  # without one byte, though some are due; containerd gives up after 30
CONNECTIONS_MAX: Final = 64  # of a way: some ten images' layers at once, as a leader of a whole cluster fetches
CLOSE_S: Final = 1.0  # to let a given-up body run into its closed connection

Way = Literal["documents", "blobs"]

_TIMEOUTS: Final = {"connect": CONNECT_S, "read": SILENCE_S, "write": SILENCE_S, "pool": None}


_BROKEN: Final = (httpcore.NetworkError, httpcore.ProtocolError)  # of a connection that worked before
_FAILURES: Final = (
    *_BROKEN,
    httpcore.TimeoutException,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
    h2.exceptions.H2Error,  # of a body over HTTP/2, which httpcore leaves as it is
    ValueError,  # a status that is no number, a header that is no text
    KeyError,  # a frame for a stream that is none
)


class Dropped(Unreachable):
    """A body that broke off because somebody else who shared its connection was given up: it may be asked for again."""


class Body(httpx.AsyncByteStream):
    """The body of one answer, read part by part."""

    def __init__(self, response: httpcore.Response, permits: trio.Semaphore) -> None:
        """Read what `response` has; a place in `permits` is given back once at the end."""
        self._stream = response.stream
        assert isinstance(response.stream, AsyncIterable), "the stream of an asynchronous pool"
        self._parts = aiter(response.stream)
        self._connection: Connection = response.extensions["network_stream"]
        self._permits = permits
        self._ended = False

    async def receive(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises `Unreachable`, `Dropped`. Cancelled, it can only be closed."""
        while not self._ended:
            try:
                part = await anext(self._parts)
            except StopAsyncIteration:
                await self._end()
            except BaseException as error:
                self._connection.soiled = True
                if isinstance(error, _FAILURES):
                    if self._connection.is_dropped:
                        raise Dropped("the connection was dropped") from None
                    _raise(error, "")
                raise
            else:
                if part:
                    return part
        return b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while part := await self.receive():
            yield part

    async def aclose(self) -> None:
        """Give the connection back when the body has ended, else drop it. Never raises because of the other end."""
        if self._ended:
            return
        self._connection.drop()
        # Each generator of the libraries must run to its end by itself: abandoned ones are finished by nobody.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            try:
                while True:
                    await anext(self._parts)
            except (StopAsyncIteration, *_FAILURES):
                pass
            await self._end()

    async def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._permits.release()
            await self._stream.aclose()  # type: ignore[union-attr]  # the stream of an asynchronous pool


class RegistryTransport(httpx.AsyncBaseTransport):
    """Carries requests of one registry: to it, to its token server, to where its blobs are."""

    def __init__(self, dialler: Dialler, trust: Trust, proxy: str | None) -> None:
        """Dial nothing yet. `proxy` is a URL, with a name and a password or without."""
        self._dialler = dialler
        self._dials = Dials(dialler, trust)
        self._pools: dict[Way, httpcore.AsyncConnectionPool] = {
            "documents": _pool(self._dials, proxy, http2=True),
            "blobs": _pool(self._dials, proxy, http2=False),
        }
        # Nobody queues within a pool: there a place that falls free may be given to whoever has just left.
        self._permits = {way: trio.Semaphore(CONNECTIONS_MAX) for way in self._pools}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, its body still to be read; the request's extension `way` says which connections to use.

        Asks once more when a connection that was kept turned out to be dead. Raises `Unreachable`.
        """
        self._dialler.check_literal(request.url.host)
        permits = self._permits[_way_of(request)]
        await permits.acquire()
        try:
            with _translated(request.url.host):
                response = await self._ask_twice(request)
        except BaseException:
            permits.release()
            raise
        body = Body(response, permits)
        return httpx.Response(response.status, headers=response.headers, stream=body, request=request)

    async def close_old(self) -> None:
        """Close connections that have been idle for too long: by themselves pools do so at the next question only."""
        for pool in self._pools.values():
            for connection in pool.connections:
                if connection.has_expired():
                    await connection.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.aclose()

    async def _ask_twice(self, request: httpx.Request) -> httpcore.Response:
        try:
            return await self._ask(request)
        except httpcore.ConnectError:
            raise
        except _BROKEN:
            self._dials.retire()
            return await self._ask(request)

    async def _ask(self, request: httpx.Request) -> httpcore.Response:
        url = request.url
        return await self._pools[_way_of(request)].handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions={"timeout": _TIMEOUTS},
            )
        )


def _way_of(request: httpx.Request) -> Way:
    return "blobs" if request.extensions.get("way") == "blobs" else "documents"


def _pool(dials: Dials, proxy: str | None, *, http2: bool) -> httpcore.AsyncConnectionPool:
    if proxy is None:
        return Pool(ssl_context=Alpn.fresh(), max_connections=CONNECTIONS_MAX, http2=http2, network_backend=dials)
    url = httpx.URL(proxy)
    return ProxyPool(
        proxy_url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/"),
        proxy_auth=(url.username, url.password) if url.username else None,
        proxy_ssl_context=Alpn.fresh() if url.scheme == "https" else None,
        ssl_context=Alpn.fresh(),
        max_connections=CONNECTIONS_MAX,
        http2=http2,
        network_backend=dials,
    )


@contextmanager
def _translated(host: str = "") -> Iterator[None]:
    """Turn what the libraries raise into `Unreachable`."""
    try:
        yield
    except _FAILURES as error:
        _raise(error, host)


def _raise(error: BaseException, host: str) -> NoReturn:
    front = f"{host}: " if host else ""
    if isinstance(error, httpcore.ProxyError):
        raise Unreachable(f"{front}the proxy refused: {error}") from None
    raise Unreachable(f"{front}{error or type(error).__name__}"[:300]) from None
