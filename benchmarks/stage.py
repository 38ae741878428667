"""What the groups share: how much is measured, the content, and the pair of agents with their peers beside them.

Laws: everything is made when the first group needs it, once; all of it is gone when the block is left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

from benchmarks import peers
from benchmarks.content import MANIFEST, Image, write_images, write_manifests
from benchmarks.places import Place
from tests.lab import sweep
from tests.lab.agent import Agent
from tests.lab.network import Host
from tests.lab.process import Process, wait_until

MIB = 1 << 20
PLAIN_LAYERS = 10  # a manifest of 1.9 KiB
MANIFEST_BYTES = 5000  # of those that are asked of a peer


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    blob_mib: int = 1024  # one client
    shared_mib: int = 64  # each of many clients
    relayed_mib: int = 16  # each of many clients, of a peer
    flown_mib: int = 256  # a blob that arrives in a flight, another one each time: the last one lingers
    layers: int = 100  # of 1 MiB, for first bytes
    manifests: int = 1000  # of 5,000 bytes: more than an agent keeps in memory of what it fetched, 4 MiB
    rounds: int = 5
    seconds: float = 3.0  # of each turn that counts answers
    answers: int = 500  # asked one after another
    open_responses: int = 1000
    lookups: int = 1000
    idle_agents: int = 10
    idle_s: float = 30.0
    crowd_agents: int = 100  # some 45 MiB each
    crowd_s: float = 30.0
    simulated_nodes: int = 300  # a thousand take minutes
    settle_s: float = 5.0
    start_blobs: int = 2000
    starts: int = 5
    proxied_mib: int = 256  # a blob from a cache
    cold_mib: int = 64  # each blob that is fetched through
    cold_rounds: int = 3
    cold_small: int = 60  # blobs of 1 MiB, for first bytes
    cached_blobs: int = 10_000


QUICK = Scale(
    blob_mib=32,
    shared_mib=1,
    relayed_mib=1,
    flown_mib=9,
    layers=4,
    manifests=20,
    rounds=1,
    seconds=0.2,
    answers=20,
    open_responses=50,
    lookups=50,
    idle_agents=3,
    idle_s=1.0,
    crowd_agents=5,
    crowd_s=1.0,
    simulated_nodes=20,
    settle_s=0.5,
    start_blobs=100,
    starts=1,
    proxied_mib=4,
    cold_mib=2,
    cold_rounds=1,
    cold_small=4,
    cached_blobs=200,
)


@dataclass(frozen=True)
class Content:
    """The images in the one layout that is served.

    `big` has one layer for one client, one for many, and one for many who get it from a peer; `fine` has layers of
    1 MiB, `plain` a manifest of the usual size, `flown` a layer for each turn of a flight, and `many` have nothing but
    their manifests.
    """

    directory: Path
    big: Image
    fine: Image
    plain: Image
    flown: Image
    many: Sequence[Image]


class Stage:
    """Use it as a context manager."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def content(self) -> Content:
        """The content, written once."""
        scale = self.scale
        directory = sweep.directory_of(sweep.mark_of(os.getpid())) / "content"
        big = [size * MIB for size in (scale.blob_mib, scale.shared_mib, scale.relayed_mib)]
        flown = [scale.flown_mib * MIB] * (2 * (scale.rounds + 1))
        first, fine, plain, flights = write_images(directory, [big, [MIB] * scale.layers, [1000] * PLAIN_LAYERS, flown])
        many = write_manifests(directory, "bench/many", scale.manifests, MANIFEST_BYTES)
        return Content(directory, first, fine, plain, flights, many)

    @cached_property
    def pair(self) -> Pair:
        """The pair of agents, started."""
        return Pair(self._stack.enter_context(Place()), self.content)


class Pair:
    """Two hosts: `far` holds the content, `near` holds nothing and is where the client is."""

    def __init__(self, place: Place, content: Content) -> None:
        self.place = place
        self.far = place.host("far")
        self.near = place.host("near")
        hosts = [self.far, self.near]
        self.holder = place.agent(self.far, hosts, store=f"oci-layout:{content.directory}")
        self.relay = place.agent(self.near, hosts, store="none", scratch_max_bytes="0")  # passes on, and no more
        self.holder_process, self.relay_process = start_agents([self.holder, self.relay])
        self.content = content

    @cached_property
    def keeper(self) -> tuple[Host, Process]:
        """A third host, whose agent keeps what it fetches, and that agent's process."""
        host = self.place.host("keep")
        cluster = [self.far, self.near, host]
        agent = self.place.agent(host, cluster, store="none", cache_dir=str(host.directory / "cache"))
        agent.launch()
        agent.wait()
        wait_until(partial(_knows, agent, 2), f"{host.name} knows the others")
        return host, process_of(agent)

    @cached_property
    def nginx(self) -> Process | None:
        """The nginx that serves the files of the holder's layout; None: not installed."""
        return peers.start_nginx_files(self.far, self.content.directory) if peers.nginx_here() else None

    @cached_property
    def nginx_proxy(self) -> Process | None:
        """The nginx that passes on what the other one serves."""
        return peers.start_nginx_proxy(self.near, self.far) if self.nginx is not None else None

    @cached_property
    def registry(self) -> Process | None:
        """The docker-registry with the plain image; None: not installed."""
        if not peers.registry_here():
            return None
        process = peers.start_registry(self.far, self.far.directory / "registry")
        image = self.content.plain
        blobs = {digest: image.path(digest) for digest in (image.config, *image.layers)}
        peers.push(self.far, image.repository, image.manifest, MANIFEST, blobs)
        return process


def start_agents(agents: Sequence[Agent]) -> list[Process]:
    """Start agents and wait until all are ready and know one another; returns their processes."""
    for agent in agents:
        agent.launch()
    for agent in agents:
        agent.wait()
    for agent in agents:
        wait_until(partial(_knows, agent, len(agents) - 1), f"{agent.host.name} knows the others")
    return [process_of(agent) for agent in agents]


def process_of(agent: Agent) -> Process:
    """Return the process of an agent that runs."""
    assert agent.process is not None
    return agent.process


def _knows(agent: Agent, others: int) -> bool:
    members = agent.status()["members"]
    own = f"{agent.host.address}:"
    alive = [each for each in members if each["state"] == "alive" and not each["address"].startswith(own)]
    return len(alive) >= others
