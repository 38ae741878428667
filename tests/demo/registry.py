"""A registry in memory for the demo's client: serves what a layout holds, and breaks as it is told."""

from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import trio

from p2pmirror.demo.place import Place
from p2pmirror.demo.pulling import Puller
from p2pmirror.errors import Unreachable
from p2pmirror.oci import mediatype
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.store.ocilayout import LayoutWriter
from p2pmirror.wire.http import PumpBody, Response
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from p2pmirror.wire.memory import MemoryWorld

NODE = Place(2, "10.0.0.2", Path("/node-2"))
SOURCE = Path("/source/images")


class Registry:
    """Answers from `files`; `cuts` are the bytes after which the next answers for layers end too early."""

    def __init__(self, files, image):
        self.files = files
        self.image = image
        self.types = {each.digest.hex: each.media_type for each in image.pulled}
        self.asked = []
        self.cuts = []
        self.spoil = lambda data: data
        self.under_way = 0
        self.most = 0

    async def handle(self, request):
        self.asked.append((request.method, request.path, request.query, request.headers.get("range")))
        what = request.path.rpartition("/")[2]
        encoded = self.image.index.digest.hex if what == self.image.name.tag else what.partition(":")[2]
        data = await self.files.read_whole(SOURCE / "blobs" / "sha256" / encoded, 1 << 30)
        headers = {"Content-Type": self.types[encoded], "Docker-Content-Digest": f"sha256:{encoded}"}
        if self.types[encoded] != mediatype.OCI_LAYER:
            return Response(200, headers, data)
        offset = int(request.headers.get("range", "bytes=0-")[6:-1])
        if offset:
            headers["Content-Range"] = f"bytes {offset}-{len(data) - 1}/{len(data)}"
        rest = self.spoil(data)[offset:]
        cut = self.cuts.pop(0) if self.cuts else len(rest)

        async def pump(sink):
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            try:
                await trio.sleep(1)
                await sink.send_all(rest[:cut])
            finally:
                self.under_way -= 1
            if cut < len(rest):
                raise Unreachable("cut")

        return Response(206 if offset else 200, headers, PumpBody(len(rest), pump, lambda: None))


@asynccontextmanager
async def pulling(image_of):
    """Yield a registry, a puller that asks it, and the files of both; `image_of(writer)` puts the image there."""
    files = MemoryFiles()
    image = await image_of(LayoutWriter(SOURCE, files))
    registry = Registry(files, image)
    network = MemoryWorld(Random(2)).host(NODE.host)
    server = HttpServer(registry.handle, ServerOptions())
    client = HttpClient(network, ClientOptions())
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, await network.listen(NODE.registry))
        yield registry, Puller(NODE, client, LayoutWriter(NODE.layout, files)), files
        await client.aclose()
        nursery.cancel_scope.cancel()
