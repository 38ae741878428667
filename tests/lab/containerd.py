"""A real containerd a node: its own root, state, socket and configuration, in the node's network namespace.

Laws:
- Nothing outside the node's directory is written: each default path that containerd would use is named here.
- CRI is on, as a kubelet needs it, and reads hosts.toml from the node's `certs.d`.
- `ctr` runs in the node's namespace too: in 1.6 it is ctr, not the daemon, that fetches.
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.store.containerd.grpc import RpcError
from tests.lab.cri.client import ImageService
from tests.lab.images import Image
from tests.lab.network import Host
from tests.lab.process import COMMAND_S, CommandFailed, Process, run

NAMESPACE = "k8s.io"  # where CRI keeps its images

Way = Literal["cri", "ctr"]  # how an image is pulled


class PullFailed(Exception):
    """containerd could not pull; the message is what it says about it."""


@dataclass(frozen=True)
class Build:
    """One version of containerd; `name` is shown in the names of tests."""

    name: str
    containerd: Path
    ctr: Path

    @functools.cached_property
    def major(self) -> int:
        """1 or 2: decides the form of the configuration."""
        # "containerd github.com/containerd/containerd 1.6.20~ds1 <commit>"
        return int(run([str(self.containerd), "--version"]).split()[2].removeprefix("v").split(".")[0])


class Containerd:
    """containerd on `host`; what it holds outlives stop, kill and start."""

    def __init__(self, host: Host, build: Build) -> None:
        self.host = host
        self.build = build
        self.socket = host.directory / "containerd.sock"
        self.certs = host.directory / "certs.d"
        self.content = host.directory / "root" / "io.containerd.content.v1.content"
        self.images = ImageService(self.socket)
        self.process: Process | None = None
        self.fetch_buffer_bytes = 0  # 2.x: layers are fetched in ranges of this length, several at a time; 0: whole
        self.discards = False  # layers that were unpacked are collected with the next removal of anything
        self.config = host.directory / "containerd.toml"
        self.config_is_kept = False  # True: a test wrote it, and starting writes no other
        self.certs.mkdir()

    def start(self) -> None:
        """Start it and wait until both its own API and CRI's answer."""
        self.launch()
        self.wait()

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.running

    def launch(self) -> None:
        """Start it without waiting for it."""
        if not self.config_is_kept:
            self.write_config()
        self.process = self.host.start("containerd", [str(self.build.containerd), "--config", str(self.config)])

    def write_config(self) -> None:
        """Write its configuration, with `config_path`."""
        directory, major = self.host.directory, self.build.major
        discards = str(self.discards).lower()
        plugins = (
            _plugins_2(directory, discards, self.fetch_buffer_bytes) if major >= 2 else _plugins_1(directory, discards)
        )
        self.config.write_text(_common(directory, major) + plugins)

    def wait(self) -> None:
        """Wait until a launched containerd answers; raises RuntimeError with the end of its log."""
        assert self.process is not None
        self.process.wait_until(self._answers)

    def stop(self) -> None:
        """SIGTERM, as systemd stops it."""
        self._end(kill=False)

    def kill(self) -> None:
        """SIGKILL, as when it crashes."""
        self._end(kill=True)

    def restart(self) -> None:
        """Stop and start, as after a change of its configuration."""
        self.stop()
        self.start()

    def ctr(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        """Run ctr in CRI's namespace and return what it printed; raises CommandFailed."""
        base = [str(self.build.ctr), "--address", str(self.socket), "--namespace", NAMESPACE]
        return self.host.run([*base, *arguments], timeout_s=timeout_s)

    def pull(self, name: str, way: Way = "cri", secret: tuple[str, str] | None = None) -> None:
        """Pull an image as a kubelet would (CRI) or by `ctr images pull --hosts-dir`; raises PullFailed.

        `secret` is a pull secret (name, password), for CRI.
        """
        try:
            if way == "cri":
                self.images.pull(name, secret)
            else:
                options = ["--hosts-dir", str(self.certs), "--snapshotter", snapshotter()]
                self.ctr("images", "pull", *options, name)
        except (CommandFailed, RpcError, Unreachable, trio.TooSlowError) as error:
            raise PullFailed(str(error) or f"{way} pull of {name} did not end in time") from None

    def import_tar(self, path: Path) -> None:
        """`ctr images import` of this architecture's part of a tar."""
        self.ctr("images", "import", "--snapshotter", snapshotter(), str(path))

    def names(self) -> list[str]:
        """Return the names of all images, CRI's `sha256:…` aliases included."""
        return self.ctr("images", "list", "--quiet").split()

    def digests(self) -> set[str]:
        """Return the digests of everything in the content store."""
        return set(self.ctr("content", "list", "--quiet").split())

    def has_all(self, image: Image) -> bool:
        """Tell whether all that a node of this architecture needs of the image is committed; a look at names alone."""
        return all((self.content / "blobs" / digest.replace(":", "/")).exists() for digest in image.here)

    def verified(self, image: Image) -> bool:
        """Tell whether all that a node of this architecture needs of the image is here with the right bytes."""
        return all(self._has(digest) for digest in image.here)

    def remove_all(self) -> None:
        """Remove every image and wait until the garbage collection has removed its content."""
        if names := self.names():
            self.ctr("images", "remove", "--sync", *names)
        for digest in self.digests():  # what an interrupted pull left under a lease
            self.ctr("content", "remove", digest)

    def has_half(self) -> bool:
        """Whether content is on its way in, or was left half-way and has not been collected yet."""
        return len(self.ctr("content", "active").splitlines()) > 1  # the heading

    def _has(self, digest: str) -> bool:
        try:
            content = (self.content / "blobs" / digest.replace(":", "/")).read_bytes()
        except FileNotFoundError:
            return False
        return f"sha256:{hashlib.sha256(content).hexdigest()}" == digest

    def _end(self, *, kill: bool) -> None:
        if self.process is not None:
            self.process.kill() if kill else self.process.stop()
            self.process = None

    def _answers(self) -> bool:
        try:
            self.ctr("version", timeout_s=10)
            return self.images.answers()
        except CommandFailed:
            return False


@functools.cache
def snapshotter() -> str:
    """`overlayfs` where the temporary directory can carry it (no directory on another overlay can), else `native`."""
    with tempfile.TemporaryDirectory(prefix="lab-probe-") as name:
        parts = {part: Path(name, part) for part in ("lower", "upper", "work", "merged")}
        for path in parts.values():
            path.mkdir()
        options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(parts["merged"])]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            return "native"
        subprocess.run(["umount", str(parts["merged"])], check=True)
        return "overlayfs"


def _common(directory: Path, major: int) -> str:
    return f"""\
version = {3 if major >= 2 else 2}
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
"""


def _plugins_1(directory: Path, discards: str) -> str:
    return f"""\
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{directory}/cni/bin"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter()}"
    discard_unpacked_layers = {discards}
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{directory}/certs.d"
"""


def _plugins_2(directory: Path, discards: str, fetch_buffer_bytes: int) -> str:
    return f"""\
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.image-verifier.v1.bindir"]
  bin_dir = "{directory}/verifiers"
[plugins."io.containerd.transfer.v1.local"]
  concurrent_layer_fetch_buffer = {fetch_buffer_bytes}
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter()}"
  discard_unpacked_layers = {discards}
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{directory}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{directory}/cni/bin"]
    conf_dir = "{directory}/cni"
"""
