"""Agents without containerds: each on a host of its own, over a directory in OCI image layout. They start in a second.

Laws: what a test asks goes over the host's own sockets; how an answer ended is told exactly: whole, cut (a FIN short of
its length), or an error (a reset is one).
"""

from __future__ import annotations

import http.client
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import trio

from p2pmirror.oci import Digest
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.ocilayout import LayoutWriter
from tests.lab import sweep
from tests.lab.agent import REGISTRY_PORT, Agent
from tests.lab.lab import running
from tests.lab.network import Host, Network
from tests.lab.process import wait_until
from tests.store.images import Image, make_image

REGISTRY = "registry.example"
WAIT_S = 30.0  # for a byte: longer than whatever the agent may do
KNOWN_S = 10.0
_numbers = itertools.count()


@dataclass(frozen=True)
class Got:
    """What a client got: `announced` is the length that the head told."""

    status: int
    announced: int
    body: bytes
    seconds: float

    @property
    def is_cut(self) -> bool:
        """Whether it ended with a FIN short of its length."""
        return len(self.body) < self.announced


class Mate:
    """A host with an agent and its layout."""

    def __init__(self, host: Host, bootstrap: Sequence[Host], **settings: str) -> None:
        self.host = host
        self.layout = host.directory / "images"
        self.agent = Agent(host, bootstrap, store=f"oci-layout:{self.layout}", **settings)

    def put(self, *images: Image) -> None:
        """Write images into its layout, as another program would."""

        async def write() -> None:
            writer = LayoutWriter(self.layout, HostFiles())
            await writer.prepare()
            for image in images:
                for digest, (data, _) in image.content.items():
                    async with writer.blob(digest, len(data)) as sink:
                        await sink.write(data)
                for tag in image.tags:
                    await writer.tag(tag, image.root)

        trio.run(write)

    def get(self, digest: Digest | str, *, headers: Mapping[str, str] | None = None, kind: str = "blobs") -> Got:
        """Ask its agent from its own host, as containerd does; raises OSError, a reset among them."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", REGISTRY_PORT)
        connection.sock = self.host.connect(REGISTRY_PORT, timeout_s=WAIT_S)
        try:
            connection.request("GET", f"/v2/app/{kind}/{digest}?ns={REGISTRY}", headers=dict(headers or {}))
            response = connection.getresponse()
            announced = response.length or 0
            try:
                body = response.read()
            except http.client.IncompleteRead as short:
                body = short.partial
            return Got(response.status, announced, body, time.monotonic() - began)
        finally:
            connection.close()

    def wait_known(self, digest: Digest, *holders: Mate, alone: bool = True) -> None:
        """Wait until it finds exactly these for a digest; not `alone`: and perhaps others, where it lingers."""
        addresses = {holder.host.address for holder in holders}
        what = f"{self.host.name} finds {sorted(addresses)}"

        def is_known() -> bool:
            found = self.agent.find(str(digest))
            return found == addresses if alone else found >= addresses

        wait_until(is_known, what, timeout_s=KNOWN_S)


class Crew:
    """Some of these, made but not started; `settings` go to each. A context manager: it cleans up at the end."""

    def __init__(self, count: int, **settings: str) -> None:
        run = sweep.mark_of(os.getpid())
        self._prefix = f"{run}-c{next(_numbers)}"
        self.directory = sweep.directory_of(run) / self._prefix
        self.network = Network(self._prefix, self.directory)
        self._images = itertools.count(1)
        hosts = [self.network.add(f"n{number}", number) for number in range(1, count + 1)]
        self.mates = [Mate(host, hosts[:3], **settings) for host in hosts]
        for mate in self.mates:
            mate.put()
        running.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        running.remove(self)
        self.network.close()
        sweep.remove(self._prefix, self.directory)

    def start(self) -> Self:
        """Start every agent that does not run, and wait until all are ready and know one another."""
        for mate in self.mates:
            if not mate.agent.running:
                mate.agent.launch()
        for mate in self.mates:
            mate.agent.wait()
        for mate in self.mates:
            mate.agent.wait_for_members(len(self.mates))
        return self

    def image(self, *layer_bytes: int) -> Image:
        """Make an image that nobody has."""
        number = next(self._images)
        return make_image(f"{REGISTRY}/app:v{number}", seed=number, layer_bytes=layer_bytes, with_index=False)

    def logs(self) -> list[tuple[str, str]]:
        """Return the name and the end of the log of each process."""
        processes = {process.name: process for host in self.network.hosts.values() for process in host.processes}
        return [(name, process.tail()) for name, process in processes.items()]
