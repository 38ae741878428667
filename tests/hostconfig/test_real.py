"""Real containerds read what the commands write, pull through the agent by it, and without it when it is taken back."""

import json
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
import tomlkit
from click.testing import CliRunner

from p2pmirror.cli import main
from p2pmirror.hostconfig.daemon import CRI_2, CRI_3
from p2pmirror.hostconfig.kind import CERTS_D, PATCHES
from tests.hostconfig.trees import snapshot, write_tree
from tests.lab.containerd import Containerd, PullFailed
from tests.lab.lab import Lab
from tests.lab.plugin import find_build
from tests.lab.process import run, wait_until
from tests.lab.registry import NAME, Registry

pytestmark = pytest.mark.lab

KNOWN_S = 10.0  # within this one node knows of another's image, also on a machine that is out of breath


@pytest.fixture(scope="module", params=["distribution", pytest.param("2.x", marks=pytest.mark.long)])
def build(request, lab_run):
    """Give the distribution's containerd, and 2.x in a long run."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        return find_build(request.param)


def command(*arguments: str | Path) -> str:
    """Run one of our commands; it must succeed."""
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def without_config_path(containerd: Containerd) -> None:
    """Give a containerd the lab's configuration without `config_path`, and leave it to the test from now on."""
    containerd.write_config()
    lines = containerd.config.read_text().splitlines(keepends=True)
    containerd.config.write_text("".join(line for line in lines if "config_path" not in line))
    containerd.config_is_kept = True


def users_hosts(lab: Lab) -> None:
    """Put a user's own hosts.toml into each node: where his registry is, which speaks no TLS.

    1.6 reads no file without a table of a host, so it is named twice.
    """
    url = lab.registry.url
    text = f'server = "{url}"\n\n# in the cellar\n[host."{url}"]\n  capabilities = ["pull", "resolve"]'
    for node in lab.nodes:
        write_tree(node.containerd.certs, {f"{NAME}/hosts.toml": text})


def test_configured_by_our_commands_alone_and_back(build, lab_run):
    """Two hosts are configured by our commands alone, one of them from its `config_path` on.

    Then one pulls from the other while the registry is stopped. Taken back, not a byte is left, and the next pull works
    without agents.
    """
    with Lab(2, build) as lab:
        users_hosts(lab)
        first, second = lab.nodes
        without_config_path(second.containerd)
        before = [snapshot(node.containerd.certs) for node in lab.nodes]
        config = second.containerd.config.read_bytes()
        command("configure", "containerd", "--config-path", first.containerd.certs)
        command(
            *("configure", "containerd", "--config-path", second.containerd.certs),
            *("--daemon-config", second.containerd.config),
        )
        lab.start()
        image = lab.image([200_000, 3_000_000])
        lab.registry.push(image)
        first.containerd.pull(image.name(NAME))
        wait_until(partial(knows, second, image.here, first.host.address), "it is known", timeout_s=KNOWN_S)
        lab.registry.stop()

        second.containerd.pull(image.name(NAME))

        assert second.containerd.verified(image)
        assert second.agent.metric("front_bytes_total", source="peer") >= image.blob_bytes

        for node in lab.nodes:
            command("unconfigure", "--config-path", node.containerd.certs)
            node.agent.kill()
        assert [snapshot(node.containerd.certs) for node in lab.nodes] == before
        assert second.containerd.config.read_bytes() == config
        lab.registry.start()
        other = lab.image([100_000])
        lab.registry.push(other)
        first.containerd.pull(other.name(NAME))
        second.containerd.pull(other.name(NAME), "ctr")  # it reads hosts.toml itself, as the daemon did
        assert first.containerd.verified(other)
        assert second.containerd.verified(other)


def knows(node, keys, address):
    """Tell whether a node knows that another one has all of these."""
    return all(address in node.agent.find(key) for key in keys)


SPLIT = f'version = 2\n[plugins."{CRI_2}".registry.configs."a".auth]\n  username = "u"\n'


@pytest.mark.parametrize("text", [None, SPLIT, "", "# nothing yet\n"], ids=["default", "split", "empty", "comment"])
def test_containerds_own_configurations_are_read_with_our_key(build, tmp_path, text):
    """What `containerd config default` prints, and other forms: the key is where this containerd looks for it."""
    config, certs = tmp_path / "config.toml", tmp_path / "certs.d"
    before = text if text is not None else run([str(build.containerd), "config", "default"])
    config.write_text(before)
    command("configure", "containerd", "--config-path", certs, "--daemon-config", config)
    said = tomllib.loads(run([str(build.containerd), "--config", str(config), "config", "dump"]))
    assert said["plugins"][CRI_3 if build.major >= 2 else CRI_2]["registry"]["config_path"] == str(certs)
    command("unconfigure", "--config-path", certs)
    assert config.read_text() == before


@pytest.mark.long
def test_the_doctor_finds_a_real_node_in_order_and_then_not(build, lab_run):
    """On a node that our command configured nothing is bad; then its agent stops, and an old mirror is configured."""
    with Lab(2, build) as lab:
        users_hosts(lab)
        node = lab.nodes[0]
        without_config_path(node.containerd)
        command(
            *("configure", "containerd", "--config-path", node.containerd.certs),
            *("--daemon-config", node.containerd.config),
        )
        lab.start()
        levels = doctor(node)
        in_order = ("containerd", "content", "config_path", "layers", "hosts", "port", "agent", "peers")
        assert {check: levels.get(check) for check in in_order} == {check: {"ok"} for check in in_order}
        assert "bad" not in set().union(*levels.values())

        node.agent.kill()
        with node.containerd.config.open("a") as config:
            config.write(f'[plugins."{CRI_3 if build.major >= 2 else CRI_2}".registry.mirrors."a"]\nendpoint = ["b"]\n')
        levels = doctor(node)
        bad = {check for check, found in levels.items() if "bad" in found}
        assert bad == {"port", "agent", "mirrors"}


