"""A real Kubernetes of three nodes, on which helm installs the chart: pods start from peers, and go on starting.

`make e2e-kubernetes`. The tests share one cluster and follow one another: what one installs the next one has.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from p2pmirror.version import VERSION
from tests.groups import leave_out
from tests.kubernetes import image
from tests.kubernetes.builds import KUBERNETES
from tests.kubernetes.cluster import NAMESPACE, Cluster
from tests.kubernetes.nodes import CERTS_D, KubernetesNode
from tests.lab.process import CommandFailed, wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.lab]

MIB: Final = 1024 * 1024
RUNS_S: Final = 180
APART_S: Final = 30  # for agents to know one another after a change
REGISTRY: Final = "10.97.0.254:5000"
REGISTRIES: Final = json.dumps([{"name": REGISTRY, "url": f"http://{REGISTRY}", "private_addresses": True}])
VOLUME: Final = "/var/lib/kubelet/volume-of-the-lab"
THEIRS: Final = f'# Written by somebody else.\nserver = "http://{REGISTRY}"\n\n[host."http://{REGISTRY}"]\n'
WITH_REGISTRY: Final = ("--set-json", f"registries={REGISTRIES}")


@pytest.fixture(scope="module")
def cluster(lab_run: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three nodes, a registry, our image on every node; the registry's hosts.toml is there before us."""
    if not KUBERNETES.at_hand or image.LACKING or shutil.which("etcd") is None:
        leave_out("kubernetes", "needs Go, etcd, buildah and mmdebstrap", mendable=False)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # builds take minutes: let them say so
        archive = image.build(VERSION, lab_run / "p2pmirror.tar")
        cluster = Cluster(3, [archive])
        with cluster:
            for node in cluster.nodes:
                write_theirs(node)
            yield cluster


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """Install the chart with its defaults, and the registry of the lab, which is private."""
    cluster.install(*WITH_REGISTRY)
    wait_for_members(cluster, 3)
    return cluster


def test_a_deployment_starts_from_peers_while_the_registry_is_away(installed: Cluster) -> None:
    """On node 1 it is pulled through the agents; on 2 and 3, with the registry stopped, it starts from peers."""
    name = installed.push("app", 24 * MIB)
    deploy(installed, "app", name, nodes=["node1"])
    wait_for_pods(installed, "app", 1)

    installed.registry.stop()
    try:
        deploy(installed, "app-again", name, nodes=["node2", "node3"], replicas=2)
        wait_for_pods(installed, "app-again", 2)
    finally:
        installed.registry.start()


def test_a_daemonset_on_all_nodes_at_once_draws_one_copy(installed: Cluster) -> None:
    """Three nodes that want the same cold image at the same moment fetch its layers once from the registry."""
    name = installed.push("everywhere", 32 * MIB)
    before = installed.registry.sent_bytes()

    daemon(installed, "everywhere", name)
    wait_for_pods(installed, "everywhere", 3)

    copies = (installed.registry.sent_bytes() - before) / (32 * MIB)
    print(f"upstream copies for three nodes at once: {copies:.2f}")
    assert copies < 1.3


def test_their_configuration_is_kept_and_ours_comes_first(installed: Cluster) -> None:
    """The agent stands before what was in the registry's hosts.toml."""
    for node in installed.nodes:
        text = theirs(node).read_text()
        assert text.index("127.0.0.1:29999") < text.index(f'host."http://{REGISTRY}"')
        assert "# Written by somebody else." in text


def test_pods_start_while_agents_are_replaced(installed: Cluster) -> None:
    """A rolling update of the agents while pods are started: none fails; the key is the same afterwards."""
    before = key(installed)
    installed.install(*WITH_REGISTRY, "--set", "podAnnotations.turn=two", "--wait=false")
    for number in range(4):
        name = installed.push(f"during-{number}", MIB)
        deploy(installed, f"during-{number}", name, nodes=["node1", "node2", "node3"], replicas=3)
    for number in range(4):
        wait_for_pods(installed, f"during-{number}", 3)
    installed.kubectl("-n", NAMESPACE, "rollout", "status", "daemonset/p2pmirror", "--timeout=180s")

    assert key(installed) == before
    assert failures(installed) == []
    wait_for_members(installed, 3)


