"""`doctor` as it is called: what it prints, as text and as JSON, and how it ends."""

import json

import pytest
from click.testing import CliRunner

from p2pmirror.cli import main
from p2pmirror.hostconfig import containerd
from p2pmirror.hostconfig.daemon import CRI_2
from p2pmirror.hostconfig.hosts import Wanted
from tests.cli.answering import answering
from tests.hostconfig.trees import write_tree

STATUS = {"ready": True, "version": "0.1.0", "members": [{"state": "alive"}] * 3, "reasons": [], "cache": {}}
METRICS = b'# TYPE p2pmirror_node_peer_keys gauge\np2pmirror_node_peer_keys{state="accepted"} 1.0\n'


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Give the options for a node whose files are in order; the agent's settings name no containerd."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    certs = tmp_path / "certs.d"
    text = f'version = 2\n[plugins."{CRI_2}".registry]\nconfig_path = "{certs}"\n'
    write_tree(tmp_path, {"config.toml": text, "agent.toml": 'store = "none"\n'})
    options = ["--config-path", certs, "--daemon-config", tmp_path / "config.toml", "--config", tmp_path / "agent.toml"]
    return [str(each) for each in options]


def configure(roots, url):
    containerd.configure(containerd.Setup(roots, ("_default",), Wanted((url,))))


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_a_node_in_order_is_said_to_be(node, tmp_path):
    """Every check is there, none is bad, exit code 0; the agent and its port are asked over HTTP."""
    with answering((200, {}), (200, STATUS), (200, METRICS)) as (url, asked):
        CliRunner().invoke(
            main, ["configure", "containerd", "--config-path", str(tmp_path / "certs.d"), "--address", url]
        )
        result = run(*node, "--address", url, "--agent", url, "--json")
    assert result.exit_code == 0, result.output
    assert asked == ["/v2/", "/api/v1/status", "/metrics"]
    said = json.loads(result.stdout)
    assert said["healthy"] is True
    levels = {each["check"]: each["level"] for each in said["checks"]}
    in_order = ("config_path", "layers", "hosts", "port", "agent", "peers", "key")
    assert {name: levels.get(name) for name in in_order} == dict.fromkeys(in_order, "ok")
    assert {"clock", "limits"} <= levels.keys()


def test_a_node_with_nothing_is_told_what_to_do(node, tmp_path):
    """Each fault on a line of its own, what to do below it, how many there are; exit code 1."""
    (tmp_path / "agent.toml").write_text(f'containerd_sock = "{tmp_path}/sock"\ncache_dir = "{tmp_path}/cache"\n')
    result = run(*node, "--address", "http://127.0.0.1:9", "--agent", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert f"BAD   containerd   does not answer at {tmp_path}/sock" in result.output
    assert "-> p2pmirror configure containerd --config-path" in result.output
    assert "BAD   port" in result.output
    assert "BAD   agent" in result.output
    assert "for the cache at" in result.output
    assert "\n4 bad, " in result.output


def test_settings_that_no_agent_would_start_with_are_a_finding(node, tmp_path):
    """And so is a key file that is none; a flag names another socket."""
    (tmp_path / "agent.toml").write_text("store = 1\n")
    output = run(*node, "--agent", "http://127.0.0.1:9", "--address", "http://127.0.0.1:9").output
    assert "BAD   settings" in output
    write_tree(tmp_path, {"agent.toml": f'peer_key_file = "{tmp_path}/key"\n', "key": ""})
    output = run(*node, "--containerd-sock", f"{tmp_path}/other", "--agent", "http://127.0.0.1:9").output
    assert f"does not answer at {tmp_path}/other" in output
    assert f"BAD   key          {tmp_path}/key: it is empty" in output


def test_in_a_pod_files_that_are_not_mounted_are_skipped(node, tmp_path, monkeypatch):
    """What nobody can see there is no fault; what is mounted is looked at."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    (tmp_path / "config.toml").unlink()
    output = run(*node, "--agent", "http://127.0.0.1:9", "--address", "http://127.0.0.1:9").output
    assert "skip  hosts " in output
    assert "skip  config " in output
    write_tree(tmp_path, {"certs.d/a.corp/hosts.toml": "[host.\n"})
    output = run(*node, "--agent", "http://127.0.0.1:9", "--address", "http://127.0.0.1:9").output
    assert "BAD   hosts " in output


def test_somebody_else_at_the_agents_port_is_no_agent(node):
    """An answer that is none is told as such."""
    with answering((404, b"<html>"), (200, b"[]")) as (url, _):
        output = run(*node, "--address", url, "--agent", url).output
    assert "answers /v2/ with 404" in output
    assert "what answers is no agent (200)" in output
