"""Real containerds read what the commands write, pull through the agent by it, and without it when it is taken back."""

import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
import tomlkit

from p2pmirror.hostconfig.kind import CERTS_D, PATCHES
from tests.hostconfig.trees import snapshot, write_tree
from tests.lab.containerd import Containerd, PullFailed
from tests.lab.lab import Lab
from tests.lab.plugin import find_build
from tests.lab.process import wait_until
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
    """Run one of our commands as an administrator does; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "p2pmirror", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
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

    Then one pulls from the other while the registry is stopped; a registry on the host itself, which has no directory
    and speaks no TLS, is still fallen back to. Taken back, not a byte is left, and the next pull works without agents.
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
        local = lab.image([100_000])
        own = Registry(second.host)
        own.start()
        own.push(local)
        second.containerd.pull(local.name("localhost:5000"))
        assert second.containerd.verified(local)

        for node in lab.nodes:
            command("unconfigure", "--config-path", node.containerd.certs)
            node.agent.kill()
            node.containerd.restart()
        assert [snapshot(node.containerd.certs) for node in lab.nodes] == before
        assert second.containerd.config.read_bytes() == config
        lab.registry.start()
        other = lab.image([100_000])
        lab.registry.push(other)
        first.containerd.pull(other.name(NAME))
        second.containerd.pull(other.name(NAME), "ctr")  # CRI has no config_path any more, as before
        assert first.containerd.verified(other)
        assert second.containerd.verified(other)


def knows(node, keys, address):
    """Tell whether a node knows that another one has all of these."""
    return all(address in node.agent.find(key) for key in keys)


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
        image = lab.image([200_000, 300_000])
        lab.registry.push(image)
        containerd.write_config()
        text = containerd.config.read_text().replace("unpacked_layers = false", "unpacked_layers = true")
        containerd.config.write_text(text)
        containerd.config_is_kept = True
        containerd.start()
        containerd.pull(image.name(NAME))
        assert not containerd.verified(image)
        containerd.stop()

        patched = tomllib.loads("".join(line for line in text.splitlines(keepends=True) if "config_path" not in line))
        for patch in PATCHES:
            patched = merge_patch(patched, tomllib.loads(patch.replace(CERTS_D, str(containerd.certs))))
        containerd.config.write_text(tomlkit.dumps(patched))
        containerd.start()
        containerd.remove_all()
        containerd.pull(image.name(NAME))
        assert containerd.verified(image)


def merge_patch(value, patch):
    """Return a JSON merge patch applied (RFC 7396), as kind does it."""
    if not isinstance(patch, dict) or not isinstance(value, dict):
        return patch
    return {**value, **{key: merge_patch(value.get(key), each) for key, each in patch.items()}}
