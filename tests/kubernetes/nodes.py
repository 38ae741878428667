"""One node of the Kubernetes: a network namespace and a mount namespace, with containerd, a kubelet and a kube-proxy.

Laws:
- a node sees directories of its own at the places where a node has its state (`PLACES`), so that what is installed with
  its defaults finds what it expects, and no node sees another's;
- everything of a node's pods is in one cgroup, by which `close` ends them: their network namespaces are nobody's child.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from pathlib import Path
from typing import Final

from tests.kubernetes.builds import KUBERNETES
from tests.lab.builds import CONTAINERD_2
from tests.lab.network import Host
from tests.lab.process import Process, run, wait_until

PLACES: Final = (
    "/run/containerd",
    "/var/lib/containerd",
    "/etc/containerd",
    "/var/lib/p2pmirror",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/etc/cni",
    "/opt/cni",
)
CGROUPS: Final = Path("/sys/fs/cgroup")
SOCKET: Final = "/run/containerd/containerd.sock"
PAUSE: Final = "pause.test/pause:1"
CERTS_D: Final = "/etc/containerd/certs.d"
READY_S: Final = 120
GONE_S: Final = 20

_CONTAINERD: Final = f"""\
version = 3
[plugins."io.containerd.cri.v1.images"]
  discard_unpacked_layers = false
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{CERTS_D}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"
"""
_CNI: Final = """\
{"cniVersion": "1.0.0", "name": "lab", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "@PODS@"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
"""
_KUBELET: Final = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /@CGROUP@
cgroupsPerQOS: true
enforceNodeAllocatable: []
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi}
resolvConf: /dev/null
clusterDomain: cluster.local
clusterDNS: [@DNS@]
"""


class KubernetesNode:
    """A host that is a node; `number` from 1 gives its name and the subnet of its pods."""

    def __init__(self, host: Host, number: int, kubeconfig: Path, dns: str) -> None:
        self.host = host
        self.name = f"node{number}"
        self.pods = f"10.80.{number}.0/24"
        self._kubeconfig = kubeconfig
        self._dns = dns
        self._cgroup = host.namespace
        self._anchor: Process | None = None
        self._kubelet: Process | None = None
        self._binaries = f"{CONTAINERD_2.built()}:{KUBERNETES.built()}"

    def place(self, path: str) -> Path:
        """Return where a directory of `PLACES`, or what is below it, is for the tests."""
        return self.host.directory / "places" / path.lstrip("/")

    def inside(self, *argv: str, timeout_s: float = 60) -> str:
        """Run a command as on this node. Raises CommandFailed."""
        return run(self._command(argv), timeout_s=timeout_s, env=self._environment)

    def ctr(self, *argv: str, timeout_s: float = 120) -> str:
        """Run ctr on Kubernetes' images. Raises CommandFailed."""
        return self.inside(str(CONTAINERD_2.built() / "ctr"), "-n", "k8s.io", *argv, timeout_s=timeout_s)

    def start(self, images: list[Path]) -> None:
        """Start containerd, import images, and start a kubelet and a kube-proxy."""
        self._make_places()
        self._make_cgroups()
        script = f"{self._mounts()}; exec sleep infinity"
        self._anchor = self.host.start("places", ["unshare", "--mount", "--propagation=private", "sh", "-c", script])
        wait_until(self._sees_places, f"{self.name} sees its places")
        containerd = self._start("containerd", str(CONTAINERD_2.built() / "containerd"))
        containerd.wait_until(self._containerd_answers, timeout_s=READY_S)
        for image in images:
            self.ctr("images", "import", str(image))
        self._start_kubelet()
        proxy = ["--proxy-mode=iptables", "--cluster-cidr=10.80.0.0/16", f"--hostname-override={self.name}"]
        still = ["max-per-core", "tcp-timeout-established", "tcp-timeout-close-wait"]
        proxy += [f"--conntrack-{name}=0" for name in still]
        self._start("kube-proxy", str(KUBERNETES.built() / "kube-proxy"), f"--kubeconfig={self._kubeconfig}", *proxy)

    def leave(self) -> None:
        """End the kubelet and all pods, as a machine that is switched off."""
        if self._kubelet is not None:
            self._kubelet.kill()
        self._end_pods()

    def close(self) -> None:
        """End everything; the network's own end takes the namespace."""
        self.leave()
        for process in self.host.processes:
            process.kill()
        self._end_pods()
        for controller in CGROUPS.iterdir():
            self._remove_cgroup(controller / self._cgroup)

    # how a node comes to be

    def _make_places(self) -> None:
        for path in PLACES:
            self.place(path).mkdir(parents=True, exist_ok=True)
        (self.place("/etc/containerd") / "config.toml").write_text(_CONTAINERD)
        self.place(CERTS_D).mkdir(exist_ok=True)
        configured = self.place("/etc/cni") / "net.d" / "10-lab.conflist"
        configured.parent.mkdir(exist_ok=True)
        configured.write_text(_CNI.replace("@PODS@", self.pods))
        text = _KUBELET.replace("@CGROUP@", self._cgroup).replace("@DNS@", self._dns)
        (self.host.directory / "kubelet.yaml").write_text(text)

    def _make_cgroups(self) -> None:
        for controller in (path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()):
            group = controller / self._cgroup
            with contextlib.suppress(OSError):
                group.mkdir(exist_ok=True)
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if (group / name).exists():
                        (group / name).write_text((controller / name).read_text())

    def _mounts(self) -> str:
        made = [f"mkdir -p {path} && mount --bind {shlex.quote(str(self.place(path)))} {path}" for path in PLACES]
        return " && ".join(["set -e; mount --make-rshared /", *made])

    def _sees_places(self) -> bool:
        assert self._anchor is not None
        listed = Path(f"/proc/{self._anchor.pid}/mounts").read_text()
        return f" {PLACES[-1]} " in listed

    def _start_kubelet(self) -> None:
        options = [f"--kubeconfig={self._kubeconfig}", f"--config={self.host.directory / 'kubelet.yaml'}", "--v=1"]
        options += [f"--hostname-override={self.name}", f"--node-ip={self.host.address}"]
        self._kubelet = self._start("kubelet", str(KUBERNETES.built() / "kubelet"), *options)

    def _start(self, name: str, *argv: str) -> Process:
        process = Process(
            f"{name}@{self.host.name}", self._command(argv), self.host.directory / f"{name}.log", self._environment
        )
        self.host.processes.append(process)
        return process

    def _command(self, argv: tuple[str, ...]) -> list[str]:
        assert self._anchor is not None
        return ["nsenter", f"--mount=/proc/{self._anchor.pid}/ns/mnt", *self.host.command(argv)[1:]]

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": f"{self._binaries}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def _containerd_answers(self) -> bool:
        with contextlib.suppress(Exception):
            self.ctr("version", timeout_s=5)
            return True
        return False

    # how it ends

    def _end_pods(self) -> None:
        deadline = time.monotonic() + GONE_S
        while (pids := self._pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _pids(self) -> set[int]:
        pids: set[int] = set()
        for controller in CGROUPS.iterdir():
            for group, _, _ in os.walk(controller / self._cgroup):  # which passes over what vanishes meanwhile
                with contextlib.suppress(OSError):
                    pids |= {int(line) for line in Path(group, "cgroup.procs").read_text().split()}
        return pids

    def _remove_cgroup(self, group: Path) -> None:
        if group.is_dir():
            for path, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
