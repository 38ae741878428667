"""What kind of machine this is, and what runs on it: figures mean little without."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

NGINX = "/usr/sbin/nginx"
REGISTRY = "/usr/bin/docker-registry"


def facts() -> dict[str, Any]:
    """Return the machine's facts, in values that JSON has."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "trio": version("trio"),
        "p2pmirror": version("p2pmirror"),
        "nginx": _first_line([NGINX, "-v"]),
        "docker-registry": _first_line([REGISTRY, "--version"]),
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _first_line(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return (done.stdout + done.stderr).partition("\n")[0].strip()
