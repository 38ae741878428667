"""Promises of the table of registries: what is built in, what a table may say, and what a wrong one is told."""

from pathlib import Path

import pytest

from p2pmirror.config import BadSetting, Config, load
from p2pmirror.upstream.credentials.setting import CredentialsSetting
from p2pmirror.upstream.options import RegistryOptions


def loaded(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    return load({}, {}, file)


def test_known_registries_are_fetched_from_without_any_setting() -> None:
    """The great public registries are fetched from under their names, docker.io under each of its three."""
    registries = load({}, {}).registries
    assert registries.through == {
        *("docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "public.ecr.aws", "mcr.microsoft.com"),
    }
    for name in ("docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"):
        assert registries.get(name) == RegistryOptions("docker.io", "https://registry-1.docker.io")
    assert registries.get("ghcr.io") == RegistryOptions("ghcr.io", "https://ghcr.io")
    assert registries.configured == frozenset()


@pytest.mark.parametrize(
    "name", ["registry.example", "127.0.0.1:5000", "169.254.169.254", "[::1]:80", "localhost", "ghcr.io:443"]
)
def test_a_name_that_stands_nowhere_is_not_fetched_from(name: str) -> None:
    """A request's `ns` is looked up and never dialled, whatever address it spells."""
    assert load({}, {}).registries.get(name) is None


def test_a_table_says_all_of_a_registry(tmp_path: Path) -> None:
    """Every key counts, and a table takes the place of the built-in registry of its name."""
    config = loaded(
        tmp_path,
        """
        [[registries]]
        name = "registry.lab:5000"
        url = "http://10.0.0.5:5000/"
        private_addresses = true
        tag_ttl = "5m"
        credentials = "docker-config:/etc/p2pmirror/config.json"
        ca_file = "/etc/ssl/lab.pem"
        proxy = "http://me:secret@proxy.lab:3128"
        [[registries]]
        name = "index.docker.io"
        mode = "peers"
        """,
    )
    assert config.registries.get("registry.lab:5000") == RegistryOptions(
        "registry.lab:5000",
        "http://10.0.0.5:5000",
        "through",
        True,
        300.0,
        CredentialsSetting("docker-config", Path("/etc/p2pmirror/config.json")),
        Path("/etc/ssl/lab.pem"),
        "http://me:secret@proxy.lab:3128",
    )
    assert "secret" not in repr(config)
    assert str(CredentialsSetting("file", Path("/login"))) == "file:/login"
    assert "docker.io" not in config.registries.through
    assert config.registries.configured == {"registry.lab:5000", "docker.io"}


def test_a_name_alone_is_a_registry_to_be_fetched_from() -> None:
    """In flags and in the environment a registry is its name, at https:// and that name."""
    config = load({"P2PMIRROR_REGISTRIES": "registry.example, Quay.IO"}, {})
    assert config.registries.get("registry.example") == RegistryOptions("registry.example", "https://registry.example")
    assert config.registries.configured == {"registry.example", "quay.io"}


def test_an_empty_text_is_none(tmp_path: Path) -> None:
    """A template may leave credentials, proxy and ca_file empty."""
    text = '[[registries]]\nname = "x.example"\ncredentials = ""\nproxy = ""\nca_file = ""\n'
    found = loaded(tmp_path, text).registries.get("x.example")
    assert found == RegistryOptions("x.example", "https://x.example")
    assert found.is_secure


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('url = "ghcr.io"', "as url a URL such as https://ghcr.io"),
        ('url = "ftp://x"', "not 'ftp://x'"),
        ('url = "https://x/path"', "without a path"),
        ('url = "https://user:hunter2@x"', "without a path"),
        ('url = "https://x:99999"', "as url a URL"),
        ('url = "https://x y"', "as url a URL"),
        ('url = "https://[::1"', "as url a URL"),
        ('url = "http://169.254.169.254"', "private_addresses = true, not 169.254.169.254"),
        ('url = "http://[::ffff:10.0.0.1]:5000"', "private_addresses = true"),
        ("private_addresses = 1", "as private_addresses a text, or true or false"),
        ('private_addresses = "yes"', "as private_addresses true or false"),
        ('tag_ttl = "5"', "as tag_ttl a duration such as"),
        ("tag_ttl = 5", "as tag_ttl"),
        ('mode = "mirror"', "as mode through or peers"),
        ('credentials = "user:hunter2"', "as credentials docker-config:PATH, kubernetes-secret:PATH or file:PATH"),
        ('credentials = "file:relative"', "with an absolute path"),
        ('ca_file = "\\u0000"', "as ca_file a path"),
        ('proxy = "http://proxy.lab/path"', "as proxy a URL such as"),
        ('proxy = "socks5://me:hunter2@x"', "as proxy a URL such as http://proxy.example:3128"),
        ('colour = "blue"', "not 'colour'"),
        ('[[registries]]\nname = "X.example"', "x.example only once"),
        ('[[registries]]\nname = "a b"', "a registry's name such as docker.io"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, lines: str, says: str) -> None:
    """The line names the registry, the key and what is allowed, and gives no password away."""
    with pytest.raises(BadSetting) as caught:
        loaded(tmp_path, f'[[registries]]\nname = "x.example"\n{lines}\n')
    message = str(caught.value)
    assert message.startswith("registries = [{'name': 'x.example'")
    assert ": allowed: " in message
    assert says in message
    assert "\n" not in message
    assert "hunter2" not in message
