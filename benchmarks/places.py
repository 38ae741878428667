"""Where a run takes place: hosts in network namespaces, or, without root, addresses of the loopback interface.

Laws: hosts and what they run are the lab's (`tests.lab`), and so is the cleaning up after a run, however it ended.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from benchmarks.load import Job
from tests.lab import sweep
from tests.lab.agent import OBSERVABILITY_PORT, REGISTRY_PORT, ROUTER_PORT, Agent
from tests.lab.network import Host, Network, Reply

LOOPBACK = "127.97.0"
LOAD = Path(__file__).parent / "load.py"


class LoopbackHost(Host):
    """A host that is one of this machine's own addresses, 127.0.0.0/8."""

    def __init__(self, name: str, address: str, directory: Path) -> None:
        self.name = name
        self.address = address
        self.directory = directory
        self.namespace = ""
        self.processes = []
        directory.mkdir(parents=True)

    def command(self, argv: Sequence[str]) -> list[str]:
        return list(argv)

    def make_socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        return socket.socket(socket.AF_INET, kind)

    def request(
        self,
        port: int,
        target: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        address: str = "",
        timeout_s: float = 10.0,
    ) -> Reply:
        own = address or self.address
        return super().request(port, target, method=method, headers=headers, address=own, timeout_s=timeout_s)


class Place:
    """The hosts of one scene. `directory` holds their files; leaving the block ends and removes everything."""

    _numbers = itertools.count()
    _addresses = itertools.count(1)  # of loopback hosts: those of one scene may still run beside the next one's

    def __init__(self, *, on_loopback: bool = False) -> None:
        """Make hosts of namespaces where that can be, unless they are to be `on_loopback`."""
        run = sweep.mark_of(os.getpid())
        self._prefix = f"{run}-{next(self._numbers)}"
        self.directory = sweep.directory_of(run) / self._prefix
        self.network = Network(self._prefix, self.directory) if namespaces() and not on_loopback else None
        self.hosts: list[Host] = []
        self._jobs = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            for process in host.processes:
                process.kill()
        sweep.remove(self._prefix, self.directory)

    def host(self, name: str) -> Host:
        """Add a host."""
        number = len(self.hosts) + 1
        if self.network is not None:
            host = self.network.add(name, number)
        else:
            address = f"{LOOPBACK}.{next(self._addresses)}"
            host = LoopbackHost(name, address, self.directory / name)
        self.hosts.append(host)
        return host

    def agent(self, host: Host, cluster: Sequence[Host], **settings: str) -> Agent:
        """Return an agent, not started; it listens on the host's own address and knows the hosts of its cluster."""
        own = (
            {}
            if self.network is not None
            else {
                "registry_addr": f"{host.address}:{REGISTRY_PORT}",
                "router_addr": f"{host.address}:{ROUTER_PORT}",
                "observability_addr": f"{host.address}:{OBSERVABILITY_PORT}",
            }
        )
        return Agent(host, cluster, **{"advertise_addr": host.address, **own, **settings})

    def load(self, host: Host, job: Job) -> dict[str, Any]:
        """Do a job on a host; returns what `load` prints. Raises CommandFailed."""
        answer: dict[str, Any] = json.loads(host.run(self.load_command(job)))
        if answer["wrong"]:
            print(f"  {answer['wrong']} of {answer['answers']} answers are wrong, first {answer['first_wrong']}")
        return answer

    def load_command(self, job: Job) -> list[str]:
        """Return the command that does a job."""
        path = self.directory / f"job-{next(self._jobs)}.json"
        path.write_text(json.dumps(asdict(job)))
        return [sys.executable, "-I", "-S", str(LOAD), str(path)]

    def packets(self, host: Host) -> int | None:
        """Return how many packets a host has sent and received; None where hosts have no interface of their own."""
        if self.network is None:
            return None
        command = ["ip", "-n", host.namespace, "-json", "-statistics", "link", "show", "eth0"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        counts = json.loads(done.stdout)[0]["stats64"]
        return int(counts["rx"]["packets"]) + int(counts["tx"]["packets"])


def _hide_what_is_not_installed(directory: Path) -> None:
    """Let agents import what installed ones do: httpx loads rich, 3 MiB of it, where a tool of ours has brought it."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text('import sys\n\nsys.modules["rich"] = None\n')
    os.environ["PYTHONPATH"] = str(directory)


def namespaces() -> bool:
    """Tell whether hosts can be network namespaces here."""
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in ("ip", "nsenter", "setpriv"))


@contextlib.contextmanager
def kept_clean() -> Iterator[None]:
    """Remove what dead runs left before the block, and what this one leaves after it, also when it is killed."""
    sweep.sweep()
    mark = sweep.mark_of(os.getpid())
    keeper = sweep.Keeper(mark)
    sweep.directory_of(mark).mkdir()
    # Agents start from bytecode, as installed ones do, wherever that may not be written beside the code.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(sweep.directory_of(mark) / "bytecode")
    _hide_what_is_not_installed(sweep.directory_of(mark) / "site")
    try:
        yield
    finally:
        keeper.close()
