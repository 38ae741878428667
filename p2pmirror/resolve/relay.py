"""One blob passed on while it arrives from a peer, hashed on the way, going on from another peer when one fails.

Laws:
- bytes go out in order and each of them once, whoever sent it;
- of a whole response the last 64 KiB wait until the digest of everything is right: wrong content never ends cleanly;
- a source that breaks, stalls or lies is left, and the next one is asked from the very next byte;
- when nobody is left the pump raises, upon which the server cuts the response short of its length.
"""

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet

import trio

from p2pmirror.errors import NotHere, PeerMisbehaved, Unreachable, only_error
from p2pmirror.oci import Hasher
from p2pmirror.peers.protocol import Answer
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.race import Sources, Won
from p2pmirror.resolve.want import Content, Trail
from p2pmirror.routing.protocol import Provider
from p2pmirror.wire.http import Sink
from p2pmirror.wire.identity import NodeId

TAIL_BYTES = 64 * 1024  # withheld until the digest is known: small beside any layer that is worth relaying
BUFFER_BYTES_MIN = 32 * 1024  # what each holds at first: three are 96 KiB for a client that stands still
BUFFER_BYTES_MAX = 1024 * 1024  # what it grows to in a quick one: fewer and longer receives, hashes and sends
GROWS_AFTER_BYTES = 4 << 20  # Linux takes 4 MiB (tcp_wmem) for a client that reads nothing: that is no quickness
BUFFERS = 3  # one fills, one is hashed and sent, one lies between
STALL_S = 1.0  # without a byte: look for another source
STALL_MAX_S = 10.0  # without a byte and without another source: give up

