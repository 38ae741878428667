"""Hosts in network namespaces, joined by one switch, with no way out.

Laws:
- Hosts see one another and nothing else: there is no route beyond their subnet.
- Addresses may be the same in two labs: each lab has a switch namespace of its own.
- A socket belongs for ever to the namespace in which it was made, so the tests make theirs inside the host's and use
  them from wherever they are.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.process import COMMAND_S, Process, run
from tests.lab.sweep import NAMESPACES

SUBNET = "10.97.0"
CLONE_NEWNET = 0x40000000
BURST_S = 0.02  # what a busy host may send late; with a tick's 4 ms a full link lost a tenth of its rate for good
BURST_BYTES_MIN = 32 * 1024
QUEUE_MS = 50  # as a home router's queue: TCP sees loss, not a second of delay


@dataclass(frozen=True)
class Reply:
    """What an HTTP server in the lab answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Host:
    """A machine of the lab: a network namespace with one address."""

    def __init__(self, network: Network, name: str, address: str, directory: Path) -> None:
        self.name = name
        self.address = address
        self.directory = directory
        self.namespace = f"{network.prefix}-{name}"
        self.processes: list[Process] = []  # all that were started here, ended ones too
        self._network = network
        directory.mkdir(parents=True)

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return what runs `argv` in this namespace (`ip netns exec` would hide the cgroups from containerd)."""
        return ["nsenter", f"--net={NAMESPACES / self.namespace}", "--", *argv]

    def run(self, argv: Sequence[str], *, timeout_s: float = COMMAND_S, env: Mapping[str, str] | None = None) -> str:
        """Run a command here to its end and return its output; raises CommandFailed."""
        return run(self.command(argv), timeout_s=timeout_s, env=env)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Process:
        """Start a long-running process here; its log is `<directory>/<name>.log`."""
        process = Process(f"{name}@{self.name}", self.command(argv), self.directory / f"{name}.log", env)
        self.processes.append(process)
        return process

    def make_socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """Make an IPv4 socket of this host."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as home, (NAMESPACES / self.namespace).open() as there:
            _set_namespace(libc, there.fileno())
            try:
                return socket.socket(socket.AF_INET, kind)
            finally:
                _set_namespace(libc, home.fileno())

    def connect(self, port: int, *, address: str = "127.0.0.1", timeout_s: float = 5.0) -> socket.socket:
        """Open a TCP connection from this host; raises OSError."""
        sock = self.make_socket()
        try:
            sock.settimeout(timeout_s)
            sock.connect((address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def request(
        self,
        port: int,
        target: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        timeout_s: float = 10.0,
    ) -> Reply:
        """Make one HTTP request from this host; raises OSError or http.client.HTTPException."""
        connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
        connection.sock = self.connect(port, address=address, timeout_s=timeout_s)
        try:
            connection.request(method, target, headers=dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def shape(self, bits_per_s: int) -> None:
        """Limit what this host sends and what it receives, each to `bits_per_s`."""
        burst = max(BURST_BYTES_MIN, int(bits_per_s / 8 * BURST_S))
        limit = ["root", "tbf", "rate", f"{bits_per_s}bit", "burst", str(burst), "latency", f"{QUEUE_MS}ms"]
        _call("tc", "-n", self.namespace, "qdisc", "replace", "dev", "eth0", *limit)
        _call("tc", "-n", self._network.switch, "qdisc", "replace", "dev", self._port, *limit)

    def unshape(self) -> None:
        """Take the limits of `shape` away, if there are any."""
        _call("tc", "-n", self.namespace, "qdisc", "replace", "dev", "eth0", "root", "pfifo_fast")
        _call("tc", "-n", self._network.switch, "qdisc", "replace", "dev", self._port, "root", "pfifo_fast")

    def set_mtu(self, count: int) -> None:
        """Let frames on its cable carry so many bytes: 1,500, or 9,000 as in many data centres."""
        _call("ip", "-n", self.namespace, "link", "set", "eth0", "mtu", str(count))
        _call("ip", "-n", self._network.switch, "link", "set", self._port, "mtu", str(count))

    def sent_bytes(self) -> int:
        """Return how many bytes this host has put on its cable."""
        statistics = json.loads(_call("ip", "-n", self.namespace, "-json", "-statistics", "link", "show", "eth0"))
        return int(statistics[0]["stats64"]["tx"]["bytes"])

    def link(self, *, up: bool) -> None:
        """Pull the cable at the switch, or put it back."""
        _call("ip", "-n", self._network.switch, "link", "set", self._port, "up" if up else "down")

    def move(self, number: int) -> None:
        """Give it another address, as a machine has that comes back; what listened at the old one is cut off."""
        _call("ip", "-n", self.namespace, "address", "flush", "dev", "eth0")
        self.address = f"{SUBNET}.{number}"
        _call("ip", "-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")

    @property
    def _port(self) -> str:
        return f"p-{self.name}"


class Network:
    """A switch and the hosts on it. `prefix` opens the names of all its namespaces; `directory` holds their files."""

    def __init__(self, prefix: str, directory: Path) -> None:
        self.prefix = prefix
        self.directory = directory
        self.switch = f"{prefix}-switch"
        self.hosts: dict[str, Host] = {}
        _call("ip", "netns", "add", self.switch)
        self._bridges = 0
        self._bridge = self._add_bridge()

    def add(self, name: str, number: int) -> Host:
        """Add a host at 10.97.0.<number>; its name has at most 10 characters (it names an interface)."""
        host = Host(self, name, f"{SUBNET}.{number}", self.directory / name)
        port = f"p-{name}"
        _call("ip", "netns", "add", host.namespace)
        veth = ["type", "veth", "peer", "name", "eth0", "netns", host.namespace]
        _call("ip", "-n", self.switch, "link", "add", port, *veth)
        _call("ip", "-n", self.switch, "link", "set", port, "master", self._bridge, "up")
        _call("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        _call("ip", "-n", host.namespace, "link", "set", "eth0", "up")
        _call("ip", "-n", host.namespace, "link", "set", "lo", "up")
        self.hosts[name] = host
        return host

    def part(self, *islands: Iterable[Host]) -> None:
        """Cut the network: hosts of one island see one another only; those not named stay together."""
        for island in islands:
            bridge = self._add_bridge()
            for host in island:
                _call("ip", "-n", self.switch, "link", "set", f"p-{host.name}", "master", bridge)

    def close(self) -> None:
        """End all processes on it at once; its namespaces and files are for `sweep.remove`."""
        for host in self.hosts.values():
            for process in host.processes:
                process.kill()

    def heal(self) -> None:
        """Join all islands again and put all cables back."""
        for host in self.hosts.values():
            _call("ip", "-n", self.switch, "link", "set", f"p-{host.name}", "master", self._bridge, "up")
        while self._bridges > 1:
            self._bridges -= 1
            _call("ip", "-n", self.switch, "link", "delete", f"br{self._bridges}")

    def _add_bridge(self) -> str:
        name = f"br{self._bridges}"
        self._bridges += 1
        _call("ip", "-n", self.switch, "link", "add", name, "type", "bridge")
        _call("ip", "-n", self.switch, "link", "set", name, "up")
        return name


def _set_namespace(libc: ctypes.CDLL, descriptor: int) -> None:
    # os.setns came with Python 3.12. It concerns the calling thread alone.
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


def _call(*argv: str) -> str:
    """Run a short command of iproute2 and return what it printed; raises RuntimeError with its error."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
