"""Programs in Go that the tests run in versions which no distribution has: built once where Go is at hand.

A build is kept by its name and version outside the checkout (`$XDG_CACHE_HOME/p2pmirror`, else `~/.cache/p2pmirror`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

BUILD_S = 1800  # five minutes on two cores with an empty cache; a slow module proxy may take much longer


@dataclass(frozen=True)
class GoProgram:
    """One version of a program; `packages` are what is built, and the last parts of their paths the commands."""

    name: str
    version: str
    packages: tuple[str, ...]

    @property
    def directory(self) -> Path:
        """Return where its commands are, or will be."""
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "p2pmirror" / f"{self.name}-v{self.version}"

    @property
    def commands(self) -> tuple[str, ...]:
        """Return the names of its commands."""
        return tuple(package.rpartition("/")[2] for package in self.packages)

    @property
    def at_hand(self) -> bool:
        """Whether it is built or can be."""
        return self._complete or shutil.which("go") is not None

    def built(self) -> Path:
        """Build it now if it has to be; one process builds, others wait. Raises CalledProcessError."""
        if not self._complete:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            with (self.directory.parent / "build.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not self._complete:
                    self._build()
        return self.directory

    @property
    def _complete(self) -> bool:
        return all((self.directory / command).exists() for command in self.commands)

    def _build(self) -> None:
        sys.stderr.write(f"building {self.name} {self.version} (once, some minutes) into {self.directory}\n")
        packages = [f"{package}@v{self.version}" for package in self.packages]
        work = Path(tempfile.mkdtemp(dir=self.directory.parent, prefix="build-"))
        try:
            environment = {**os.environ, "GOBIN": str(work), "CGO_ENABLED": "0"}
            subprocess.run(["go", "install", *packages], check=True, env=environment, timeout=BUILD_S)
            work.chmod(0o755)
            shutil.rmtree(self.directory, ignore_errors=True)
            work.rename(self.directory)
        finally:
            shutil.rmtree(work, ignore_errors=True)
