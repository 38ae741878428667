"""What the lab needs of the machine it runs on."""

from __future__ import annotations

import os
import shutil

TOOLS = (
    "containerd",
    "ctr",
    "runc",
    "docker-registry",
    "skopeo",
    "ip",
    "tc",
    "nsenter",
    "setpriv",
    "mount",
    "faketime",
)


def missing() -> str:
    """Return what keeps the lab from running here, in words; empty: nothing."""
    if os.geteuid() != 0:
        return "root"
    named = {"containerd": os.environ.get("CONTAINERD"), "ctr": os.environ.get("CTR")}
    return ", ".join(tool for tool in TOOLS if shutil.which(named.get(tool) or tool) is None)
