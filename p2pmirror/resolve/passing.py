"""A blob passed on from its registry without being kept: for one reader, when there is no room to keep it for all.

Laws: as a flight's: bytes in order, each once; the last 64 KiB of a whole response only once the digest is right.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from p2pmirror.errors import UpstreamRefused
from p2pmirror.oci import Digest, Hasher
from p2pmirror.resolve.flight import TAIL_BYTES
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.upstream.protocol import Download
from p2pmirror.wire.http import Sink
from p2pmirror.wire.network import File

REREAD_BYTES = 1024 * 1024  # read again at a time, of what a flight had written

OpenAt = Callable[[int], AbstractAsyncContextManager[Download]]
"""Opens the blob at its registry, from a byte on."""


@dataclass(eq=False)
class Passage:
    """Bytes `start` to `end` of a blob of `size`, from its registry; `position` is how far it has come."""

    digest: Digest
    name: str  # registry/repository of the image for which it is asked
    size: int
    start: int
    end: int
    fetch: OpenAt
    hashing: Hashing
    metrics: ResolveMetrics
    position: int = field(init=False)

    def __post_init__(self) -> None:
        """Begin at the start."""
        self.position = self.start

    async def pump(self, sink: Sink) -> None:
        """Send all of it. Raises `UpstreamRefused`, `Unreachable`, upon which the response is cut."""
        await self._pass_on(sink, self._hasher())

    async def go_on(self, sink: Sink, position: int, written: File) -> None:
        """Send what is left after `position`, up to which a flight sent what it had `written`."""
        hasher = self._hasher()
        self.position = position
        if hasher is not None:
            for offset in range(0, position, REREAD_BYTES):
                data = await written.read_at(offset, min(REREAD_BYTES, position - offset))
                await self.hashing(hasher, memoryview(data))
        await self._pass_on(sink, hasher)

    def _hasher(self) -> Hasher | None:
        return self.digest.hasher() if self.start == 0 and self.end == self.size else None

    async def _pass_on(self, sink: Sink, hasher: Hasher | None) -> None:
        withheld_from = self.end if hasher is None else max(self.position, self.end - TAIL_BYTES)
        tail = bytearray()
        async with self.fetch(self.position) as download:
            if download.size != self.size:
                raise UpstreamRefused(f"{self.digest} has {self.size} bytes, and {download.size} now", status=502)
            while self.position < self.end and (data := await download.receive()):
                view = memoryview(data)[: self.end - self.position]
                if hasher is not None:
                    await self.hashing(hasher, view)
                now = max(0, min(len(view), withheld_from - self.position))
                if now:
                    await sink.send_all(view[:now])
                tail += view[now:]
                self.position += len(view)
        if hasher is not None and not self.digest.matches(hasher):
            self.metrics.upstream_wrong_digests.inc()
            raise UpstreamRefused(f"{self.digest}: the registry's bytes have another digest", status=502)
        if tail:
            await sink.send_all(tail)
