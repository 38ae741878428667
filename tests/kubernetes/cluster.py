"""A real Kubernetes on this machine: an API server, controllers, a scheduler, names, a registry, and nodes.

Laws: traffic stays between the namespaces that are made here; all of it is plain, blocking code; what a run leaves is
swept as every run's of the lab is.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from tests.deploy.helm import CHART, HELM
from tests.kubernetes.builds import COREDNS, KUBERNETES
from tests.kubernetes.nodes import PAUSE, READY_S, KubernetesNode
from tests.lab import sweep
from tests.lab.goprograms import go
from tests.lab.lab import running
from tests.lab.network import NAMESPACES, SUBNET, Network
from tests.lab.process import CommandFailed, run, wait_until
from tests.lab.registry import Registry

SERVICES: Final = "10.79.0.0/24"
SECRET: Final = "admin-of-the-lab"
NAMESPACE: Final = "p2pmirror"
_numbers = itertools.count()

_KUBECONFIG: Final = """\
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://@SERVER@:6443", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: @TOKEN@}}]
contexts: [{name: lab, context: {cluster: lab, user: admin}}]
current-context: lab
"""
_COREFILE: Final = """\
.:53 {
  bind @SERVER@
  kubernetes cluster.local in-addr.arpa {
    kubeconfig @KUBECONFIG@ lab
  }
}
"""
_PAUSE: Final = """\
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
"""


class Cluster:
    """`count` nodes and what rules them, started. Use it as a context manager: it cleans up at the end."""

    def __init__(self, count: int, images: Sequence[Path]) -> None:
        mark = sweep.mark_of(os.getpid())
        self._prefix = f"{mark}-k{next(_numbers)}"
        self.directory = sweep.directory_of(mark) / self._prefix
        self.network = Network(self._prefix, self.directory)
        self._before = {path.name for path in NAMESPACES.iterdir()}
        self._images = list(images)
        self.registry = Registry(self.network.add("registry", 254))
        self._control = self.network.add("control", 100)
        self.kubeconfig = self.directory / "kubeconfig"
        text = _KUBECONFIG.replace("@SERVER@", self._control.address).replace("@TOKEN@", SECRET)
        self.kubeconfig.write_text(text)
        self.pause = self.directory / "pause"
        self.nodes: list[KubernetesNode] = []
        running.append(self)
        self._count = count

    def __enter__(self) -> Self:
        try:
            self.registry.start()
            self._start_control()
            self._build_pause()
            for number in range(1, self._count + 1):
                self.add_node(number)
            self.wait_for_nodes()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def logs(self) -> list[tuple[str, str]]:
        """Return the name and the end of the log of each process."""
        return [(each.name, each.tail()) for host in self.network.hosts.values() for each in host.processes]

    # asking

    def kubectl(self, *arguments: str, given: str | None = None, timeout_s: float = 120) -> str:
        """Run kubectl. Raises CommandFailed with what it said."""
        program = [str(KUBERNETES.built() / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return self._on_control(program, given, timeout_s)

    def helm(self, *arguments: str, timeout_s: float = 600) -> str:
        """Run helm in the namespace of the release. Raises CommandFailed with what it said."""
        program = [str(HELM.built() / "helm"), f"--kubeconfig={self.kubeconfig}", f"--namespace={NAMESPACE}"]
        return self._on_control([*program, *arguments], None, timeout_s)

    def install(self, *arguments: str) -> str:
        """Install the chart, or upgrade it, and wait until all is ready."""
        options = ["--create-namespace", "--wait", "--timeout=5m", "--set", "image.pullPolicy=Never"]
        return self.helm("upgrade", "--install", "p2pmirror", str(CHART), *options, *arguments)

    def get(self, *what: str) -> dict[str, Any]:
        """Return what `kubectl get` says as an object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *what, "-o", "json"))
        return found

    def apply(self, *resources: Mapping[str, Any]) -> None:
        """Create or change resources."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(resources)}
        self.kubectl("apply", "-f", "-", given=json.dumps(document))

    # what it is made of

    def add_node(self, number: int) -> KubernetesNode:
        """Start one more node."""
        host = self.network.add(f"n{number}", number)
        node = KubernetesNode(host, number, self.kubeconfig, self._control.address)
        host.run(["ip", "route", "add", "default", "via", f"{SUBNET}.253"])
        host.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        for other in (*self.nodes, None):
            self._route(host.name, other)
            if other is not None:
                self._route(other.host.name, node)
        self._route("control", node)
        self._route("registry", node)
        self.nodes.append(node)
        node.start([self.directory / "pause.tar", *self._images])
        return node

    def remove_node(self, node: KubernetesNode) -> None:
        """Switch a node off and have Kubernetes forget it."""
        node.close()
        self.nodes.remove(node)
        self.kubectl("delete", "node", node.name)

    def wait_for_nodes(self) -> None:
        """Wait until all nodes are ready."""
        names = [node.name for node in self.nodes]
        wait_until(lambda: self._ready_nodes() >= set(names), f"{names} are ready", timeout_s=READY_S, every_s=0.5)

    def runnable(self, name: str, layer_bytes: int) -> Path:
        """Return an OCI layout of an image that runs until it is told to end, with so much random content."""
        directory = self.directory / "images" / name
        directory.mkdir(parents=True)
        (directory / "content").write_bytes(os.urandom(layer_bytes))
        layout = directory / "layout"
        self._build_image(directory, f"localhost/{name}:v1", f"oci:{layout}:v1", "COPY content /content\n")
        return layout

    def push(self, name: str, layer_bytes: int) -> str:
        """Make an image that runs, push it, and return its name for pods."""
        layout = self.runnable(name, layer_bytes)
        target = f"docker://127.0.0.1:5000/lab/{name}:v1"
        options = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
        self.registry.host.run(["skopeo", *options, f"oci:{layout}:v1", target])
        return f"{self.registry.host.address}:5000/lab/{name}:v1"

    def close(self) -> None:
        """End everything and remove it."""
        if self in running:
            running.remove(self)
        for node in self.nodes:
            node.close()
        self.network.close()
        sweep.remove(self._prefix, self.directory)
        for name in {path.name for path in NAMESPACES.iterdir()} - self._before:
            if name.startswith("cni-") and not run(["ip", "netns", "pids", name]).strip():
                subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def _start_control(self) -> None:
        host, binaries, directory = self._control, KUBERNETES.built(), self._control.directory
        etcd = ["--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"]
        etcd += ["--listen-peer-urls=http://127.0.0.1:2380", f"--data-dir={directory / 'etcd'}", "--unsafe-no-fsync"]
        host.start("etcd", ["etcd", *etcd])
        key = directory / "service-accounts.key"
        run(["openssl", "genrsa", "-out", str(key), "2048"])
        (directory / "tokens.csv").write_text(f"{SECRET},admin,admin,system:masters\n")
        api = ["--etcd-servers=http://127.0.0.1:2379", f"--cert-dir={directory / 'api'}", "--secure-port=6443"]
        api += [f"--advertise-address={host.address}", f"--service-cluster-ip-range={SERVICES}", "--allow-privileged"]
        api += [f"--token-auth-file={directory / 'tokens.csv'}", "--authorization-mode=RBAC"]
        api += [f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"]
        host.start("apiserver", [str(binaries / "kube-apiserver"), *api, "--service-account-issuer=https://lab.test"])
        wait_until(self._api_answers, "the API answers", timeout_s=READY_S, every_s=0.5)
        own = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false"]
        manager = [*own, f"--service-account-private-key-file={key}"]
        manager += [f"--root-ca-file={directory / 'api' / 'apiserver.crt'}"]
        # A node that is switched off is seen sooner than by default, so that tests need not wait for minutes.
        manager += ["--node-monitor-grace-period=16s", "--node-monitor-period=2s"]
        host.start("controllers", [str(binaries / "kube-controller-manager"), *manager])
        host.start("scheduler", [str(binaries / "kube-scheduler"), *own])
        corefile = _COREFILE.replace("@SERVER@", host.address).replace("@KUBECONFIG@", str(self.kubeconfig))
        (directory / "Corefile").write_text(corefile)
        host.start("coredns", [str(COREDNS.built() / "coredns"), "-conf", str(directory / "Corefile")])

    def _build_pause(self) -> None:
        source = self.directory / "pause.go"
        source.write_text(_PAUSE)
        go("build", "-ldflags=-s -w", "-o", str(self.pause), str(source))
        context = self.directory / "pause-image"
        context.mkdir()
        self._build_image(context, PAUSE, f"docker-archive:{self.directory / 'pause.tar'}:{PAUSE}")

    def _build_image(self, context: Path, name: str, target: str, more: str = "") -> None:
        """Build an image that waits, and write it to a target of buildah's."""
        (context / "pause").write_bytes(self.pause.read_bytes())
        (context / "pause").chmod(0o755)
        (context / "Dockerfile").write_text(f'FROM scratch\n{more}COPY pause /pause\nENTRYPOINT ["/pause"]\n')
        for command in (
            ["bud", "--quiet", "--layers", "--isolation=chroot", "--tag", name, str(context)],
            ["push", "--quiet", name, target],
            ["rmi", name],
        ):
            run(["buildah", *command], timeout_s=300)

    def _route(self, host: str, node: KubernetesNode | None) -> None:
        if node is not None:
            self.network.hosts[host].run(["ip", "route", "replace", node.pods, "via", node.host.address])

    def _api_answers(self) -> bool:
        try:
            return self.kubectl("get", "--raw", "/readyz", timeout_s=5).strip() == "ok"
        except CommandFailed:
            return False

    def _ready_nodes(self) -> set[str]:
        try:
            items = self.get("nodes")["items"]
        except CommandFailed:
            return set()
        return {
            item["metadata"]["name"]
            for item in items
            for condition in item["status"].get("conditions", ())
            if (condition["type"], condition["status"]) == ("Ready", "True")
        }

    def _on_control(self, program: list[str], given: str | None, timeout_s: float) -> str:
        command = self._control.command(program)
        home = {**os.environ, "HOME": str(self.directory)}
        try:
            done = subprocess.run(
                command, input=given or "", capture_output=True, text=True, check=False, timeout=timeout_s, env=home
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(program, None, "") from None
        if done.returncode:
            raise CommandFailed(program, done.returncode, done.stderr + done.stdout)
        return done.stdout