def test_a_killed_agent_stops_no_pod(installed: Cluster) -> None:
    """Every agent is killed; an image that no node has starts all the same."""
    installed.kubectl(
        "-n", NAMESPACE, "delete", "pods", "-l", "app.kubernetes.io/component=agent", "--force", "--wait=false"
    )
    name = installed.push("killed", MIB)

    daemon(installed, "killed", name)

    wait_for_pods(installed, "killed", 3)
    installed.kubectl("-n", NAMESPACE, "rollout", "status", "daemonset/p2pmirror", "--timeout=180s")


def test_bootstrap_by_the_api(installed: Cluster) -> None:
    """Agents that ask the API for the service's endpoints find one another as well."""
    installed.install(*WITH_REGISTRY, "--set", "bootstrap=kubernetes")

    wait_for_members(installed, 3)

    name = installed.push("by-api", MIB)
    daemon(installed, "by-api", name)
    wait_for_pods(installed, "by-api", 3)


def test_a_node_that_joins_pulls_its_first_image_without_the_registry(installed: Cluster) -> None:
    """With a shared cache a new node's first image, pulled at the cache's NodePort, draws nothing from the registry.

    The cache has a volume, as it has by default, and has still got the image when its pod is another one.
    """
    first = installed.nodes[0]
    offer_volume(installed, first)
    shared = ["--set", "sharedCache.enabled=true", "--set", "sharedCache.service.type=NodePort"]
    installed.install(*WITH_REGISTRY, *shared)
    name = installed.push("first", 4 * MIB)
    pull_by(first, f"http://{first.host.address}:30500", name)
    for port, target in ((30500, "/v2/"), (30500, "/api/v2.0/ping"), (30880, "/api/v2.0/ping")):
        assert first.host.request(port, target, address=first.host.address).status == 200
    held_bytes = cached_bytes(first)
    assert held_bytes >= 4 * MIB
    installed.kubectl("-n", NAMESPACE, "rollout", "restart", "statefulset/p2pmirror-cache")
    installed.kubectl("-n", NAMESPACE, "rollout", "status", "statefulset/p2pmirror-cache", "--timeout=180s")
    assert cached_bytes(first) == held_bytes
    before = installed.registry.sent_bytes()

    joined = installed.add_node(4)
    pull_by(joined, f"http://{first.host.address}:30500", name)

    assert installed.registry.sent_bytes() == before
    write_theirs(joined)
    installed.wait_for_nodes()
    installed.kubectl("-n", NAMESPACE, "rollout", "status", "daemonset/p2pmirror", "--timeout=180s")
    wait_for_members(installed, 5)
    installed.remove_node(joined)
    wait_for_members(installed, 4)


def test_uninstalling_leaves_everything_as_it_was(installed: Cluster) -> None:
    """Every byte of certs.d is as it was on every node, and the next pull works without us."""
    installed.helm("uninstall", "p2pmirror", "--timeout=5m")

    for node in installed.nodes:
        files = {
            str(path.relative_to(node.place(CERTS_D))): path
            for path in node.place(CERTS_D).rglob("*")
            if path.is_file()
        }
        assert list(files) == [f"{REGISTRY.replace(':', '_')}_/hosts.toml"]
        assert theirs(node).read_text() == THEIRS
    wait_until(lambda: not installed.get("-n", NAMESPACE, "pods")["items"], "its pods are gone", every_s=0.5)
    name = installed.push("afterwards", MIB)
    daemon(installed, "afterwards", name)
    wait_for_pods(installed, "afterwards", 3)


# what the tests ask of the cluster


def write_theirs(node: KubernetesNode) -> None:
    """Write the registry's hosts.toml, as an administrator would."""
    theirs(node).parent.mkdir(parents=True, exist_ok=True)
    theirs(node).write_text(THEIRS)


def theirs(node: KubernetesNode) -> Path:
    """Return that file of a node."""
    return node.place(CERTS_D) / f"{REGISTRY.replace(':', '_')}_" / "hosts.toml"


def pod_of(name: str, image_name: str) -> dict[str, Any]:
    """Return the template of pods that run an image."""
    return {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": image_name, "imagePullPolicy": "IfNotPresent"}],
        },
    }


