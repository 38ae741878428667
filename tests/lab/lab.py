"""A cluster of the lab: a registry, and nodes with a containerd and an agent each.

Laws: all of it is plain, blocking code; async tests call it through `at_once`, several calls together where they like.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Protocol, Self

import trio

from tests.lab import sweep
from tests.lab.agent import Agent
from tests.lab.containerd import NAMESPACE, Build, Containerd
from tests.lab.hosts import write_hosts
from tests.lab.images import Image, make_image
from tests.lab.network import Host, Network
from tests.lab.registry import NAME, Registry

REGISTRY_NUMBER = 254  # the last part of the registry's address; nodes count from 1
_numbers = itertools.count()


class Shown(Protocol):
    """Whatever has processes whose logs are shown when a test fails."""

    def logs(self) -> list[tuple[str, str]]:
        """Return the name and the end of the log of each process."""
        ...


class Node:
    """A host with its containerd and its agent, both not started."""

    def __init__(self, host: Host, build: Build, peers: Sequence[Host], **settings: str) -> None:
        self.host = host
        self.containerd = Containerd(host, build)
        store = {"containerd_sock": str(self.containerd.socket), "containerd_namespace": NAMESPACE}
        self.agent = Agent(host, peers, **store, **settings)


class Lab:
    """A registry and `count` nodes, made but not started. Use it as a context manager: it cleans up at the end.

    `settings` go to every agent. containerd asks the node's own agent first, then the registry.
    """

    def __init__(self, count: int, build: Build, **settings: str) -> None:
        run = sweep.mark_of(os.getpid())
        self._prefix = f"{run}-{next(_numbers)}"
        self._images = itertools.count(1)
        self.directory = sweep.directory_of(run) / self._prefix
        self.network = Network(self._prefix, self.directory)
        self.registry = Registry(self.network.add("registry", REGISTRY_NUMBER))
        hosts = [self.network.add(f"n{number}", number) for number in range(1, count + 1)]
        self.nodes = [Node(host, build, hosts, **settings) for host in hosts]
        for node in self.nodes:
            write_hosts(node.containerd.certs, NAME, upstream=self.registry.url, mirrors=[node.agent.url])
        running.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the registry, the containerds, and the agents; wait until all agents know one another."""
        self.registry.start()
        self.start_containerds()
        self.start_agents()

    def start_containerds(self) -> None:
        """Start every containerd and wait until all answer."""
        for node in self.nodes:
            node.containerd.launch()
        for node in self.nodes:
            node.containerd.wait()

    def start_agents(self) -> None:
        """Start every agent that does not run and wait until all are ready and know one another."""
        for node in self.nodes:
            if not node.agent.running:
                node.agent.launch()
        for node in self.nodes:
            node.agent.wait()
        for node in self.nodes:
            node.agent.wait_for_members(len(self.nodes))

    def repair(self) -> None:
        """Put everything back that a test broke: cables, rates, the registry, containerds, agents."""
        self.network.heal()
        for host in self.network.hosts.values():
            host.unshape()
        self.registry.stop()
        self.registry.start()
        for node in self.nodes:
            if not node.containerd.running:
                node.containerd.start()
        self.start_agents()

    def image(self, layer_bytes: Sequence[int], *, gzipped: bool = False, two_platforms: bool = False) -> Image:
        """Make an image with layers of these sizes that no other call of this lab makes; nobody has it yet."""
        number = next(self._images)
        directory = self.directory / "images" / str(number)
        repository = f"team/app-{number}"
        return make_image(
            directory, layer_bytes, seed=number, repository=repository, gzipped=gzipped, two_platforms=two_platforms
        )

    def logs(self) -> list[tuple[str, str]]:
        """Return the name and the end of the log of each process."""
        processes = {process.name: process for host in self.network.hosts.values() for process in host.processes}
        return [(name, process.tail()) for name, process in processes.items()]

    def close(self) -> None:
        """End everything and remove it."""
        running.remove(self)
        self.network.close()
        sweep.remove(self._prefix, self.directory)


running: list[Shown] = []  # those whose logs are shown when a test fails


async def at_once(*calls: Callable[[], object]) -> list[BaseException | None]:
    """Run blocking calls at the same time, each in a thread; returns what each raised. A cancellation waits for all."""
    outcomes: list[BaseException | None] = [None] * len(calls)

    async def one(number: int, call: Callable[[], object]) -> None:
        try:
            await trio.to_thread.run_sync(call)
        except Exception as error:
            outcomes[number] = error

    async with trio.open_nursery() as nursery:
        for number, call in enumerate(calls):
            nursery.start_soon(one, number, call)
    return outcomes
