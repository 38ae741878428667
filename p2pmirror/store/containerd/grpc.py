"""A small gRPC client: calls over one HTTP/2 connection that is made when it is needed.

Laws:
- one connection for all calls; a lost one fails every call on it with `Unreachable`, and the next call dials anew;
- deadlines are the caller's (`trio.fail_after`); a cancelled call is reset at the server and disturbs no other;
- three errors only: `RpcError` (the server answered no), `Unreachable` (no server), ValueError (a request too large).

Uncompressed messages, unary and server-streaming calls: what containerd's and the kubelet's APIs are made of. Follows
the gRPC over HTTP/2 protocol description.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Generic, Self, TypeVar

import trio
from google.protobuf.message import DecodeError, Message

from p2pmirror.errors import Unreachable
from p2pmirror.store.containerd.call import Call
from p2pmirror.store.containerd.connection import Connection, Headers
from p2pmirror.store.containerd.status import Code, RpcError

__all__ = ["Channel", "Code", "Dial", "Responses", "RpcError", "open_channel", "unix_dial"]

Dial = Callable[[], Awaitable[trio.abc.Stream]]
Response = TypeVar("Response", bound=Message)


class Channel:
    """A server to call; its calls carry `metadata`. `run` must be running while it is used."""

    def __init__(self, dial: Dial, metadata: Headers = ()) -> None:
        self._dial = dial
        self._metadata = tuple(metadata)
        self._nursery: trio.Nursery | None = None
        self._connection: Connection | None = None
        self._dialling = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the connection's tasks until cancelled; `started()` comes at once, before anything is dialled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def unary(self, path: str, request: Message, response: type[Response]) -> Response:
        """Call `path` (such as `/containerd.services.version.v1.Version/Version`) and return its one response.

        Raises `RpcError`, `Unreachable`. Cancellation resets the call.
        """
        found: Response | None = None
        async with self.stream(path, request, response) as messages:
            async for message in messages:
                if found is not None:
                    raise RpcError(Code.INTERNAL, f"more than one response to {path}")
                found = message
        if found is None:
            raise RpcError(Code.INTERNAL, f"no response to {path}")
        return found

    @asynccontextmanager
    async def stream(
        self, path: str, request: Message, response: type[Response]
    ) -> AsyncIterator["Responses[Response]"]:
        """Call `path` and give an iterator over its responses; leaving the block before their end resets the call.

        The iterator raises `RpcError`, `Unreachable`.
        """
        connection = await self._connected()
        async with connection.call(path, request.SerializeToString(), self._metadata) as call:
            yield Responses(call, response)

    async def _connected(self) -> Connection:
        async with self._dialling:
            if self._connection is None or not self._connection.usable:
                if self._nursery is None:
                    raise Unreachable("the connection to containerd is not being kept")
                try:
                    stream = await self._dial()
                except OSError as error:
                    raise Unreachable(str(error)) from error
                self._connection = Connection(stream)
                self._nursery.start_soon(self._connection.run)
            return self._connection


class Responses(Generic[Response]):
    """The responses of one call, in order."""

    def __init__(self, call: Call, response: type[Response]) -> None:
        self._call = call
        self._response = response

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        """Return the next response. Raises `RpcError`, `Unreachable`. Cancellation loses nothing."""
        data = await self._call.__anext__()
        try:
            return self._response.FromString(data)
        except DecodeError:
            raise RpcError(Code.INTERNAL, f"a response that is no {self._response.DESCRIPTOR.name}") from None


@asynccontextmanager
async def open_channel(dial: Dial, metadata: Headers = ()) -> AsyncIterator[Channel]:
    """Give a channel that runs as long as the block; an exception of the block comes out as it is, in no group."""
    failure: Exception | None = None
    channel = Channel(dial, metadata)
    async with trio.open_nursery() as nursery:
        await nursery.start(channel.run)
        try:
            yield channel
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery that would wrap it
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def unix_dial(path: Path | str) -> Dial:
    """Return a way to dial a unix socket."""

    async def dial() -> trio.abc.Stream:
        return await trio.open_unix_socket(str(path))

    return dial
