"""A datagram port read one by one."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Datagrams

Received = tuple[bytes, Address]


@asynccontextmanager
async def inbox(port: Datagrams) -> AsyncIterator[trio.MemoryReceiveChannel[Received]]:
    """Receive what comes to a port, datagram by datagram; it ends when the port is closed."""
    send, receive = trio.open_memory_channel[Received](math.inf)

    async def deliver() -> None:
        with send:
            await port.deliver(lambda data, source: send.send_nowait((data, source)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        with receive:
            yield receive
        nursery.cancel_scope.cancel()
