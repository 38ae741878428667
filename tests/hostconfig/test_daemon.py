"""containerd's own configuration: one key, in the right table, or a reason why not."""

import tomllib

import pytest

from p2pmirror.hostconfig import marks
from p2pmirror.hostconfig.daemon import CRI_2, CRI_3, Unsettable, at, legacy_mirrors, with_config_path
from p2pmirror.hostconfig.outline import Broken

CERTS = "/etc/containerd/certs.d"

DEFAULT_2 = f"""\
version = 2
root = "/var/lib/containerd"  # elsewhere

[plugins]
  [plugins."{CRI_2}"]
    sandbox_image = "registry.k8s.io/pause:3.6"
    [plugins."{CRI_2}".registry]
      config_path = ""

      [plugins."{CRI_2}".registry.auths]

      [plugins."{CRI_2}".registry.mirrors]
  [plugins."io.containerd.other"]
    a = 1
"""


@pytest.mark.parametrize(
    "text",
    [
        DEFAULT_2,
        "version = 2\n",
        f'version = 2\n[plugins."{CRI_2}".registry]',
        f'version = 2\n[plugins."{CRI_2}".registry.configs."a".auth]\n  username = "u"\n',
        f'version = 2\n\n[plugins."{CRI_2}"]\n  sandbox_image = "x"\n# end',
    ],
)
def test_a_file_of_version_2_is_given_the_key(text):
    """In the table that is there, or in a new one at the end; all else means what it meant, and comes back."""
    said = with_config_path(text, CERTS)
    document, was = tomllib.loads(said), tomllib.loads(text)
    assert at(document, "plugins", CRI_2, "registry", "config_path") == CERTS
    del document["plugins"][CRI_2]["registry"]["config_path"]
    at(was, "plugins", CRI_2, "registry").pop("config_path", None) if at(was, "plugins", CRI_2, "registry") else None
    was.setdefault("plugins", {}).setdefault(CRI_2, {}).setdefault("registry", {})
    assert document == was
    assert marks.without(said) == text


def test_a_file_of_version_3_has_the_key_elsewhere():
    """Containerd 2.x's own form names another plugin."""
    said = tomllib.loads(with_config_path("version = 3\n", CERTS))
    assert said["plugins"] == {CRI_3: {"registry": {"config_path": CERTS}}}


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_an_empty_file_becomes_one_of_version_2(text):
    """Every containerd reads version 2."""
    said = with_config_path(text, CERTS)
    assert tomllib.loads(said) == {"version": 2, "plugins": {CRI_2: {"registry": {"config_path": CERTS}}}}
    assert marks.without(said) == text


@pytest.mark.parametrize("theirs", [CERTS, f"{CERTS}:/etc/docker/certs.d"])
def test_what_is_set_already_is_not_written(theirs):
    """A file that names our directory, among others or not, stays as it is."""
    text = f'version = 3\n[plugins."{CRI_3}".registry]\nconfig_path = "{theirs}"\n'
    assert with_config_path(text, CERTS) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('disabled_plugins = ["cri"]\n', "version 1"),
        ("version = 1\n", "version 1"),
        ('version = "2"\n', "version 1"),
        (f'version = 2\n[plugins."{CRI_2}".registry]\nconfig_path = "/srv/hosts"\n', "--config-path /srv/hosts"),
        (
            f'version = 2\n[plugins."{CRI_2}".registry.mirrors."docker.io"]\nendpoint = ["https://m"]\n',
            "--legacy-mirrors",
        ),
        (f'version = 3\n[plugins."{CRI_3}".registry.configs."a".tls]\ninsecure_skip_verify = true\n', "tls"),
        (f'version = 2\n[plugins."{CRI_2}"]\nregistry = {{ config_path = "" }}\n', "table of their own|no table"),
        (f'version = 2\n[plugins."{CRI_2}"]\nregistry.config_path = ""\n', "no table"),
    ],
)
def test_what_containerd_would_not_start_with_is_refused(text, said):
    """A reason and a way out, and nothing is written."""
    with pytest.raises(Unsettable, match=said):
        with_config_path(text, CERTS)


def test_a_text_that_looks_like_our_marks_is_left_alone():
    """A mark within a text of several lines could not be told from ours when it is taken back."""
    with pytest.raises(Unsettable, match="losing"):
        with_config_path('version = 2\nroot = """\n#p2pmirror# x\n"""\n', CERTS)


def test_a_broken_file_is_refused():
    """What containerd cannot read either."""
    with pytest.raises(Broken):
        with_config_path("version = \n", CERTS)


def test_the_old_form_ends_in_the_registry():
    """Golden: mirrors for a containerd without config_path; for all registries containerd adds the registry itself."""
    said = legacy_mirrors(
        ["docker.io", "_default"], ["http://127.0.0.1:29999"], {"docker.io": "https://registry-1.docker.io"}
    )
    assert said == (
        "# In containerd's config.toml, version 2; in one of version 3 (containerd 2.x) the plugin is called\n"
        '# "io.containerd.cri.v1.images". Not beside a config_path. Restart containerd afterwards.\n'
        "\n"
        '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n'
        '  endpoint = ["http://127.0.0.1:29999", "https://registry-1.docker.io"]\n'
        "\n"
        '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."*"]\n'
        '  endpoint = ["http://127.0.0.1:29999"]\n'
        "  # containerd adds the registry itself at the end\n"
    )
