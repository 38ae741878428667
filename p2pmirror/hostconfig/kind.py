"""A cluster's configuration for kind: its nodes are containers, so files of theirs are mounts.

Laws:
- Each of containerd's two forms is a patch of its own without a version, which kind then applies to every node image;
  what is not of a node's own form is ignored by its containerd (shown by tests with both).
- kind throws layers away that are unpacked: that is turned off, for the same reason as on Talos.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pmirror.hostconfig.daemon import CRI_2, CRI_3

CERTS_D: Final = "/etc/containerd/certs.d"
CACHE: Final = "/var/lib/p2pmirror"

PATCHES: Final = (
    f"""\
[plugins."{CRI_3}"]
  discard_unpacked_layers = false
[plugins."{CRI_3}".registry]
  config_path = "{CERTS_D}\"""",
    f"""\
[plugins."{CRI_2}".containerd]
  discard_unpacked_layers = false
[plugins."{CRI_2}".registry]
  config_path = "{CERTS_D}\"""",
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What to describe. `certs_d`: a directory of this machine for all nodes; `cache_dir`: one with a part for each."""

    workers: int
    certs_d: Path | None = None
    cache_dir: Path | None = None


def configuration(cluster: Cluster) -> str:
    """Return the configuration for `kind create cluster --config`."""
    lines = ["# kind create cluster --config THIS_FILE", "kind: Cluster", "apiVersion: kind.x-k8s.io/v1alpha4"]
    lines.append("containerdConfigPatches:")
    for patch in PATCHES:
        lines += ["  - |-", *(f"    {line}" for line in patch.split("\n"))]
    lines.append("nodes:")
    for number in range(cluster.workers + 1):
        lines.append(f"  - role: {'worker' if number else 'control-plane'}")
        mounts = _mounts(cluster, number)
        lines += ["    extraMounts:", *mounts] if mounts else []
    return "\n".join([*lines, ""])


def _mounts(cluster: Cluster, number: int) -> list[str]:
    lines: list[str] = []
    if cluster.certs_d is not None:
        lines += _mount(cluster.certs_d, CERTS_D)
        lines.append("        readOnly: true")
    if cluster.cache_dir is not None:
        lines += _mount(cluster.cache_dir / f"node-{number}", CACHE)
    return lines


def _mount(source: Path, target: str) -> list[str]:
    return [f"      - hostPath: {json.dumps(str(source))}", f"        containerPath: {target}"]
