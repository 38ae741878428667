"""An HTTP/1.1 server over `wire.Listener`: accepts, limits, drains.

Laws:
- the acceptor and all connections live in the one nursery of `run`, which ends when all of them have;
- beyond `connections_max` a client is told 503 and closed, never left hanging;
- every connection ends in a FIN behind what was sent, also when it is cut;
- draining: no more accepts, idle connections closed at once, responses under way finished until the deadline, then cut;
- nothing is logged for a client's doing; only bugs of ours are.

Follows RFC 9112 section 9 (connections).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.http import Handler
from p2pmirror.wire.http_connection import Connection, refusal_bytes
from p2pmirror.wire.http_head import DateLine, Refused
from p2pmirror.wire.network import Listener, Stream

REFUSALS_MAX = 64  # at once; beyond, a client sees its connection closed: a flood must not cost memory
REFUSAL_S = 1.0  # for 200 bytes into an empty socket buffer: a client that takes none of it wants none
CLOSE_S = 2.0  # a close waits 1 s at most by its own law; this is the bound of the shield around it


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits of a server; each in the unit of its name."""

    head_bytes_max: int = 32 << 10  # containerd sends 1 KiB, with a large bearer token 8
    head_s: float = 10.0  # from a head's first byte to its last: one packet's way, and retransmissions
    idle_s: float = 75.0  # containerd and Docker keep connections 90 s and retry when we close first
    stall_s: float = 30.0  # containerd itself gives up on a body after 30 s without a byte
    connections_max: int = 2048  # 20 pulls of 100 layers; a descriptor and some 20 KiB each


class HttpServer:
    """Serves one listener with one handler."""

    def __init__(self, handler: Handler, options: ServerOptions, *, wall_s: Callable[[], float] = time.time) -> None:
        """`wall_s` gives seconds since 1970 for the Date field; a simulation passes its own."""
        self._handler = handler
        self._options = options
        self._date = DateLine(wall_s)
        self._connections: set[Connection] = set()
        self._refusals = 0
        self._accepting = trio.CancelScope()
        self._stopped = trio.Event()
        self._stopped.set()

    @property
    def connections(self) -> int:
        """Connections that are being served."""
        return len(self._connections)

    async def run(
        self, listener: Listener, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until drained; started with the listener's address. Takes the listener over.

        Cancelled, it cuts all connections with a FIN, which takes `CLOSE_S` at most.
        """
        self._stopped = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._accept, listener, nursery)
                task_status.started(listener.address)
        finally:
            self._stopped.set()

    async def drain(self, deadline: float) -> None:
        """Stop serving: returns when `run` has ended or is about to. `deadline` is on trio's clock.

        Cancelled, the server goes on draining without the deadline.
        """
        self._accepting.cancel()
        for connection in tuple(self._connections):
            connection.drain()
        with trio.move_on_at(deadline):
            await self._stopped.wait()
            return
        for connection in tuple(self._connections):
            connection.cut()
        await self._stopped.wait()

    async def _accept(self, listener: Listener, nursery: trio.Nursery) -> None:
        try:
            with self._accepting:
                while True:
                    self._admit(await listener.accept(), nursery)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await listener.aclose()

    def _admit(self, stream: Stream, nursery: trio.Nursery) -> None:
        if len(self._connections) < self._options.connections_max:
            connection = Connection(stream, self._handler, self._options, self._date)
            self._connections.add(connection)
            nursery.start_soon(self._serve, connection, stream)
        else:
            self._refusals += 1
            nursery.start_soon(self._refuse, stream, self._refusals <= REFUSALS_MAX)

    async def _serve(self, connection: Connection, stream: Stream) -> None:
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            await _close(stream)

    async def _refuse(self, stream: Stream, politely: bool) -> None:  # noqa: FBT001 - start_soon passes no keywords
        try:
            if politely:
                with trio.move_on_after(REFUSAL_S):
                    await stream.send_all(refusal_bytes(Refused(503, "too many connections"), self._date.text()))
        except Unreachable:
            pass
        finally:
            self._refusals -= 1
            await _close(stream, wait_s=CLOSE_S if politely else 0)


async def _close(stream: Stream, *, wait_s: float = CLOSE_S) -> None:
    """Close with a FIN, also while being cancelled."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + wait_s if wait_s else -math.inf):
        await stream.aclose()
