"""What is printed for Talos, k3s and kind: golden, and read by a parser that is not ours."""

import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from p2pmirror.cli import main
from p2pmirror.hostconfig.daemon import CRI_2, CRI_3
from p2pmirror.hostconfig.kind import CERTS_D

GOLDEN = Path(__file__).parent / "golden"
AGENT, CACHE = "http://127.0.0.1:29999", "http://10.0.0.9:30500"
BOTH = ["--address", AGENT, "--address", CACHE]

CALLS = {
    "talos": ["talos"],
    "talos-1.13": ["talos", "--talos-version", "1.13", *BOTH, "--namespace", "p2pmirror"],
    "talos-1.14": ["talos", "--talos-version", "v1.14.1", *BOTH, "--registry", "docker.io", "--no-fallback"],
    "k3s": ["k3s", *BOTH],
    "kind": ["kind", "--workers", "1", "--certs-d", "/srv/certs.d", "--cache-dir", "/srv/cache"],
}


def printed(name):
    result = CliRunner().invoke(main, ["configure", *CALLS[name]])
    assert result.exit_code == 0, result.output
    return result.stdout


def documents(name):
    return list(yaml.safe_load_all(printed(name)))


@pytest.mark.parametrize("name", CALLS)
def test_what_is_printed_is_golden(name):
    """The file in `golden` is what users were given; a change of it is a change for them."""
    assert printed(name) == (GOLDEN / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", ["talos", "talos-1.13", "talos-1.14"])
def test_talos_is_told_once_to_ask_and_to_keep(name):
    """Whatever the release, a field or its document says each thing, never both."""
    fields, kinds = {}, {}
    for document in documents(name):
        if "kind" in document:
            kinds[document["kind"]] = document
        else:
            fields |= document
    machine = fields.get("machine", {})
    mirrors = machine.get("registries", {}).get("mirrors", {})
    assert bool(mirrors) != ("RegistryMirrorConfig" in kinds)
    urls = [endpoint["url"] for endpoint in kinds.get("RegistryMirrorConfig", {}).get("endpoints", [])]
    assert (urls or mirrors["*"]["endpoints"])[0] == AGENT
    assert ("files" in machine) != ("CRICustomizationConfig" in kinds)
    part = machine["files"][0]["content"] if "files" in machine else kinds["CRICustomizationConfig"]["content"]
    assert tomllib.loads(part) == {"plugins": {"io.containerd.cri.v1.images": {"discard_unpacked_layers": False}}}
    if "cluster" in fields:
        (manifest,) = fields["cluster"]["inlineManifests"]
        metadata = yaml.safe_load(manifest["contents"])["metadata"]
        assert metadata == {"name": "p2pmirror", "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}


def test_k3s_is_told_the_agent_first():
    """The own agent, then the shared cache, for every registry."""
    assert documents("k3s") == [{"mirrors": {"*": {"endpoint": [AGENT, CACHE]}}}]


def test_kind_has_a_node_each_and_patches_for_both_forms():
    """Each patch is TOML and names no version, so that every node image takes it; each node has a cache of its own."""
    (cluster,) = documents("kind")
    patches = [tomllib.loads(patch) for patch in cluster["containerdConfigPatches"]]
    assert [set(patch["plugins"]) for patch in patches] == [{CRI_3}, {CRI_2}]
    assert all("version" not in patch for patch in patches)
    assert [node["role"] for node in cluster["nodes"]] == ["control-plane", "worker"]
    mounts = [{each["containerPath"]: each["hostPath"] for each in node["extraMounts"]} for node in cluster["nodes"]]
    assert mounts == [{CERTS_D: "/srv/certs.d", "/var/lib/p2pmirror": f"/srv/cache/node-{n}"} for n in (0, 1)]
    bare = yaml.safe_load(CliRunner().invoke(main, ["configure", "kind", "--workers", "0"]).stdout)
    assert bare["nodes"] == [{"role": "control-plane"}]


@pytest.mark.parametrize(
    "arguments",
    [
        ["talos", "--talos-version", "new"],
        ["talos", "--talos-version", "1"],
        ["talos", "--namespace", "Upper"],
        ["talos", "--namespace", "a" * 64],
        ["talos", "--address", "127.0.0.1:1"],
        ["kind", "--workers", "-1"],
        ["kind", "--workers", "1000"],
        ["k3s", "--registry", "a b"],
    ],
)
def test_a_wrong_value_is_a_usage_error(arguments):
    """Exit code 2 and nothing printed that somebody could feed on."""
    result = CliRunner().invoke(main, ["configure", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("name", ["containerd", "talos", "k3s", "kind"])
def test_each_platform_has_help_with_an_example(name):
    """As every command."""
    output = CliRunner().invoke(main, ["configure", name, "--help"]).output
    assert f"  p2pmirror configure {name}" in output.partition("Example:")[2]
