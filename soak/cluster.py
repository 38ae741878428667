"""The agents of a soak: real processes on loopback addresses of this run's own, each over its own image layout."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import trio
from prometheus_client.parser import text_string_to_metric_families

from p2pmirror.demo.agents import Agent
from p2pmirror.demo.place import Place
from p2pmirror.oci import Descriptor, Digest, TagName, mediatype
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.ocilayout import LayoutWriter
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from soak.levels import Level, level_of

STOP_S: Final = 25.0  # an agent's grace is 20 s
REGISTRY: Final = "soak.example"


class Node(Agent):
    """One agent and its layout."""

    def __init__(self, place: Place, client: HttpClient) -> None:
        """See `Agent`."""
        super().__init__(place, client)
        self.writer = LayoutWriter(place.layout, HostFiles())
        self.is_disturbed = False  # killed, stopped or frozen at the moment

    def launch(self, routers: list[str]) -> None:
        """Start it anew."""
        self.killed = False
        self.start(routers, "0", keep=False)

    async def stop(self) -> int | None:
        """SIGTERM; return the exit code, None when it did not end in time."""
        self.send(signal.SIGTERM)
        with trio.move_on_after(STOP_S):
            while self.pid is not None:  # noqa: ASYNC110  # another process: nothing to be woken by
                await trio.sleep(0.02)
            assert self._process is not None
            self.killed = True
            return int(self._process.returncode)
        return None

    def send(self, number: signal.Signals) -> None:
        """Signal it, when it is there."""
        if self.pid is not None:
            os.kill(self.pid, number)

    async def level(self) -> Level:
        """Return what it uses. Raises `Unreachable`."""
        metrics: dict[str, float] = {}
        for family in text_string_to_metric_families((await self._read("/metrics")).decode()):
            for sample in family.samples:
                name = "members_alive" if sample.labels.get("state") == "alive" else sample.name
                metrics[name] = metrics.get(name, 0.0) + sample.value
        status = await self.get("/api/v1/status")
        return level_of(metrics, int(status["records"]))


class Cluster:
    """Some nodes, which end with this process."""

    def __init__(self, count: int, directory: Path) -> None:
        """Describe them; nothing is started."""
        self.client = HttpClient(HostNetwork(), ClientOptions(dial_timeout_s=2.0, kept_max=0))
        pid = os.getpid()
        subnet = f"127.{100 + pid % 100}.{pid // 100 % 256}"
        places = [Place(number, f"{subnet}.{number}", directory / f"node-{number}") for number in range(1, count + 1)]
        self.nodes = [Node(place, self.client) for place in places]
        self.routers = [str(place.router) for place in places[:3]]

    async def start(self) -> None:
        """Start all and wait until they know one another. Raises `DemoFailed`."""
        for node in self.nodes:
            await node.writer.prepare()
            node.launch(self.routers)
        await self.wait()

    async def wait(self) -> None:
        """Wait until all are ready and know one another. Raises `DemoFailed`."""
        for node in self.nodes:
            await node.wait_ready(len(self.nodes))

    def kill(self) -> None:
        """End all."""
        for node in self.nodes:
            node.kill()

    def tails(self) -> Iterator[str]:
        """Return the ends of their logs."""
        return (node.tail() for node in self.nodes)


class Content:
    """The layers that are pulled, one image each, made from the seed."""

    def __init__(self, count: int, random: Random) -> None:
        """Make `count` layers of 1 KiB to 4 MiB, whose sizes are spread evenly over the powers of two."""
        layers = [random.randbytes(int(2 ** random.uniform(10, 22))) for _ in range(count)]
        self.layers = {Digest.of(data): data for data in layers}

    async def put(self, node: Node, digest: Digest) -> None:
        """Give a node the image of one layer."""
        layer = Descriptor(mediatype.OCI_LAYER, digest, len(self.layers[digest]))
        config = b'{"os":"linux","architecture":"amd64"}'
        parts = {digest: self.layers[digest], Digest.of(config): config}
        manifest = _manifest(Descriptor(mediatype.OCI_CONFIG, Digest.of(config), len(config)), layer)
        parts[Digest.of(manifest)] = manifest
        for each, data in parts.items():
            async with node.writer.blob(each, len(data)) as sink:
                await sink.write(data)
        await node.writer.tag(self.tag(digest), Descriptor(mediatype.OCI_MANIFEST, Digest.of(manifest), len(manifest)))

    async def drop(self, node: Node, digest: Digest) -> None:
        """Take the image from a node."""
        await node.writer.untag(self.tag(digest))

    def tag(self, digest: Digest) -> TagName:
        """Return the name of a layer's image."""
        return TagName(REGISTRY, "app", digest.hex[:16])


def _manifest(config: Descriptor, layer: Descriptor) -> bytes:
    def written(each: Descriptor) -> str:
        return f'{{"mediaType":"{each.media_type}","digest":"{each.digest}","size":{each.size}}}'

    kind = mediatype.OCI_MANIFEST
    fields = f'"schemaVersion":2,"mediaType":"{kind}","config":{written(config)},"layers":[{written(layer)}]'
    return f"{{{fields}}}".encode()
