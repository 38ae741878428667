"""Where a demo takes place: its addresses, ports and directory, looked at before anything is started."""

import errno
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pmirror.config.settings import OBSERVABILITY_PORT, REGISTRY_PORT, ROUTER_PORT
from p2pmirror.demo.failed import DemoFailed
from p2pmirror.wire.address import Address

NODES: Final = 5
UPSTREAM_NAME: Final = "cold.example"
UPSTREAM: Final = Address("127.0.0.7", 5000)  # the demo's own registry
SLACK_BYTES: Final = 64 << 20  # 64 MiB: logs, the other platform's layers, what file systems keep for themselves
_DISK: Final = "/var/tmp"  # noqa: S108  # unlike /tmp it is never in memory; mkdtemp makes a name of its own in it


@dataclass(frozen=True, slots=True)
class Place:
    """One node's addresses and files; `number` counts from 1."""

    number: int
    host: str
    directory: Path

    @property
    def registry(self) -> Address:
        """Where containerd would ask."""
        return Address(self.host, REGISTRY_PORT)

    @property
    def router(self) -> Address:
        """Where the other agents send datagrams."""
        return Address(self.host, ROUTER_PORT)

    @property
    def observability(self) -> Address:
        """Where it says how it is doing."""
        return Address(self.host, OBSERVABILITY_PORT)

    @property
    def layout(self) -> Path:
        """Its images, in OCI image layout."""
        return self.directory / "images"

    @property
    def cache(self) -> Path:
        """What its agent keeps of what it fetched from registries."""
        return self.directory / "cache"

    @property
    def settings(self) -> Path:
        """The settings that only a file can hold."""
        return self.directory / "agent.toml"

    @property
    def log(self) -> Path:
        """What its agent prints."""
        return self.directory / "agent.log"


def places(directory: Path) -> list[Place]:
    """Return the five nodes, 127.0.0.2 to 127.0.0.6."""
    return [Place(number, f"127.0.0.{number + 1}", directory / f"node-{number}") for number in range(1, NODES + 1)]


def make_directory(image_bytes: int) -> Path:
    """Make a directory on disk with room for images of so many bytes on every node. Raises `DemoFailed`."""
    needed = NODES * image_bytes + SLACK_BYTES
    parent = Path(os.environ.get("TMPDIR") or (_DISK if os.access(_DISK, os.W_OK) else tempfile.gettempdir()))
    try:
        free = shutil.disk_usage(parent).free
        if free < needed:
            raise DemoFailed(
                f"the demo needs {needed / 2**30:.1f} GiB on disk, and {parent} has {free / 2**30:.1f} GiB left: "
                "set TMPDIR to a directory with more, or ask for a smaller image with --mib"
            )
        return Path(tempfile.mkdtemp(prefix="p2pmirror-demo-", dir=parent))
    except OSError as error:
        raise DemoFailed(f"no directory for the demo in {parent}: {error.strerror}") from None


def check_ports(nodes: list[Place]) -> None:
    """Raise `DemoFailed`, naming each, when one of the addresses cannot be listened on."""
    wanted = [(socket.SOCK_STREAM, "TCP", UPSTREAM)]
    for node in nodes:
        wanted += [
            (socket.SOCK_STREAM, "TCP", node.registry),
            (socket.SOCK_DGRAM, "UDP", node.router),
            (socket.SOCK_STREAM, "TCP", node.observability),
        ]
    taken = [
        f"  {address} {protocol}: {reason}"
        for kind, protocol, address in wanted
        if (reason := _complaint(kind, address)) is not None
    ]
    if taken:
        raise DemoFailed("\n".join(["the demo cannot listen where its agents should:", *taken, _hint()]))


def _complaint(kind: socket.SocketKind, address: Address) -> str | None:
    with socket.socket(socket.AF_INET, kind) as sock:
        if kind == socket.SOCK_STREAM:  # as a server does: connections that have just ended are no obstacle
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address.host, address.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "another process listens there"
            if error.errno == errno.EADDRNOTAVAIL:
                return "this machine does not have the address (Linux has all of 127.0.0.0/8)"
            return error.strerror or str(error)
    return None


def _hint() -> str:
    return "is an agent or another demo running on this machine? `ss -lntup` shows who listens"
