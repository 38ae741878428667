"""One blob passed on while it arrives from a peer, hashed on the way, going on from another peer when one fails.

Laws:
- bytes go out in order and each of them once, whoever sent it (`supply`);
- of a whole response the last 64 KiB wait until the digest of everything is right: wrong content never ends cleanly;
- when nobody is left the pump raises, upon which the server cuts the response short of its length.
"""

import trio

from p2pmirror.errors import PeerMisbehaved, only_error
from p2pmirror.oci import Hasher
from p2pmirror.resolve.hashing import INLINE_BYTES, Hashing
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.race import Sources, Won
from p2pmirror.resolve.supply import Reopen, Supply
from p2pmirror.resolve.want import Content, Trail
from p2pmirror.wire.http import Sink
from p2pmirror.wire.identity import NodeId

TAIL_BYTES = 64 * 1024  # withheld until the digest is known: small beside any layer that is worth relaying
BUFFER_BYTES_MIN = 16 * 1024  # what each holds at first: two are 32 KiB for a client that stands still
BUFFER_BYTES_MAX = 1024 * 1024  # what it grows to in a quick one: fewer and longer receives, hashes and sends
GROWS_AFTER_BYTES = 512 << 10  # more than the kernels take for a client that reads nothing (`wire.tcp`)
BUFFERS_FIRST = 2  # one fills, one is hashed and sent
BUFFERS = 3  # and one lies between, for a quick client


class Relay:
    """Bytes `start` to `end` of one content: from `first`, and then from whoever else has it."""

    def __init__(
        self,
        content: Content,
        start: int,
        end: int,
        first: Won,
        *,
        reopen: Reopen,
        sources: Sources,
        trail: Trail,
        metrics: ResolveMetrics,
        hashing: Hashing,
    ) -> None:
        """Own the answer in `first`; `reopen` finds the next one."""
        self.content = content
        self.trail = trail
        self.began = trio.current_time()
        self._start = start
        self._end = end
        self._sources = sources
        self._metrics = metrics
        self._hashing = hashing
        self._supply = Supply(content, start, end, first, reopen=reopen, sources=sources, trail=trail, metrics=metrics)

    @property
    def position(self) -> int:
        """The next byte that is wanted from a source."""
        return self._supply.position

    @property
    def peer(self) -> NodeId:
        """Whose bytes are coming, or came last."""
        return self._supply.used[-1].node_id

    def close(self) -> None:
        """Let go of the peers; waits for nothing, twice does no harm."""
        self._supply.close()

    async def pump(self, sink: Sink) -> None:
        """Write the bytes into `sink`; raises `Unreachable` or `PeerMisbehaved`. Cancellation drops the source."""
        free_in, free_out = trio.open_memory_channel[bytearray](BUFFERS)
        full_in, full_out = trio.open_memory_channel[memoryview](0)
        for _ in range(BUFFERS_FIRST):
            free_in.send_nowait(bytearray(BUFFER_BYTES_MIN))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._supply.watch)
                nursery.start_soon(self._receive, free_out, full_in)
                await self._deliver(sink, full_out, free_in)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise only_error(group) from None
        finally:
            self.close()

    async def _receive(
        self, free: trio.MemoryReceiveChannel[bytearray], full: trio.MemorySendChannel[memoryview]
    ) -> None:
        """Fill buffers from one source after another; the channel ends only when every byte has come."""
        while self.position < self._end:
            buffer = memoryview(await free.receive())
            count = await self._supply.fill(buffer)
            await full.send(buffer[:count])
        full.close()

    async def _deliver(
        self,
        sink: Sink,
        full: trio.MemoryReceiveChannel[memoryview],
        free: trio.MemorySendChannel[bytearray],
    ) -> None:
        """Hash and send what has come; send the tail of a whole response when the digest is right."""
        whole = self._start == 0 and self._end == self.content.size
        hasher = self.content.digest.hasher() if whole else None
        head_left = self._end - self._start - (TAIL_BYTES if whole else 0)
        tail = bytearray()
        buffers = BUFFERS_FIRST
        async for data in full:
            now = max(0, min(len(data), head_left))
            head_left -= now
            if hasher is None:
                await sink.send_all(data)
            else:
                await self._send_and_hash(sink, data[:now], hasher, data)
                tail += data[now:]
            if sink.sent > GROWS_AFTER_BYTES and buffers < BUFFERS:
                buffers += 1
                free.send_nowait(bytearray(BUFFER_BYTES_MIN))
            free.send_nowait(_grown(data, sink.sent))
        if hasher is not None:
            self._check(hasher)
            await sink.send_all(tail)

    async def _send_and_hash(self, sink: Sink, head: memoryview, hasher: Hasher, data: memoryview) -> None:
        if len(data) <= INLINE_BYTES:
            await self._hashing(hasher, data)
            if head:
                await sink.send_all(head)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hashing, hasher, data)
            if head:
                await sink.send_all(head)

    def _check(self, hasher: Hasher) -> None:
        """Raise `PeerMisbehaved`, and ban everybody who sent a part, when the content is not what was asked for."""
        if self.content.digest.matches(hasher):
            return
        self._metrics.wrong_digests.inc()
        error = PeerMisbehaved(f"{self.content.digest}: the bytes that came have another digest")
        for provider in self._supply.used:
            self._sources.misbehaved(provider, self.content.digest, error)
        raise error


def _grown(data: memoryview, taken: int) -> bytearray:
    """Return the buffer to fill next: the same, or one twice as long.

    It grows when it had been filled to the brim and more was `taken` than the kernel holds for a client that stalls.
    """
    buffer = data.obj
    assert isinstance(buffer, bytearray)
    grows = len(data) == len(buffer) < BUFFER_BYTES_MAX and taken > GROWS_AFTER_BYTES
    return bytearray(2 * len(buffer)) if grows else buffer
