"""Finds the versions of containerd to test with, and builds 2.x where Go is at hand.

Run as a program it builds what is missing: `python -m tests.lab.builds`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.lab.containerd import Build
from tests.lab.goprograms import GoProgram

VERSION = "2.2.9"
CONTAINERD_2 = GoProgram(
    "containerd",
    VERSION,
    tuple(
        f"github.com/containerd/containerd/v2/cmd/{command}"
        for command in ("containerd", "ctr", "containerd-shim-runc-v2")
    ),
)


def distribution_build() -> Build | None:
    """Return the containerd that `CONTAINERD=` and `CTR=` name, else the distribution's (1.6 on Debian)."""
    containerd = shutil.which(os.environ.get("CONTAINERD", "containerd"))
    ctr = shutil.which(os.environ.get("CTR", "ctr"))
    return Build("containerd", Path(containerd), Path(ctr)) if containerd and ctr else None


def containerd_2_at_hand() -> bool:
    """Whether containerd 2.x is built or can be."""
    return CONTAINERD_2.at_hand


def containerd_2() -> Build:
    """Containerd 2.x, built now when it has to be. Raises CalledProcessError."""
    directory = CONTAINERD_2.built()
    return Build(f"containerd-{VERSION}", directory / "containerd", directory / "ctr")


if __name__ == "__main__":
    containerd_2()
