"""A real registry (Debian's docker-registry) as the upstream, on a host of its own.

Its access log is the witness of what was asked of upstream.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.lab.images import Image
from tests.lab.network import Host
from tests.lab.process import Process
from tests.registries.docker import HTPASSWD, token_auth

PORT = 5000
NAME = "registry.lab"  # the name of the registry in image names; hosts.toml gives its address

# Apache's combined log: address - user [time] "METHOD target PROTOCOL" status bytes "referer" "agent"
_LINE = re.compile(r'(\S+) \S+ \S+ \[[^]]*\] "(\S+) (\S+) [^"]*" (\d+) (\d+)')


@dataclass(frozen=True)
class Request:
    """One line of the registry's access log; `size` is the bytes of the body that it sent."""

    client: str
    method: str
    target: str
    status: int
    size: int

    @classmethod
    def of(cls, line: str) -> Self | None:
        """Return the request that a line of the log tells of; None: another kind of line."""
        if (match := _LINE.match(line)) is None:
            return None
        client, method, target, status, size = match.groups()
        return cls(client.partition(":")[0], method, target, int(status), int(size))


class Registry:
    """docker-registry on `host`, over plain HTTP; what was pushed outlives stop and start."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.url = f"http://{host.address}:{PORT}"
        self.process: Process | None = None
        self._config = host.directory / "registry.yml"

    def start(self, auth: str = "") -> None:
        """Start it, with a section `auth` of its configuration, and wait until it answers."""
        self._config.write_text(_config(self.host.directory / "storage") + auth)
        self.process = self.host.start("registry", ["docker-registry", "serve", str(self._config)])
        self.process.wait_until(lambda: self._status() in {200, 401})

    def start_with_passwords(self) -> None:
        """Let in `USER` of tests.registries.docker alone."""
        file = self.host.directory / "htpasswd"
        file.write_text(HTPASSWD)
        self.start(f'auth: {{htpasswd: {{realm: "lab, with a comma", path: "{file}"}}}}\n')

    def start_with_tokens(self, realm: str, certificate: Path) -> None:
        """Let in who has a token of the server at `realm`, signed with the key of `certificate`."""
        self.start(token_auth(realm, certificate))

    def stop(self) -> None:
        """End it at once: its port then refuses connections."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.running

    def answer_500(self) -> None:
        """Put a server in the place of a stopped registry that answers 500 to everything; `stop` ends it."""
        self.process = self.host.start("broken", [sys.executable, "-c", _BROKEN, str(PORT)])
        self.process.wait_until(lambda: self._status() == 500)

    def push(self, image: Image) -> None:
        """Push all platforms of an image with skopeo."""
        source = f"oci:{image.directory}:{image.tag}"
        target = f"docker://127.0.0.1:{PORT}/{image.repository}:{image.tag}"
        options = ["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]
        self.host.run(["skopeo", *options, source, target])

    def requests(self) -> Sequence[Request]:
        """Return all requests of other hosts since the registry was first started."""
        lines = (self.host.directory / "registry.log").read_text(errors="replace").splitlines()
        found = [Request.of(line) for line in lines]
        return [request for request in found if request and not request.client.startswith("127.")]

    def asked(self, part: str, *, method: str = "GET") -> int:
        """Return how many requests of other hosts with this method had `part` in their targets."""
        return sum(part in request.target and request.method == method for request in self.requests())

    def sent_bytes(self) -> int:
        """Return the bytes of manifests and blobs that it sent to other hosts."""
        return sum(request.size for request in self.requests() if request.method == "GET" and request.status < 300)

    def _status(self) -> int | None:
        try:
            return self.host.request(PORT, "/v2/").status
        except OSError:
            return None


_BROKEN = """
import http.server, sys
class Broken(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_HEAD = do_GET
http.server.HTTPServer(("", int(sys.argv[1])), Broken).serve_forever()
"""


def _config(storage: Path) -> str:
    return f"""\
version: 0.1
log: {{level: warn, accesslog: {{disabled: false}}}}
storage:
  filesystem: {{rootdirectory: "{storage}"}}
  delete: {{enabled: true}}
http: {{addr: ":{PORT}", secret: lab}}
"""
