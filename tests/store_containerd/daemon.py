"""A real containerd of its own for a test: root, state and socket in a temporary directory, no CRI, no containers."""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

START_LIMIT_S = 20.0
PR_SET_PDEATHSIG = 1

CONFIG = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.erofs",
]
[grpc]
  address = "{directory}/containerd.sock"
[debug]
  level = "info"
"""


@dataclass(frozen=True)
class Build:
    """One containerd to test against."""

    name: str
    containerd: Path
    ctr: Path


def builds() -> list[Build]:
    """Return the containerds at hand: the one of the system, and the newer one kept in the cache directory."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "p2pmirror"
    found = []
    if system := shutil.which("containerd"):
        found.append(Build("system", Path(system), Path(system).parent / "ctr"))
    found += [Build(d.name, d / "containerd", d / "ctr") for d in sorted(cache.glob("containerd-v2*"))]
    return [build for build in found if build.containerd.is_file() and build.ctr.is_file()]


class Daemon:
    """containerd with its own directories. Not started until `start`."""

    def __init__(self, build: Build, directory: Path) -> None:
        self.build = build
        self.directory = directory
        self.socket = directory / "containerd.sock"
        self.content = directory / "root" / "io.containerd.content.v1.content"
        self.namespace = "k8s.io"
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "config.toml").write_text(CONFIG.format(directory=directory))

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = self._spawn()
        deadline = time.monotonic() + START_LIMIT_S
        while (await self.try_ctr("version")).returncode != 0:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            await trio.sleep(0.05)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.directory / "containerd.log").open("ab") as log:
            return subprocess.Popen(
                [self.build.containerd, "--config", self.directory / "config.toml"],
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it without ending it, for the length of the block."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what it has printed."""
        return (self.directory / "containerd.log").read_text(errors="replace")[-4000:]

    async def try_ctr(self, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
        """Run `ctr` on this daemon."""
        command = [self.build.ctr, "--address", self.socket, "--namespace", self.namespace, *words]
        return await trio.run_process(list(map(str, command)), capture_stdout=True, capture_stderr=True, check=False)

    async def ctr(self, *words: str | Path) -> str:
        """Run `ctr` on this daemon; it must succeed."""
        done = await self.try_ctr(*words)
        assert done.returncode == 0, (words, done.stderr.decode(), self.log())
        return done.stdout.decode()


def die_with_parent() -> None:
    """Let the kernel end the child when this process is gone, however it went."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
