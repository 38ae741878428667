"""A registry in the simulated world: manifests and blobs over HTTP, at the rate of its host, counted.

Law: what it sent is counted when it has gone out, byte for byte, so that copies are what its link carried.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from math import ceil

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.oci import BlobPath, Digest, ManifestPath, mediatype, parse_path
from p2pmirror.wire.address import Address
from p2pmirror.wire.http import PumpBody, Request, Response, Sink
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from p2pmirror.wire.memory import MemoryNetwork, MemoryWorld
from p2pmirror.wire.ranges import Span, content_range, parse_range
from simulations.nodes import EPOCH_S

HOST, PORT = "10.240.0.1", 5000
NAME = "registry.example"
PART_BYTES = 64 * 1024  # sent at a time


class SimulatedRegistry:
    """Serves manifests and blobs; `sent_bytes` are those of blobs, `requests` all that were answered."""

    def __init__(self, world: MemoryWorld, *, rate: float | None) -> None:
        """Stand on a host of its own, whose streams share `rate` bytes a second."""
        self.tags: dict[str, Digest] = {}
        self.asked: Counter[str] = Counter()  # for tags, manifests and blobs
        self.documents: dict[Digest, bytes] = {}
        self.answer_s = 0.0  # what an answer about a tag or a manifest takes
        self.network: MemoryNetwork = world.host(HOST, upload_rate=rate)
        self.blobs: dict[Digest, bytes] = {}
        self.sent_bytes = 0
        self.requests = 0
        self.askers: list[str] = []  # the hosts that asked for blobs, in order
        self.is_gone = False  # it refuses everything from now on, and breaks off what it sends
        self.silent_until = 0.0  # until then it takes connections, and sends nothing on any
        self.limited_until = 0.0  # until then it answers 429, and says when to come again

    @property
    def settings(self) -> list[dict[str, object]]:
        """The agents' setting `registries`."""
        return [{"name": NAME, "url": f"http://{HOST}:{PORT}", "private_addresses": True}]

    def put(self, data: bytes) -> Digest:
        """Have a blob."""
        digest = Digest.of(data)
        self.blobs[digest] = data
        return digest

    def tag(self, data: bytes, tag: str) -> Digest:
        """Have a manifest under a tag."""
        digest = self.tags[tag] = Digest.of(data)
        self.documents[digest] = data
        return digest

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        server = HttpServer(self._answer, ServerOptions(), wall_s=lambda: EPOCH_S + trio.current_time())
        await server.run(await self.network.listen(Address(HOST, PORT)), task_status=task_status)

    async def _answer(self, request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        self.requests += 1
        await trio.sleep_until(self.silent_until)
        if self.is_gone:
            return Response(503)
        left_s = self.limited_until - trio.current_time()
        if left_s > 0:
            return Response(429, {"Retry-After": str(ceil(left_s))})
        path = parse_path(request.path)
        if isinstance(path, ManifestPath):
            return await self._document(path.reference)
        if not isinstance(path, BlobPath) or path.digest not in self.blobs:
            return Response(200 if request.path == "/v2/" else 404)
        self.asked["blob"] += 1
        self.askers.append(request.remote.host)
        data = self.blobs[path.digest]
        span = parse_range(request.headers.get("range"), len(data))
        headers = {"Docker-Content-Digest": str(path.digest), "Content-Type": "application/octet-stream"}
        if span is None:
            return Response(200, headers, self._body(data, Span(0, len(data))))
        headers["Content-Range"] = content_range(span, len(data))
        return Response(206, headers, self._body(data, span))

    async def _document(self, reference: Digest | str) -> Response:
        self.asked["manifest" if isinstance(reference, Digest) else "tag"] += 1
        await trio.sleep(self.answer_s)
        digest = reference if isinstance(reference, Digest) else self.tags.get(reference)
        if digest not in self.documents:
            return Response(404)
        headers = {"Docker-Content-Digest": str(digest), "Content-Type": mediatype.OCI_MANIFEST}
        return Response(200, headers, self.documents[digest])

    def _body(self, data: bytes, span: Span) -> PumpBody:
        return PumpBody(span.count, partial(self._send, data, span), lambda: None)

    async def _send(self, data: bytes, span: Span, sink: Sink) -> None:
        for offset in range(span.offset, span.offset + span.count, PART_BYTES):
            await trio.sleep_until(self.silent_until)
            if self.is_gone:
                raise Unreachable("the registry is gone")
            part = data[offset : min(offset + PART_BYTES, span.offset + span.count)]
            await sink.send_all(part)
            self.sent_bytes += len(part)
