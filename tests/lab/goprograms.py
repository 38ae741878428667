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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BUILD_S = 5400  # ten minutes on two cores with an empty cache for the largest; a busy machine takes much longer


def kept(name: str) -> Path:
    """Return where something of that name and version is kept between runs, outside the checkout."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "p2pmirror" / name


@dataclass(frozen=True)
class GoProgram:
    """One version of a program; `packages` are what is built, and the last parts of their paths the commands."""

    name: str
    version: str
    packages: tuple[str, ...]

    @property
    def directory(self) -> Path:
        """Return where its commands are, or will be."""
        return kept(f"{self.name}-v{self.version}")

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

    def compile(self, target: Path) -> None:
        """Build all commands into a directory. Raises CalledProcessError."""
        packages = [f"{package}@v{self.version}" for package in self.packages]
        go("install", *packages, environment={"GOBIN": str(target)})

    @property
    def _complete(self) -> bool:
        return all((self.directory / command).exists() for command in self.commands)

    def _build(self) -> None:
        sys.stderr.write(f"building {self.name} {self.version} (once, some minutes) into {self.directory}\n")
        work = Path(tempfile.mkdtemp(dir=self.directory.parent, prefix="build-"))
        try:
            self.compile(work)
            work.chmod(0o755)
            shutil.rmtree(self.directory, ignore_errors=True)
            work.rename(self.directory)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def go(*arguments: str, environment: Mapping[str, str] | None = None, directory: Path | None = None) -> None:
    """Run go. Raises CalledProcessError."""
    given = {**os.environ, "CGO_ENABLED": "0", **(environment or {})}
    subprocess.run(["go", *arguments], check=True, env=given, cwd=directory, timeout=BUILD_S)
