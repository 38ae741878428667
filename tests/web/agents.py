"""Agents as processes of their own, for a browser to look at; they die with the tests (tests/lab/process.py)."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio

from p2pmirror.demo.image import Image, put_image
from p2pmirror.oci import TagName
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.ocilayout import LayoutWriter
from tests.lab.process import Process


@dataclass
class Agent:
    """An agent that runs; addresses are `host:port`."""

    process: Process
    registry: str
    router: str
    page: str
    node_id: str

    def get(self, target: str) -> dict[str, Any]:
        """Return the JSON of the observability port."""
        value: dict[str, Any] = httpx.get(f"{self.page}{target}", trust_env=False).json()
        return value

    def ask(self, target: str, method: str = "GET") -> int:
        """Ask as containerd does, and read all of the answer; returns its status."""
        return httpx.request(method, f"http://{self.registry}{target}", trust_env=False, timeout=60).status_code

    def end(self) -> None:
        """SIGKILL; twice does no harm."""
        self.process.kill()


def started(directory: Path, host: str, **settings: str) -> Agent:
    """Start an agent on ports that are free, and wait until it says where it is."""
    every = {
        "registry_addr": f"{host}:0",
        "router_addr": f"{host}:0",
        "observability_addr": f"{host}:0",
        "store": f"oci-layout:{directory / 'images'}",
        **settings,
    }
    flags = [word for key, value in every.items() for word in (f"--{key.replace('_', '-')}", value)]
    unset = [word for name in os.environ if name.startswith("P2PMIRROR_") for word in ("-u", name)]
    argv = ["env", *unset, sys.executable, "-m", "p2pmirror", "agent", *flags]
    process = Process(f"agent on {host}", argv, directory / "agent.log")
    said: list[dict[str, Any]] = []

    def runs() -> bool:
        lines = [line for line in process.log.read_text().splitlines(keepends=True) if '"agent.running"' in line]
        said.extend(json.loads(line) for line in lines[:1] if line.endswith("\n"))
        return bool(said)

    try:
        process.wait_until(runs)
    except BaseException:
        process.kill()
        raise
    where = said[0]
    return Agent(process, where["registry"], where["router"], f"http://{where['observability']}", where["node_id"])


def image_in(directory: Path, name: TagName, layer_bytes: int) -> Image:
    """Write an image of that size into the layout that an agent in `directory` serves."""
    return trio.run(put_image, LayoutWriter(directory / "images", HostFiles()), name, layer_bytes, "page")
