"""Other clients of a registry than containerd, on a host of the lab: skopeo, podman, dockerd. None sends `ns`."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

from tests.lab.agent import REGISTRY_PORT
from tests.lab.network import Host
from tests.lab.process import COMMAND_S, Process

AGENT = f"127.0.0.1:{REGISTRY_PORT}"
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


def skopeo_copy(host: Host, source: str, target: Path) -> dict[str, bytes]:
    """Copy an image from the agent at `source` (`library/app:1`) into a directory; returns its files by name."""
    options = ["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false"]
    host.run(["skopeo", *options, f"docker://{AGENT}/{source}", f"dir:{target}"])
    return {path.name: path.read_bytes() for path in target.iterdir()}


class Podman:
    """podman with storage of its own, and the agent as a mirror of docker.io and ghcr.io; it runs no containers."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._home = host.directory / "podman"
        self._home.mkdir()
        self._run_root = host.directory.parents[1] / "podman"  # it wants one of at most 50 characters
        mirrors = [("docker.io", AGENT), ("ghcr.io", f"{AGENT}/ghcr.io")]
        tables = [
            f'[[registry]]\nlocation = "{name}"\n[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n'
            for name, mirror in mirrors
        ]
        (self._home / "registries.conf").write_text("\n".join(tables))
        (self._home / "policy.json").write_text(POLICY)

    def pull(self, name: str) -> str:
        """Pull an image; returns its id, which is its configuration's digest. Raises CommandFailed."""
        return self._run("pull", "--quiet", "--signature-policy", str(self._home / "policy.json"), name).strip()

    def _run(self, *arguments: str) -> str:
        places = ["--root", str(self._home / "root"), "--runroot", str(self._run_root), "--storage-driver", "vfs"]
        environment = {"CONTAINERS_REGISTRIES_CONF": str(self._home / "registries.conf")}
        return self.host.run(["podman", *places, "--events-backend", "none", *arguments], env=environment)


class Dockerd:
    """dockerd with the agent in its `registry-mirrors`; it runs no containers, so it needs no bridge, no iptables."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._home = host.directory / "docker"
        self._home.mkdir()
        self._socket = self._home / "docker.sock"
        self.process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        config = {
            "data-root": str(self._home / "root"),
            "exec-root": str(self._home / "exec"),
            "pidfile": str(self._home / "pid"),
            "hosts": [f"unix://{self._socket}"],
            "registry-mirrors": [f"http://{AGENT}"],
            "storage-driver": "vfs",
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "ip-masq": False,
        }
        (self._home / "daemon.json").write_text(json.dumps(config))
        self.process = self.host.start("dockerd", ["dockerd", "--config-file", str(self._home / "daemon.json")])
        self.process.wait_until(self._answers)

    def pull(self, repository: str, tag: str) -> str:
        """Pull an image as the command does; returns its id, which is its configuration's digest."""
        status, body = self._ask("POST", f"/images/create?fromImage={repository}&tag={tag}")
        assert status == 200, body
        assert b'"error"' not in body, body
        status, body = self._ask("GET", f"/images/{repository}:{tag}/json")
        assert status == 200, body
        image_id: str = json.loads(body)["Id"]
        return image_id

    def remove(self, repository: str, tag: str) -> None:
        """Remove an image and its layers."""
        status, body = self._ask("DELETE", f"/images/{repository}:{tag}")
        assert status == 200, body

    def _answers(self) -> bool:
        try:
            return self._ask("GET", "/_ping")[0] == 200
        except OSError:
            return False

    def _ask(self, method: str, target: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(COMMAND_S)
            connection.sock.connect(str(self._socket))
            connection.request(method, target)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