def doctor(node):
    """Run the doctor on a node; return which levels each check has."""
    argv = [sys.executable, "-m", "p2pmirror", "doctor", "--json", "--config-path", str(node.containerd.certs)]
    argv += ["--daemon-config", str(node.containerd.config), "--containerd-sock", str(node.containerd.socket)]
    done = subprocess.run(node.host.command(argv), capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    levels = {}
    for each in json.loads(done.stdout)["checks"]:
        levels.setdefault(each["check"], set()).add(each["level"])
    return levels


@pytest.mark.long
def test_a_registry_without_a_directory_is_fallen_back_to(build, lab_run):
    """One on the host itself, which speaks no TLS: `_default` names no server, so containerd finds out where it is."""
    with Lab(1, build) as lab:
        (node,) = lab.nodes
        command("configure", "containerd", "--config-path", node.containerd.certs)
        lab.start()
        image = lab.image([100_000])
        own = Registry(node.host)
        own.start()
        own.push(image)
        node.containerd.pull(image.name("localhost:5000"))
        assert node.containerd.verified(image)
        assert node.agent.metric("front_requests_total", source="none") >= 1


@pytest.mark.long
def test_without_fallback_nobody_else_is_asked(build, lab_run):
    """With --no-fallback a registry that has the image is not asked for it, and without it again it is."""
    with Lab(1, build, fallback="false") as lab:
        (node,) = lab.nodes
        users_hosts(lab)
        lab.start()
        image = lab.image([100_000])
        lab.registry.push(image)
        command("configure", "containerd", "--config-path", node.containerd.certs, "--no-fallback")
        with pytest.raises(PullFailed):
            node.containerd.pull(image.name(NAME))
        assert lab.registry.requests() == []
        command("configure", "containerd", "--config-path", node.containerd.certs)
        node.containerd.pull(image.name(NAME))
        assert node.containerd.verified(image)


@pytest.mark.long
def test_a_shared_cache_is_asked_when_the_agent_is_not_there(build, lab_run):
    """Two addresses: with this node's agent stopped and no registry, the second one's agent still gives everything."""
    with Lab(2, build) as lab:
        users_hosts(lab)
        first, second = lab.nodes
        lab.start()
        image = lab.image([200_000, 2_000_000])
        lab.registry.push(image)
        first.containerd.pull(image.name(NAME))
        cache = f"http://{first.host.address}:29999"
        certs = second.containerd.certs
        command("configure", "containerd", "--config-path", certs, "--address", second.agent.url, "--address", cache)
        second.agent.kill()
        lab.registry.stop()
        second.containerd.pull(image.name(NAME))
        assert second.containerd.verified(image)


@pytest.mark.long
def test_the_old_form_of_mirrors_is_read_too(build, lab_run):
    """What --legacy-mirrors prints, put into a configuration without config_path, makes CRI ask the agent."""
    with Lab(2, build) as lab:
        users_hosts(lab)
        first, second = lab.nodes
        command("configure", "containerd", "--config-path", first.containerd.certs)
        without_config_path(second.containerd)
        printed = command("configure", "containerd", "--legacy-mirrors", "--registry", NAME)
        if build.major >= 2:
            printed = printed.replace('plugins."io.containerd.grpc.v1.cri"', 'plugins."io.containerd.cri.v1.images"')
        with second.containerd.config.open("a") as config:
            config.write(printed)
        lab.start()
        image = lab.image([200_000, 2_000_000])
        lab.registry.push(image)
        first.containerd.pull(image.name(NAME))
        wait_until(partial(knows, second, image.here, first.host.address), "it is known", timeout_s=KNOWN_S)
        second.containerd.pull(image.name(NAME))
        assert second.containerd.verified(image)


@pytest.mark.long
def test_what_kind_is_given_is_read_by_both_containerds(build, lab_run):
    """The patches, merged as kind merges them: the containerd of either form starts, reads hosts.toml, keeps layers.

    Without them, and with kind's own setting, it throws the layers away.
    """
    with Lab(1, build) as lab:
        users_hosts(lab)
        containerd = lab.nodes[0].containerd
        lab.registry.start()
        image, other = lab.image([200_000, 300_000]), lab.image([1000])
        lab.registry.push(image)
        lab.registry.push(other)
        containerd.write_config()
        text = containerd.config.read_text().replace("unpacked_layers = false", "unpacked_layers = true")
        containerd.config.write_text(text)
        containerd.config_is_kept = True
        containerd.start()
        assert not keeps(containerd, image, other)
        containerd.stop()

        patched = tomllib.loads("".join(line for line in text.splitlines(keepends=True) if "config_path" not in line))
        for patch in PATCHES:
            patched = merge_patch(patched, tomllib.loads(patch.replace(CERTS_D, str(containerd.certs))))
        containerd.config.write_text(tomlkit.dumps(patched))
        containerd.start()
        containerd.remove_all()
        assert keeps(containerd, image, other)


def keeps(containerd, image, other):
    """Tell whether a containerd has all of an image once what it does not need has been collected."""
    containerd.pull(image.name(NAME))
    containerd.pull(other.name(NAME))
    containerd.ctr("images", "remove", "--sync", other.name(NAME))
    return containerd.verified(image)


def merge_patch(value, patch):
    """Return a JSON merge patch applied (RFC 7396), as kind does it."""
    if not isinstance(patch, dict) or not isinstance(value, dict):
        return patch
    return {**value, **{key: merge_patch(value.get(key), each) for key, each in patch.items()}}
