"""Tells a node's containerd to ask the agent first (hosts.toml)."""

from __future__ import annotations

from pathlib import Path


def write_hosts(certs: Path, registry: str, *, upstream: str, mirrors: list[str]) -> None:
    """Write `<certs>/<registry>/hosts.toml`: ask each mirror (a URL) in turn, then `upstream` (a URL).

    containerd reads the file anew for each pull.
    """
    directory = certs / registry
    directory.mkdir(parents=True, exist_ok=True)
    tables = [f'[host."{mirror}"]\ncapabilities = ["pull", "resolve"]\n' for mirror in mirrors]
    (directory / "hosts.toml").write_text("\n".join([f'server = "{upstream}"\n', *tables]))
