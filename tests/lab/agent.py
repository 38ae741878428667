"""The agent under test: started on a node as an administrator would start it, asked through its own ports."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families

from tests.lab.network import Host, Reply
from tests.lab.process import Process, wait_until

REGISTRY_PORT = 29999
ROUTER_PORT = 29998
OBSERVABILITY_PORT = 9090
ANSWER_S = 5.0


class Agent:
    """An agent on `host`. `settings` are keys of the configuration; they reach it through its environment."""

    def __init__(self, host: Host, bootstrap: Iterable[Host], **settings: str) -> None:
        self.host = host
        self.url = f"http://127.0.0.1:{REGISTRY_PORT}"
        self.process: Process | None = None
        self.run_by: list[str] = []  # a command that runs it: faketime
        self.settings = {
            "registry_addr": f":{REGISTRY_PORT}",
            "router_addr": f":{ROUTER_PORT}",
            "observability_addr": f":{OBSERVABILITY_PORT}",
            "bootstrap": "static:" + ",".join(f"{peer.address}:{ROUTER_PORT}" for peer in bootstrap),
            "data_dir": str(host.directory / "data"),
            **settings,
        }

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self.launch()
        self.wait()

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.running

    def launch(self) -> None:
        """Start it without waiting for it."""
        environment = {f"P2PMIRROR_{key.upper()}": value for key, value in self.settings.items()}
        argv = [*self.run_by, sys.executable, "-m", "p2pmirror", "agent"]
        self.process = self.host.start("agent", argv, environment)

    def wait(self) -> None:
        """Wait until a launched agent is ready; raises RuntimeError with the end of its log."""
        assert self.process is not None
        self.process.wait_until(lambda: self.readiness() == "")

    def stop(self) -> int:
        """SIGTERM, as a rolling update does; returns the exit code."""
        assert self.process is not None
        process, self.process = self.process, None
        return process.stop()

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    def get(self, target: str, port: int = OBSERVABILITY_PORT) -> Reply:
        """Make one request to it from its own host; raises OSError, http.client.HTTPException."""
        return self.host.request(port, target, timeout_s=ANSWER_S)

    def readiness(self) -> str | None:
        """Return what /readyz says it waits for; empty: nothing, it is ready; None: nobody answers."""
        try:
            reply = self.get("/readyz")
        except (OSError, http.client.HTTPException):
            return None
        return "" if reply.status == 200 else reply.body.decode()

    def status(self) -> dict[str, Any]:
        """Return what `/api/v1/status` says."""
        status: dict[str, Any] = self._json("/api/v1/status")
        return status

    def find(self, key: str) -> set[str]:
        """Return the addresses (no ports) of the nodes, this one included, that have a digest or an image's name."""
        kind = "digest" if key.startswith("sha256:") else "ref"
        answer = self._json(f"/api/v1/find?{kind}={quote(key, safe='')}")
        others = {provider["address"].rpartition(":")[0] for provider in answer["providers"]}
        return others | {self.host.address} if answer["held"] else others

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of `p2pmirror_<name>` that have these labels."""
        text = self.get("/metrics").body.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(
            sample.value
            for sample in samples
            if sample.name == f"p2pmirror_{name}" and labels.items() <= sample.labels.items()
        )

    def wait_for_members(self, count: int) -> None:
        """Wait until it knows of `count` members that live, itself included."""

        def enough() -> bool:
            return len([one for one in self.status()["members"] if one["state"] == "alive"]) >= count

        wait_until(enough, f"{self.host.name} knows {count} members")

    def _json(self, target: str) -> Any:
        reply = self.get(target)
        assert reply.status == 200, (target, reply)
        return json.loads(reply.body)