def deploy(cluster: Cluster, name: str, image_name: str, *, nodes: Sequence[str], replicas: int = 1) -> None:
    """Create a deployment whose pods run on some nodes, each on another."""
    template = pod_of(name, image_name)
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}]}]
    template["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}},
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": name}}}
            ]
        },
    }
    create(cluster, "Deployment", name, {"replicas": replicas}, template)


def daemon(cluster: Cluster, name: str, image_name: str) -> None:
    """Create a daemon set."""
    create(cluster, "DaemonSet", name, {}, pod_of(name, image_name))


def create(cluster: Cluster, kind: str, name: str, spec: Mapping[str, Any], template: Mapping[str, Any]) -> None:
    """Create a workload in the default namespace."""
    whole = {**spec, "selector": {"matchLabels": {"app": name}}, "template": template}
    cluster.apply(
        {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": whole}
    )


def wait_for_pods(cluster: Cluster, name: str, count: int) -> None:
    """Wait until so many pods run."""
    began = time.monotonic()

    def run_all() -> bool:
        items = cluster.get("pods", "-l", f"app={name}")["items"]
        return sum(item["status"].get("phase") == "Running" for item in items) >= count

    try:
        wait_until(run_all, f"{count} pods of {name} run", timeout_s=RUNS_S, every_s=0.5)
    except TimeoutError as error:
        told = cluster.kubectl("describe", "pods", "-l", f"app={name}")
        raise AssertionError(f"{error}\n{told[-4000:]}") from None
    print(f"{name}: {count} pods after {time.monotonic() - began:.1f} s")


def offer_volume(cluster: Cluster, node: KubernetesNode) -> None:
    """Create a volume of a node's disk, as large as the shared cache asks for by default."""
    node.place(VOLUME).mkdir()
    here = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}]}]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "of-the-lab"},
            "spec": {
                "capacity": {"storage": "100Gi"},
                "accessModes": ["ReadWriteOnce"],
                "local": {"path": VOLUME},
                "nodeAffinity": {"required": {"nodeSelectorTerms": here}},
            },
        }
    )


def cached_bytes(node: KubernetesNode) -> int:
    """Return how much the shared cache holds, as its page says at the node's port for it."""
    found: list[int] = []

    def answers() -> bool:
        try:
            reply = node.host.request(30880, "/api/v1/status", address=node.host.address)
        except OSError:
            return False
        found[:] = [json.loads(reply.body)["cache"]["bytes"]] if reply.status == 200 else []
        return bool(found)

    wait_until(answers, "the shared cache's page answers", timeout_s=APART_S, every_s=0.5)
    return found[0]


def failures(cluster: Cluster) -> list[str]:
    """Return the events that tell of images that could not be pulled."""
    events = cluster.get("events")["items"]
    return [event["message"] for event in events if event.get("reason") == "Failed"]


def wait_for_members(cluster: Cluster, count: int) -> None:
    """Wait until every agent knows all agents and caches, itself included."""

    def all_know() -> bool:
        pods = cluster.get("-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/component=agent")["items"]
        if not pods:
            return False
        for pod in pods:
            address = pod["status"].get("hostIP", "")
            node = next((each for each in cluster.nodes if each.host.address == address), None)
            if node is None:
                continue
            try:
                reply = node.host.request(9090, "/api/v1/members")
            except OSError:
                return False
            members = json.loads(reply.body)["members"]
            if sum(each["state"] == "alive" for each in members) != count:
                return False
        return True

    wait_until(all_know, f"every agent knows {count - 1} others", timeout_s=RUNS_S + APART_S, every_s=0.5)


def key(cluster: Cluster) -> str:
    """Return the cluster's key as it is kept."""
    found: str = cluster.get("-n", NAMESPACE, "secret", "p2pmirror-key")["data"]["key"]
    return found


def pull_by(node: KubernetesNode, mirror: str, name: str) -> None:
    """Pull an image on a node by a mirror alone."""
    hosts = node.host.directory / "by-mirror"
    directory = hosts / f"{REGISTRY.replace(':', '_')}_"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hosts.toml").write_text(f'server = "{mirror}"\n')

    def pulled() -> bool:
        try:
            node.ctr("images", "pull", "--hosts-dir", str(hosts), name)
        except CommandFailed:
            return False
        return True

    wait_until(pulled, f"{node.name} pulls by {mirror}", timeout_s=RUNS_S, every_s=1)
