"""Agents that fetch from the lab's registry themselves: their configuration, and what stands before the registry.

Laws: what a test serves from its own process (a fault proxy, a token server) listens inside a host of the lab, so that
agents meet it as they would meet any other.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.http import Handler
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from p2pmirror.wire.tcp import BACKLOG_CONNECTIONS, TcpListener, TcpStream
from tests.lab.agent import Agent
from tests.lab.builds import distribution_build
from tests.lab.hosts import write_hosts
from tests.lab.lab import Lab, Node
from tests.lab.network import Host
from tests.lab.registry import NAME, PORT, Registry
from tests.registries.docker import PASSWORD, USER
from tests.registries.faults import FaultProxy

PROXY_PORT = 5001
TOKENS_PORT = 5002
FIRST_BYTE = "15s"
NOBODY = "http://127.0.0.1:1"


@dataclass(frozen=True)
class Upstream:
    """A registry that an agent fetches from, as a table of its configuration says it."""

    url: str
    name: str = NAME
    credentials: str = ""
    tag_ttl: str = "0s"

    def table(self) -> str:
        """Return the table."""
        lines = [f'name = "{self.name}"', f'url = "{self.url}"', "private_addresses = true"]
        lines += [f'tag_ttl = "{self.tag_ttl}"', f'credentials = "{self.credentials}"']
        return "\n".join(["[[registries]]", *lines, ""])


def fetch_through(agent: Agent, *upstreams: Upstream, cache: Path | None = None) -> None:
    """Have an agent, once started, fetch from these registries, into a cache of its own (`cache_of`) or in `cache`."""
    config = agent.host.directory / "agent.toml"
    config.write_text("\n".join(each.table() for each in upstreams))
    agent.settings["config"] = str(config)
    agent.settings["cache_dir"] = str(cache or cache_of(agent))
    agent.settings["first_byte_timeout"] = FIRST_BYTE  # a busy machine is no slow registry


@contextmanager
def one_that_fetches(name: str = NAME) -> Iterator[Lab]:
    """Make an agent with a cache and no containerd, which is not started, and a registry that it knows by a name."""
    build = distribution_build()
    assert build is not None
    with Lab(1, build, store="none") as lab:
        lab.registry.start()
        fetch_through(lab.nodes[0].agent, Upstream(lab.registry.url, name=name))
        yield lab


def cache_of(agent: Agent) -> Path:
    """Return where an agent keeps what it fetched."""
    return agent.host.directory / "cache"


def blobs_in(cache: Path) -> list[Path]:
    """Return the files of the blobs that a cache has kept."""
    return [path for path in (cache / "blobs").rglob("*") if path.is_file()]


def begun_in(cache: Path) -> list[Path]:
    """Return the files of what is being written to a cache."""
    return list(cache.rglob(".incoming-*"))


def ask_the_agent_alone(node: Node, name: str = NAME) -> None:
    """Leave containerd nobody but the agent to ask: what the agent cannot do then fails the pull.

    A server at which nobody listens stands for "nobody": containerd 1.6 refuses a file without any `[host]`.
    """
    write_hosts(node.containerd.certs, name, upstream=NOBODY, mirrors=[node.agent.url])


def login_file(directory: Path) -> str:
    """Return the setting `credentials` of a file with the login of tests.registries.docker."""
    path = directory / "login"
    path.write_text(f"{USER}:{PASSWORD}\n")
    return f"file:{path}"


def login_helper(agent: Agent) -> str:
    """Return the setting of a docker config that names a real helper program, which the agent finds in its PATH."""
    directory = agent.host.directory
    answer = json.dumps({"ServerURL": NAME, "Username": USER, "Secret": PASSWORD})
    helper = directory / "docker-credential-lab"
    helper.write_text(f"#!/bin/sh\n[ \"$1\" = get ] && cat >'{directory}/asked' && echo '{answer}'\n")
    helper.chmod(0o755)
    config = directory / "config.json"
    config.write_text(json.dumps({"credHelpers": {NAME: "lab"}}))
    agent.run_by = ["sh", "-c", f'PATH="{directory}:$PATH" exec "$@"', "sh"]
    return f"docker-config:{config}"


class Inside(HostNetwork):
    """The network as a process on a host of the lab has it."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._limiter = trio.CapacityLimiter(8)

    async def connect(self, address: Address) -> TcpStream:
        """Dial from the host. Raises `Unreachable`."""
        sock = trio.socket.from_stdlib_socket(self._host.make_socket())
        try:
            await sock.connect((address.host, address.port))
        except OSError as error:
            sock.close()
            raise Unreachable(str(error)) from error
        except BaseException:
            sock.close()
            raise
        return TcpStream(sock, Address(*sock.getsockname()), address, self._limiter)

    async def listen(self, address: Address) -> TcpListener:
        """Listen at the host."""
        await trio.lowlevel.checkpoint()
        sock = self._host.make_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG_CONNECTIONS)
        return TcpListener(trio.socket.from_stdlib_socket(sock), self._limiter)


async def fault_proxy(registry: Registry, nursery: trio.Nursery, *, port: int = PROXY_PORT) -> FaultProxy:
    """Start a proxy in front of the registry, on its host; the registry's log has what it asks for."""
    address = registry.host.address
    proxy = FaultProxy(Inside(registry.host), Address(address, PORT))
    await nursery.start(proxy.run, Address(address, port))
    return proxy


async def serve(host: Host, handler: Handler, nursery: trio.Nursery, *, port: int = TOKENS_PORT) -> str:
    """Serve HTTP on a host; returns the URL."""
    listener = await Inside(host).listen(Address(host.address, port))
    await nursery.start(HttpServer(handler, ServerOptions()).run, listener)
    return f"http://{host.address}:{port}"


async def pull(node: Node, name: str, *, fresh: bool = False) -> None:
    """Pull as a kubelet does, in a thread; `fresh`: by a containerd that has nothing. Raises PullFailed."""

    def work() -> None:
        if fresh:
            node.containerd.remove_all()
        node.containerd.pull(name)

    await trio.to_thread.run_sync(work)


def outcomes(agent: Agent, outcome: str) -> float:
    """Return how many requests for blobs and manifests ended so."""
    return sum(agent.metric("front_requests_total", kind=kind, outcome=outcome) for kind in ("blob", "manifest"))
