"""docker-registry on a port of loopback: open, with passwords, or believing a token server."""

from __future__ import annotations

import http.client
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from p2pmirror.oci import Digest
from tests.groups import leave_out
from tests.lab.process import Process, run
from tests.registries.holdings import Holdings

SERVICE = "registry.test"
ISSUER = "issuer.test"
USER, PASSWORD = "ada", "open sesame"
HTPASSWD = "ada:$2b$04$yn2NeCVDS9XbI4is8dvxkOFt1.zmIpgqdvsrn.iAq5Bhz4NyzPC8m\n"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class DockerRegistry:
    """One registry whose storage outlives its process; `url` is where it is once it has been started."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("docker-registry") is None:
            leave_out("registries", "needs docker-registry; it is not here")
        self.directory = directory
        self.port = free_port()
        self._process: Process | None = None
        self._starts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, auth: str = "", http_lines: str = "") -> None:
        """Start it with a section `auth` of its configuration."""
        self._starts += 1
        config = self.directory / f"registry-{self._starts}.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: warn, accesslog: {{disabled: false}}}}\n"
            f'storage: {{filesystem: {{rootdirectory: "{self.directory}/storage"}}, delete: {{enabled: true}}}}\n'
            f'http:\n  addr: "127.0.0.1:{self.port}"\n  secret: test\n{http_lines}{auth}'
        )
        log = self.directory / "registry.log"
        self._process = Process("registry", ["docker-registry", "serve", str(config)], log)
        self._process.wait_until(self._answers)

    def start_with_passwords(self) -> None:
        """Let in USER with PASSWORD alone."""
        file = self.directory / "htpasswd"
        file.write_text(HTPASSWD)
        self.start(f'auth: {{htpasswd: {{realm: "lab, with a comma", path: "{file}"}}}}\n')

    def start_with_tokens(self, realm: str, certificate: Path) -> None:
        """Let in who has a token of the server at `realm`, signed with the key of `certificate`."""
        self.start(token_auth(realm, certificate))

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Be away for a while."""
        self.stop()
        yield
        self.start()

    def push(self, holdings: Holdings) -> None:
        """Bring everything in; it lets everybody in now."""
        for blob in holdings.blobs:
            self._push_blob(holdings.repository, blob)
        for data, media_type, tags in holdings.documents:
            for reference in (*tags, str(Digest.of(data))):
                self._put(f"/v2/{holdings.repository}/manifests/{reference}", data, media_type)
        index_type = "application/vnd.oci.image.index.v1+json"
        target = f"/v2/{holdings.repository}/manifests/{holdings.referrers_tag}"
        self._put(target, holdings.referrers, index_type)

    def push_tags(self, holdings: Holdings, *tags: str) -> None:
        """Let more tags name the image."""
        for tag in tags:
            target = f"/v2/{holdings.repository}/manifests/{tag}"
            self._put(target, holdings.manifest, "application/vnd.oci.image.manifest.v1+json")

    def _push_blob(self, repository: str, data: bytes) -> None:
        status, headers = self._request("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202, status
        location = headers["location"].partition(f":{self.port}")[2]
        self._put(f"{location}&digest={Digest.of(data)}", data, "application/octet-stream")

    def _put(self, target: str, data: bytes, media_type: str) -> None:
        status, _ = self._request("PUT", target, data, media_type)
        assert status == 201, (status, target)

    def _request(
        self, method: str, target: str, data: bytes = b"", media_type: str = ""
    ) -> tuple[int, Mapping[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, target, data, {"Content-Type": media_type} if media_type else {})
            response = connection.getresponse()
            response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()

    def start_with_tls(self, certificate: Path, key: Path) -> None:
        """Let everybody in who speaks TLS; it speaks HTTP/2 then, too."""
        self.start(http_lines=f'  tls: {{certificate: "{certificate}", key: "{key}"}}\n')

    def _answers(self) -> bool:
        try:
            return self._request("GET", "/v2/")[0] in {200, 400, 401}  # 400: it wants TLS
        except OSError:
            return False


def token_auth(realm: str, certificate: Path) -> str:
    """Return the part of a configuration that has it believe a token server."""
    return (
        f'auth: {{token: {{realm: "{realm}", service: "{SERVICE}", issuer: "{ISSUER}", '
        f'rootcertbundle: "{certificate}"}}}}\n'
    )


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Return a certificate for 127.0.0.1, that vouches for itself, and its key."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=registry.test"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:registry.test"),
            *("-keyout", str(key), "-out", str(certificate)),
        ]
    )
    return certificate, key
