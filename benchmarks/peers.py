"""The programs that we are measured beside: nginx and docker-registry, each set up for what is asked of it.

Laws: one nginx process with sendfile and no access log; a docker-registry as its package sets it up (blob descriptors
kept in memory, an access log), which therefore writes a line per request, as the agent does.
"""

from __future__ import annotations

import hashlib
import http.client
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.facts import NGINX, REGISTRY
from tests.lab.network import Host
from tests.lab.process import Process

FILES_PORT = 8080
PROXY_PORT = 8081
REGISTRY_PORT = 5000


def nginx_here() -> bool:
    """Tell whether nginx is installed."""
    return os.access(NGINX, os.X_OK)


def registry_here() -> bool:
    """Tell whether docker-registry is installed."""
    return os.access(REGISTRY, os.X_OK)


def start_nginx_files(host: Host, root: Path) -> Process:
    """Serve the files below `root` with sendfile at FILES_PORT."""
    return _start_nginx(host, "files", FILES_PORT, f"root {root};")


def start_nginx_proxy(host: Host, origin: Host) -> Process:
    """Pass on, unbuffered, what the nginx of `origin` serves, at PROXY_PORT; connections to it are kept."""
    location = """location / {
      proxy_pass http://origin; proxy_buffering off;
      proxy_http_version 1.1; proxy_set_header Connection "";
    }"""
    upstream = f"upstream origin {{ server {origin.address}:{FILES_PORT}; keepalive 64; }}"
    return _start_nginx(host, "proxy", PROXY_PORT, location, upstream)


def start_registry(host: Host, directory: Path, *, of: Host | None = None) -> Process:
    """Start a docker-registry that keeps its content in `directory`; with `of`, what it fetches from the one there."""
    config = host.directory / "registry.yml"
    proxy = "" if of is None else f'proxy: {{remoteurl: "http://{of.address}:{REGISTRY_PORT}"}}'
    config.write_text(f"""\
version: 0.1
log: {{level: warn}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: "{directory}"}}
http: {{addr: "{host.address}:{REGISTRY_PORT}", secret: benchmarks}}
{proxy}
""")
    process = host.start("registry", [REGISTRY, "serve", str(config)])
    process.wait_until(lambda: _answers(host, REGISTRY_PORT))
    return process


def push(
    host: Host, repository: str, manifest: bytes, media_type: str, blobs: Mapping[str, Path], *, tag: str = ""
) -> None:
    """Push an image to the registry on `host`, as clients do: blobs first; its manifest also under a `tag`."""
    for digest, path in blobs.items():
        location = _ask(host, "POST", f"/v2/{repository}/blobs/uploads/", 202)
        joint = "&" if "?" in location else "?"
        target = f"{location}{joint}digest={digest}"
        _ask(host, "PUT", target, 201, body=path.read_bytes(), media_type="application/octet-stream")
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    for reference in (digest, tag) if tag else (digest,):
        _ask(host, "PUT", f"/v2/{repository}/manifests/{reference}", 201, body=manifest, media_type=media_type)


def _ask(host: Host, method: str, target: str, status: int, *, body: bytes = b"", media_type: str = "") -> str:
    """Make a request to the registry, return the target in its Location."""
    headers = {"Content-Type": media_type} if media_type else {}
    connection = http.client.HTTPConnection(host.address, REGISTRY_PORT)
    connection.sock = host.connect(REGISTRY_PORT, address=host.address)
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        text = response.read()
        assert response.status == status, (method, target, response.status, text)
        location = urlsplit(response.headers.get("Location", ""))
        return location.path + (f"?{location.query}" if location.query else "")
    finally:
        connection.close()


def _start_nginx(host: Host, name: str, port: int, location: str, upstream: str = "") -> Process:
    directory = host.directory / f"nginx-{name}"
    directory.mkdir()
    temporary = "\n".join(
        f"  {kind}_temp_path {directory / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = directory / "nginx.conf"
    config.write_text(f"""\
{"user root;" if os.geteuid() == 0 else ""}
daemon off; master_process off; worker_processes 1;
pid {directory / "pid"};
error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 100000000;
{temporary}
  {upstream}
  server {{ listen {host.address}:{port}; {location} }}
}}
""")
    process = host.start(f"nginx-{name}", [NGINX, "-p", str(directory), "-c", str(config)])
    process.wait_until(lambda: _answers(host, port))
    return process


def _answers(host: Host, port: int) -> bool:
    try:
        host.request(port, "/v2/", address=host.address)
    except (OSError, http.client.HTTPException):
        return False
    return True
