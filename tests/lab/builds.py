"""Finds the versions of containerd to test with, and builds 2.x where Go is at hand.

A build is kept by its version outside the checkout (`$XDG_CACHE_HOME/p2pmirror`, else `~/.cache/p2pmirror`). Run as a
program it builds what is missing: `python -m tests.lab.builds`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.containerd import Build

VERSION = "2.2.9"
COMMANDS = ("containerd", "ctr", "containerd-shim-runc-v2")
BUILD_S = 1800  # five minutes on two cores with an empty cache; a slow module proxy may take much longer


def distribution_build() -> Build | None:
    """Return the containerd that `CONTAINERD=` and `CTR=` name, else the distribution's (1.6 on Debian)."""
    containerd = shutil.which(os.environ.get("CONTAINERD", "containerd"))
    ctr = shutil.which(os.environ.get("CTR", "ctr"))
    return Build("containerd", Path(containerd), Path(ctr)) if containerd and ctr else None


def containerd_2_at_hand() -> bool:
    """Whether containerd 2.x is built or can be."""
    return _complete(_directory()) or shutil.which("go") is not None


def containerd_2() -> Build:
    """Containerd 2.x, built now when it has to be; one process builds, others wait. Raises CalledProcessError."""
    directory = _directory()
    if not _complete(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with (directory.parent / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _complete(directory):
                _build(directory)
    return Build(f"containerd-{VERSION}", directory / "containerd", directory / "ctr")


def _build(directory: Path) -> None:
    sys.stderr.write(f"building containerd {VERSION} (once, some minutes) into {directory}\n")
    packages = [f"github.com/containerd/containerd/v2/cmd/{command}@v{VERSION}" for command in COMMANDS]
    work = Path(tempfile.mkdtemp(dir=directory.parent, prefix="build-"))
    try:
        environment = {**os.environ, "GOBIN": str(work), "CGO_ENABLED": "0"}
        subprocess.run(["go", "install", *packages], check=True, env=environment, timeout=BUILD_S)
        work.chmod(0o755)
        shutil.rmtree(directory, ignore_errors=True)
        work.rename(directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _complete(directory: Path) -> bool:
    return all((directory / command).exists() for command in COMMANDS)


def _directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "p2pmirror" / f"containerd-v{VERSION}"


if __name__ == "__main__":
    containerd_2()
