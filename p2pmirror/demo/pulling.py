"""A registry client that pulls as containerd does: from its own node's agent, into that node's store.

Laws: three layers at a time; every byte is verified against its digest before it has a name; an answer that is cut
short is resumed by Range where it ended, up to three times in a row without progress; the tag is written last.

Follows the OCI distribution specification, section "Pull", and containerd's handling of `ns`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from p2pmirror.demo.failed import DemoFailed
from p2pmirror.demo.image import ARCHITECTURE
from p2pmirror.demo.place import Place
from p2pmirror.errors import PeerMisbehaved, Unreachable
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Descriptor, Digest, Index, Manifest, TagName, mediatype, parse_manifest
from p2pmirror.store.ocilayout import LayoutWriter
from p2pmirror.store.ocilayout.writer import Sink
from p2pmirror.wire.http_client import ClientResponse, HttpClient

LAYERS_AT_ONCE: Final = 3  # containerd's max_concurrent_downloads
TRIES_MAX: Final = 3  # in a row without a byte, as containerd
TRY_PAUSE_S: Final = 0.3  # between them
STALL_S: Final = 15.0  # without a byte: as good as cut; the agent itself looks for another source after 1 s
BUFFER_BYTES: Final = 256 << 10  # hashed in a fraction of a millisecond, so that the loop is never held up

_ACCEPT: Final = ", ".join([*sorted(mediatype.INDEXES), *sorted(mediatype.MANIFESTS), "*/*"])


@dataclass(slots=True)
class Progress:
    """How far one node's pull is, as far as others look at it. Bytes are counted once, however often they came."""

    received_bytes: int = 0
    client_resumes: int = 0  # times that the client had to go on by Range
    began: float | None = None  # trio's clock
    ended: float | None = None


class Puller:
    """Pulls on one node."""

    def __init__(self, node: Place, client: HttpClient, writer: LayoutWriter) -> None:
        """Ask `node`'s agent through `client`; write with `writer`."""
        self.progress = Progress()
        self._node = node
        self._client = client
        self._writer = writer

    async def pull(self, name: TagName) -> tuple[Descriptor, ...]:
        """Pull an image; return what was pulled, the top one first. Raises `DemoFailed`, `StoreFull`.

        Cancelled, whole blobs stay and the tag is not there.
        """
        self.progress.began = trio.current_time()
        top = await self._resolve(name)
        descriptors = [top]
        document = await self._document(name, top)
        if isinstance(document, Index):
            manifest = _for_this_machine(document)
            descriptors.append(manifest)
            document = await self._document(name, manifest)
        if not isinstance(document, Manifest) or document.config is None:
            raise DemoFailed(f"{name} is no image")
        parts = (document.config, *document.layers)
        limiter = trio.CapacityLimiter(LAYERS_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for descriptor in parts:
                nursery.start_soon(self._blob, name, descriptor, limiter)
        await self._writer.tag(name, top)
        self.progress.ended = trio.current_time()
        return (*descriptors, *parts)

    async def _resolve(self, name: TagName) -> Descriptor:
        """Ask what the tag stands for, as containerd does before anything else."""
        async with self._ask("HEAD", f"manifests/{name.tag}", name, 0) as response:
            headers = response.headers
            digest = Digest.parse(headers.get("docker-content-digest", ""))
            return Descriptor(headers.get("content-type", ""), digest, response.length or 0)

    async def _document(self, name: TagName, descriptor: Descriptor) -> Index | Manifest:
        """Fetch a manifest or an index into the store, and read it."""
        async with self._ask("GET", f"manifests/{descriptor.digest}", name, 0) as response:
            data = await response.read(DOCUMENT_BYTES_MAX)
        if Digest.of(data, descriptor.digest.algorithm) != descriptor.digest:
            raise DemoFailed(f"{self._at} gave wrong bytes for {descriptor.digest}")
        async with self._writer.blob(descriptor.digest, descriptor.size) as sink:
            await sink.write(data)
        self.progress.received_bytes += len(data)
        return parse_manifest(data, descriptor.media_type)

    async def _blob(self, name: TagName, descriptor: Descriptor, limiter: trio.CapacityLimiter) -> None:
        """Fetch one blob into the store, verified; goes on by Range where an answer was cut short."""
        async with limiter, self._writer.blob(descriptor.digest, descriptor.size) as sink:
            download = _Download(descriptor, sink)
            fruitless = 0
            while download.position < descriptor.size:
                before = download.position
                try:
                    await self._go_on(name, download)
                except (Unreachable, PeerMisbehaved, trio.TooSlowError) as error:
                    fruitless = fruitless + 1 if download.position == before else 0
                    if fruitless == TRIES_MAX:
                        raise DemoFailed(f"{self._at} does not give {descriptor.digest}: {error}") from error
                    self.progress.client_resumes += 1
                    await trio.sleep(TRY_PAUSE_S)
            if not download.is_right:
                raise DemoFailed(f"{self._at} gave wrong bytes for {descriptor.digest}")

    async def _go_on(self, name: TagName, download: "_Download") -> None:
        """Receive from where the download stands up to its end. Raises `Unreachable`, `BadAnswer`, `TooSlowError`."""
        async with self._ask("GET", f"blobs/{download.descriptor.digest}", name, download.position) as response:
            buffer = memoryview(bytearray(BUFFER_BYTES))
            while True:
                with trio.fail_after(STALL_S):
                    count = await response.receive_into(buffer)
                if not count:
                    return
                await download.take(buffer[:count])
                self.progress.received_bytes += count

    @asynccontextmanager
    async def _ask(self, method: str, what: str, name: TagName, offset: int) -> AsyncIterator[ClientResponse]:
        """Ask this node's agent, as containerd asks a host of hosts.toml. Raises `Unreachable` when it says no."""
        target = f"/v2/{name.repository}/{what}?ns={name.registry}"
        headers = {"Accept": _ACCEPT, **({"Range": f"bytes={offset}-"} if offset else {})}
        async with self._client.request(self._node.registry, method, target, headers) as response:
            if response.status != (206 if offset else 200):
                raise Unreachable(f"{self._at} answers {method} {target} with {response.status}")
            if offset and not response.headers.get("content-range", "").startswith(f"bytes {offset}-"):
                raise Unreachable(f"{self._at} goes on elsewhere than at byte {offset} of {target}")
            yield response

    @property
    def _at(self) -> str:
        return f"the agent of node {self._node.number} ({self._node.registry})"


class _Download:
    """One blob on its way: what has come of it, hashed and written."""

    def __init__(self, descriptor: Descriptor, sink: Sink) -> None:
        self.descriptor = descriptor
        self.position = 0
        self._sink = sink
        self._hasher = descriptor.digest.hasher()

    async def take(self, data: memoryview) -> None:
        await self._sink.write(data)
        self._hasher.update(data)
        self.position += len(data)

    @property
    def is_right(self) -> bool:
        return self.descriptor.digest.matches(self._hasher)


def _for_this_machine(index: Index) -> Descriptor:
    for descriptor in index.manifests:
        platform = descriptor.platform
        if platform is not None and (platform.os, platform.architecture) == ("linux", ARCHITECTURE):
            return descriptor
    raise DemoFailed(f"the index has no manifest for linux/{ARCHITECTURE}")
