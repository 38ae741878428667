"""The Helm chart, rendered by the real helm: what it makes is what Kubernetes takes, and what the agent reads."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from p2pmirror.config.load import load
from p2pmirror.config.model import Config
from tests.deploy.helm import CHART, EXAMPLES, HELM, KUBERNETES, Refused, Resource, helm, one, render, template
from tests.groups import leave_out

pytestmark = pytest.mark.long  # helm is built from source, which takes minutes once

OTHERS = {"ServiceMonitor", "PrometheusRule"}  # of the Prometheus operator: no schema is at hand
ROOT = CHART.parents[2]
AGENT, CACHE = "p2pmirror", "p2pmirror-cache"


@pytest.fixture(autouse=True)
def _helm() -> None:
    if not HELM.at_hand:
        leave_out("helm", "needs Go to build it", mendable=False)


def config_of(resources: Sequence[Resource], kind: str, name: str, directory: Path) -> Config:
    """Return what the agent of a workload reads from its variables and its file, as the agent itself would."""
    (container,) = one(resources, kind, name)["spec"]["template"]["spec"]["containers"]
    variables: dict[str, str] = {}
    for source in container["envFrom"]:
        variables |= one(resources, "ConfigMap", source["configMapRef"]["name"])["data"]
    for each in container["env"]:
        by = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        variables[each["name"]] = "10.0.0.7" if by.endswith("IP") else "zone-a" if "zone" in by else each["value"]
    lists = one(resources, "ConfigMap", "p2pmirror-lists")["data"]
    file = directory / "lists.toml"
    file.write_text(lists[Path(variables.pop("P2PMIRROR_CONFIG")).name])
    return load(variables, {}, file)


@pytest.mark.parametrize("example", [None, *EXAMPLES])
def test_kubernetes_takes_what_helm_renders(example: str | None, tmp_path: Path) -> None:
    """Lint has no complaint, and each resource of each set of values fits the schema of its kind, strictly."""
    files = [CHART / "examples" / f"{example}.yaml"] if example else []

    helm("lint", "--strict", str(CHART), *(argument for path in files for argument in ("-f", str(path))))
    resources = render(files=files, directory=tmp_path)

    assert len(resources) > 5
    for resource in resources:
        assert resource["metadata"]["namespace"] == "mirror"
        if resource["kind"] not in OTHERS:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)


@pytest.mark.parametrize("example", [None, *EXAMPLES])
def test_the_agent_reads_what_the_chart_says(example: str | None, tmp_path: Path) -> None:
    """Every agent of every set of values would start with its settings."""
    files = [CHART / "examples" / f"{example}.yaml"] if example else []
    resources = render(files=files, directory=tmp_path)

    agent = config_of(resources, "DaemonSet", AGENT, tmp_path)

    assert agent.registry_addr.port == 29999
    assert str(agent.bootstrap) == "dns:p2pmirror-members.mirror.svc.cluster.local:29998"
    assert agent.zone == "zone-a"
    if any(each["kind"] == "StatefulSet" for each in resources):
        cache = config_of(resources, "StatefulSet", CACHE, tmp_path)
        assert cache.store is None
        assert cache.cache is not None
        assert cache.registry_addr.port == 5000


def test_settings_of_every_kind_reach_the_agent(tmp_path: Path) -> None:
    """Durations, sizes, switches, numbers, lists and tables arrive as the agent writes them itself."""
    values = {
        "settings": {
            "first_byte_timeout": "5s",
            "upload_rate_max": 200_000_000,
            "mirror_resolve_retries": 7,
            "resolve_tags": False,
            "filters": ["!.*/secret-.*", "ghcr.io/.*"],
            "zone": "by hand",
        },
        "registries": [{"name": "registry.example", "url": "http://registry.example:5000", "private_addresses": True}],
        "allowedClients": ["10.0.0.0/8"],
        "cache": {"size": "7Gi"},
    }

    agent = config_of(render(values, directory=tmp_path), "DaemonSet", AGENT, tmp_path)

    assert agent.first_byte_timeout_s == 5
    assert agent.upload_rate_max == 200_000_000
    assert agent.mirror_resolve_retries == 7
    assert not agent.resolve_tags
    assert not agent.filters.allows("quay.io/org/secret-thing")
    assert agent.cache is not None
    assert agent.cache.bytes_max == 7 * 1024**3
    assert [str(each) for each in agent.allowed_clients] == ["10.0.0.0/8"]


def test_a_change_of_settings_restarts_the_agents(tmp_path: Path) -> None:
    """The pods' annotation follows what the agents read, and nothing else."""

    def mark(values: Mapping[str, object]) -> str:
        template = one(render(values, directory=tmp_path), "DaemonSet", AGENT)["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    assert mark({}) == mark({"podLabels": {"team": "a"}})
    assert mark({}) != mark({"settings": {"tag_ttl": "1m"}})


def test_the_agents_have_no_more_power_than_they_need(tmp_path: Path) -> None:
    """No privileged container, no capability, no writable root; what is the host's is read-only but for the cache."""
    resources = render({"sharedCache": {"enabled": True}}, directory=tmp_path)
    for workload in (each for each in resources if each["kind"] in ("DaemonSet", "StatefulSet", "Job")):
        pod = workload["spec"]["template"]["spec"]
        assert pod["enableServiceLinks"] is False, "a service named p2pmirror would set P2PMIRROR_PORT"
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    pod = one(resources, "DaemonSet", AGENT)["spec"]["template"]["spec"]
    hosts = {volume["name"] for volume in pod["volumes"] if "hostPath" in volume}
    written = {m["name"] for m in pod["containers"][0]["volumeMounts"] if not m.get("readOnly")} & hosts
    assert written == {"cache"}
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image": {"digets": "sha256:0"}}, "digets"),
        ({"settings": {"frist_byte_timeout": "5s"}}, "frist_byte_timeout"),
        ({"bootstrap": "etcd"}, "bootstrap"),
        ({"clusterKey": {"value": "short"}}, "value"),
        ({"ports": {"registry": 70000}}, "registry"),
        ({"cache": {"hostPath": "relative"}}, "hostPath"),
        ({"sharedCache": {"enabled": True, "persistence": {"size": "100G"}}}, "sharedCache.size"),
        ({"configure": {"mirrors": ["10.0.0.1:30500"]}}, "mirrors"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    """What the chart does not know, or cannot be, ends the installation with the name of the value."""
    with pytest.raises(Refused, match=said):
        render(values, directory=tmp_path)


def test_the_plain_manifests_are_what_the_chart_makes(tmp_path: Path) -> None:
    """`deploy/kubernetes/p2pmirror.yaml` was rendered from the chart as it is."""
    fresh = tmp_path / "fresh.yaml"

    subprocess.run(["sh", ROOT / "tools" / "manifests.sh", HELM.built() / "helm", fresh], check=True)

    assert fresh.read_text() == (ROOT / "deploy" / "kubernetes" / "p2pmirror.yaml").read_text()


def test_long_names_stay_within_what_kubernetes_allows(tmp_path: Path) -> None:
    """A release of 53 characters, the longest that helm takes, makes names of at most 63."""
    text = template("r" * 53, "--set", "sharedCache.enabled=true")

    for resource in filter(None, yaml.safe_load_all(text)):
        assert len(resource["metadata"]["name"]) <= 63
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_a_release_gives_back_what_it_configured_itself(tmp_path: Path) -> None:
    """What runs on the nodes, at the start and at the end, says for which release: another one's is left alone."""
    for release in ("one", "two"):
        text = template(release)
        words = [word for each in filter(None, yaml.safe_load_all(text)) for word in arguments_of(each)]
        assert words.count(f"--owner=default/{release}") == 2
        assert len([word for word in words if word.startswith("--owner=")]) == 2


def arguments_of(resource: Resource) -> list[str]:
    """Return what the containers that come first in a resource's pods are called with."""
    pod = resource.get("spec", {}).get("template", {}).get("spec", {}) if resource["kind"] == "DaemonSet" else {}
    return [word for each in pod.get("initContainers", ()) for word in each["args"]]