Reopen = Callable[[int, AbstractSet[NodeId]], Awaitable[Won]]
"""Asks for the content from a byte on, of anybody but these nodes; raises `NotHere`."""


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
        self.position = start  # the next byte that is wanted from a source
        self._start = start
        self._end = end
        self._reopen = reopen
        self._sources = sources
        self._metrics = metrics
        self._hashing = hashing
        self._used: list[Provider] = []
        self._left: set[NodeId] = set()  # not to be asked again in this relay
        self._current: Won | None = None
        self._current_start = start
        self._current_began = self.began
        self._receiving = trio.CancelScope()
        self._waiting_since: float | None = None  # since when the source owes us a byte
        self._next: Won | None = None  # found by the watch while the current one stalls
        self._take(first)

    @property
    def peer(self) -> NodeId:
        """Whose bytes are coming, or came last."""
        return self._used[-1].node_id

    def close(self) -> None:
        """Let go of the peers; waits for nothing, twice does no harm."""
        self._drop_current()
        if self._next is not None:
            self._next.answer.close()
            self._next = None

    async def pump(self, sink: Sink) -> None:
        """Write the bytes into `sink`; raises `Unreachable` or `PeerMisbehaved`. Cancellation drops the source."""
        free_in, free_out = trio.open_memory_channel[bytearray](BUFFERS)
        full_in, full_out = trio.open_memory_channel[memoryview](0)
        for _ in range(BUFFERS):
            free_in.send_nowait(bytearray(BUFFER_BYTES_MIN))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
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
            count = await self._fill(buffer[: self._end - self.position])
            await full.send(buffer[:count])
        full.close()

    async def _fill(self, buffer: memoryview) -> int:
        """Receive at least one byte, from the current source or the next one; raises `Unreachable`."""
        while True:
            if self._current is None:
                self._take(await self._find_next())
            assert self._current is not None
            try:
                with trio.CancelScope() as self._receiving:
                    self._waiting_since = trio.current_time()
                    count = await _receive(self._current.answer, buffer)
                    self.position += count
                    return count
            except Unreachable:
                self._break_off()
            finally:
                self._waiting_since = None
            if self._receiving.cancelled_caught:
                self._leave_stalled()

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
        async for data in full:
            now = max(0, min(len(data), head_left))
            head_left -= now
            if hasher is None:
                await sink.send_all(data)
            else:
                await self._send_and_hash(sink, data[:now], hasher, data)
                tail += data[now:]
            free.send_nowait(_grown(data, sink.sent))
        if hasher is not None:
            self._check(hasher)
            await sink.send_all(tail)

    async def _send_and_hash(self, sink: Sink, head: memoryview, hasher: Hasher, data: memoryview) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hashing, hasher, data)
            if head:
                await sink.send_all(head)

    async def _watch(self) -> None:
        """Find another source when the current one owes a byte for `STALL_S`; give up after `STALL_MAX_S`."""
        while True:
            await trio.sleep(STALL_S / 2)
            since = self._waiting_since
            if since is None or self._current is None or trio.current_time() < since + STALL_S:
                continue
            found = await self._alternative(self._current.provider.node_id)
            if self._waiting_since != since:  # it goes on after all
                if found is not None:
                    found.answer.close()
            elif found is not None or trio.current_time() >= since + STALL_MAX_S:
                self._metrics.stalls.inc()
                self._next = found
                self._receiving.cancel()

    async def _alternative(self, stalled: NodeId) -> Won | None:
        try:
            return await self._reopen(self.position, self._left | {stalled})
        except NotHere:
            return None

    async def _find_next(self) -> Won:
        """Return the next source after one broke."""
        try:
            return await self._reopen(self.position, self._left)
        except NotHere:
            raise Unreachable(
                f"no peer is left for {self.content.digest} at byte {self.position} of {self.content.size}"
            ) from None

    def _take(self, won: Won) -> None:
        if self._used:
            self.trail.resumes += 1
            self._metrics.resumes.inc()
        self._used.append(won.provider)
        self.trail.peers.append(won.provider.node_id)
        self._current = won
        self._current_start = self.position
        self._current_began = trio.current_time()
        self._sources.scores.began(won.provider.node_id)

    def _break_off(self) -> None:
        """Leave a source that broke; one that gave something may be asked again, after the others."""
        assert self._current is not None
        provider = self._current.provider
        if self.position == self._current_start:
            self._left.add(provider.node_id)
        self._sources.broke(provider)
        self._drop_current()

    def _leave_stalled(self) -> None:
        """Leave a source that stalled, for the one that the watch found; raises `Unreachable` when it found none."""
        assert self._current is not None
        self._left.add(self._current.provider.node_id)
        self._sources.broke(self._current.provider)
        self._drop_current()
        found, self._next = self._next, None
        if found is None:
            raise Unreachable(f"nothing came for {STALL_MAX_S:.0f} s at byte {self.position} of {self.content.size}")
        self._take(found)

    def _drop_current(self) -> None:
        if self._current is not None:
            won, self._current = self._current, None
            won.answer.close()
            seconds = trio.current_time() - self._current_began
            self._sources.scores.ended(won.provider.node_id, self.position - self._current_start, seconds)

    def _check(self, hasher: Hasher) -> None:
        """Raise `PeerMisbehaved`, and ban everybody who sent a part, when the content is not what was asked for."""
        if self.content.digest.matches(hasher):
            return
        self._metrics.wrong_digests.inc()
        for provider in self._used:
            self._sources.misbehaved(provider, self.content.digest)
        raise PeerMisbehaved(f"{self.content.digest}: the bytes that came have another digest")


async def _receive(answer: Answer, buffer: memoryview) -> int:
    """Receive at least one byte; raises `Unreachable` when the peer has no more."""
    count = await answer.receive_into(buffer)
    if count == 0:
        raise Unreachable("the peer ended early")
    return count


def _grown(data: memoryview, taken: int) -> bytearray:
    """Return the buffer to fill next: the same, or one twice as long.

    It grows when it had been filled to the brim and more was `taken` than the kernel holds for a client that stalls.
    """
    buffer = data.obj
    assert isinstance(buffer, bytearray)
    grows = len(data) == len(buffer) < BUFFER_BYTES_MAX and taken > GROWS_AFTER_BYTES
    return bytearray(2 * len(buffer)) if grows else buffer
