"""Questions to the API, one after the other on connections that end with the block: objects, and watches line by line.

Laws:
- any of the API's addresses will do: one that cannot be asked gives way to the next, in the order of chance;
- a 401 with a token that has been exchanged meanwhile is asked again once, with the new one;
- a watch hands out whole lines; a line that is cut off by the end of the connection was never said.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from random import Random
from typing import Final, TypeAlias, TypeVar
from urllib.parse import urlencode

from p2pmirror.errors import Unreachable
from p2pmirror.kubernetes.access import Access
from p2pmirror.kubernetes.objects import ApiRefused, Event, NoObject, decode, refusal_of
from p2pmirror.store.files import Files
from p2pmirror.version import VERSION
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import BadAnswer, ClientOptions, ClientResponse, HttpClient
from p2pmirror.wire.network import Network
from p2pmirror.wire.tls import TlsDials

CONNECT_S: Final = 3.0  # a dial and a handshake: two lost packets; then another address is tried
TRIED_MAX: Final = 8  # addresses of the API: a cluster has three or five servers, mostly behind one address
ANSWER_BYTES_MAX: Final = 32 << 20  # 32 MiB: a list of some eighty thousand endpoints
REFUSAL_BYTES_MAX: Final = 64 << 10  # of a body that says why not
LINE_BYTES_MAX: Final = 8 << 20  # 8 MiB: an object has at most 1.5 MiB where the API keeps it, in a terser form
READ_BYTES: Final = 64 << 10  # of a watch at a time

Sessions: TypeAlias = Callable[[], AbstractAsyncContextManager["Session"]]
"""Opens one session after the other: `open_session` with what it needs."""

_Kind = TypeVar("_Kind")


@asynccontextmanager
async def open_session(access: Access, network: Network, files: Files, random: Random) -> AsyncIterator["Session"]:
    """Yield a session with the API; nothing is dialled before the first question. Raises `NoAccess`.

    Leaving the block, by cancellation too, closes its connections.
    """
    dials = TlsDials(network, access.place()[0], partial(access.context, files))
    client = HttpClient(dials, ClientOptions(dial_timeout_s=CONNECT_S))
    try:
        yield Session(access, network, files, random, client)
    finally:
        await client.aclose()


class Session:
    """Asks; made by `open_session`. For one task."""

    def __init__(self, access: Access, network: Network, files: Files, random: Random, client: HttpClient) -> None:
        """Ask nothing yet."""
        self._access = access
        self._network = network
        self._files = files
        self._random = random
        self._client = client

    async def get(self, path: str, kind: type[_Kind], query: Mapping[str, str] | None = None) -> _Kind:
        """Return the object at `path`. Raises `ApiRefused`, `NoAccess`, `Unreachable`, `PeerMisbehaved`.

        Cancelled, the connection is closed.
        """
        response = await self._open(path, query)
        try:
            body = await response.read(ANSWER_BYTES_MAX)
        finally:
            response.close()
        return decode(body, kind)

    async def watch(self, path: str, query: Mapping[str, str]) -> "Watch":
        """Return the changes at `path` once the API has begun to tell them; the caller closes it.

        Raises as `get` does. Cancelled, the connection is closed.
        """
        return Watch(await self._open(path, {"watch": "1", **query}))

    async def _open(self, path: str, query: Mapping[str, str] | None) -> ClientResponse:
        target = f"{path}?{urlencode(query)}" if query else path
        token = await self._access.token(self._files)
        try:
            return await self._ask(target, token)
        except ApiRefused as error:
            if error.status != 401 or (fresh := await self._access.token(self._files)) == token:
                raise
        return await self._ask(target, fresh)

    async def _ask(self, target: str, token: str) -> ClientResponse:
        """Return an answer with 200, whose body is still to be read."""
        response = await self._ask_somewhere(target, token)
        if response.status == 200:
            return response
        try:
            body = await response.read(REFUSAL_BYTES_MAX)
        except (BadAnswer, Unreachable):
            body = b""  # whatever it was to explain, it refused
        finally:
            response.close()
        raise refusal_of(response.status, response.headers, body)

    async def _ask_somewhere(self, target: str, token: str) -> ClientResponse:
        host, port = self._access.place()
        headers = {
            "Host": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "Accept": "application/json",
            "Authorization": f"Bearer {token}",
            "User-Agent": f"p2pmirror/{VERSION}",
        }
        failure = Unreachable(f"{host} has no address")
        for address in await self._addresses(host, port):
            try:
                return await self._client.open(address, "GET", target, headers)
            except Unreachable as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> list[Address]:
        found = await self._network.resolve(host, port)
        return self._random.sample(found, min(len(found), TRIED_MAX))


class Watch:
    """The changes of a list, as they happen; made by `Session.watch`."""

    def __init__(self, response: ClientResponse) -> None:
        """Take over `response`, whose head has come."""
        self._response = response
        self._room = memoryview(bytearray(READ_BYTES))
        self._line = bytearray()  # what has come of the next lines
        self._searched = 0  # bytes of it in which there is no end

    async def next(self) -> Event | None:
        """Return the next change, None at the end, which comes with the time that was asked for.

        Raises `Unreachable` (broken), `PeerMisbehaved`. Cancelled, nothing is lost.
        """
        while True:
            end = self._line.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._line[:end])
                del self._line[: end + 1]
                self._searched = 0
                if line.strip():
                    return decode(line, Event)
                continue
            self._searched = len(self._line)
            if self._searched > LINE_BYTES_MAX:
                raise NoObject(f"a line of a watch has more than {LINE_BYTES_MAX} bytes")
            count = await self._response.receive_into(self._room)
            if not count:
                return None
            self._line += self._room[:count]

    def close(self) -> None:
        """Close the connection; twice does no harm."""
        self._response.close()
