"""What a user is told beyond what was written."""

import pytest

from p2pmirror.hostconfig.containerd import Setup
from p2pmirror.hostconfig.hosts import Wanted
from p2pmirror.hostconfig.notes import notes_on
from tests.hostconfig.trees import write_tree

WANTED = Wanted(("http://127.0.0.1:29999",))


def notes(place, *registries, daemon=None, restart=False, default="certs.d"):
    setup = Setup((place / "certs.d",), registries or ("_default",), WANTED, daemon)
    paths = {"config": place / "config.toml", "docker_root": place / "docker"}
    return notes_on(setup, default_root=place / default, restart=restart, **paths)


def test_a_restart_is_asked_for(tmp_path):
    """Once config_path was set."""
    (note,) = notes(tmp_path, restart=True)
    assert "systemctl restart containerd" in note


def test_what_a_new_default_hides_is_named(tmp_path):
    """Docker's directory has certificates that containerd 2.2 would find behind ours: said, with the way out."""
    write_tree(tmp_path, {"docker/registry.corp/ca.crt": "x", "docker/both.corp/ca.crt": "x", "docker/README": "x"})
    write_tree(tmp_path, {"certs.d/both.corp/ca.crt": "x"})
    (note,) = notes(tmp_path)
    assert "has registry.corp, which" in note
    assert f"--config-path {tmp_path}/certs.d:{tmp_path}/docker" in note
    assert notes(tmp_path, "docker.io") == []
    assert notes(tmp_path, default="elsewhere") == []
    write_tree(tmp_path, {"certs.d/registry.corp/ca.crt": "x"})
    assert notes(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 2\n", "is not set"),
        ('disabled_plugins = ["cri"]\n', "is not set"),
        ('version = 3\n[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = "/srv"\n', "is /srv"),
        ("version = \n", None),
    ],
)
def test_a_containerd_that_does_not_look_there_is_told(tmp_path, text, said):
    """Where config_path is not ours, what to add to the call; not where it is being set, or nobody can read it."""
    (tmp_path / "config.toml").write_text(text)
    found = notes(tmp_path)
    assert [said in each and "--daemon-config" in each for each in found] == [True] * (said is not None)
    assert notes(tmp_path, daemon=tmp_path / "config.toml") == []


def test_a_containerd_that_looks_there_is_not(tmp_path):
    """One of several directories is enough."""
    root = f"{tmp_path}/certs.d:/etc/docker/certs.d"
    text = f'version = 3\n[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = "{root}"\n'
    (tmp_path / "config.toml").write_text(text)
    assert notes(tmp_path) == []
