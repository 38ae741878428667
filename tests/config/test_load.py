"""Promises of the settings: where they come from, which one wins, and what a wrong one says."""

from pathlib import Path

import pytest

from p2pmirror.config import SETTINGS, BadSetting, load
from p2pmirror.config.model import CacheChoice, ContainerdStore, LayoutStore
from p2pmirror.kubernetes import NoAccess
from p2pmirror.routing.bootstrap import KubernetesSetting
from p2pmirror.wire.address import Address


def test_the_defaults_are_a_node_beside_a_containerd() -> None:
    """Without any setting an agent serves containerd on the ports that everybody knows."""
    config = load({}, {})
    assert config.registry_addr == Address("::", 29999)
    assert config.router_addr == Address("::", 29998)
    assert config.observability_addr == Address("::", 9090)
    assert config.store == ContainerdStore(Path("/run/containerd/containerd.sock"), "k8s.io", None)
    assert (config.mirror_resolve_timeout_s, config.mirror_resolve_retries) == (0.03, 5)
    assert config.filters.empty
    assert config.bootstrap is None


def test_flags_win_over_the_environment_over_the_file(tmp_path: Path) -> None:
    """Each source overrides the ones below it, key by key."""
    file = tmp_path / "settings.toml"
    file.write_text('zone = "file"\nlog_level = "debug"\nshutdown_grace = "1s"\n')
    config = load(
        {"P2PMIRROR_CONFIG": str(file), "P2PMIRROR_ZONE": "env", "P2PMIRROR_LOG_LEVEL": "error"}, {"zone": "flag"}
    )
    assert (config.zone, config.log_level, config.shutdown_grace_s) == ("flag", "ERROR", 1.0)


def test_lists_are_arrays_in_the_file_and_commas_elsewhere(tmp_path: Path) -> None:
    """Filters and registries mean the same wherever they stand."""
    file = tmp_path / "settings.toml"
    file.write_text(
        'filters = ["docker.io/.*", "!docker.io/secret/.*"]\n[[registries]]\nname = "ghcr.io"\nmode = "peers"\n'
    )
    from_file = load({}, {}, file)
    from_flags = load({}, {"filters": "docker.io/.*, !docker.io/secret/.*", "registries": "ghcr.io"})
    for config in (from_file, from_flags):
        assert config.filters.allows("docker.io/library/nginx:1")
        assert not config.filters.allows("docker.io/secret/x")
        assert not config.filters.allows("ghcr.io/a/b")
        assert config.registries.configured == {"ghcr.io"}


def test_native_values_of_toml_are_read_like_texts(tmp_path: Path) -> None:
    """A switch and a number need no quotation marks in the file."""
    file = tmp_path / "settings.toml"
    file.write_text(
        f'resolve_tags = false\nmirror_resolve_retries = 3\nupload_rate_max = 1000\nstore = "oci-layout:{tmp_path}"\n'
    )
    config = load({}, {}, file)
    assert (config.resolve_tags, config.mirror_resolve_retries, config.upload_rate_max) == (False, 3, 1000)
    assert config.store == LayoutStore(tmp_path)


def test_the_api_of_kubernetes_comes_from_the_pod_s_environment() -> None:
    """The API is where the kubelet says; where it says nothing the agent starts all the same, and complains later."""
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    setting = load(environ, {"bootstrap": "kubernetes:kube-system/p2pmirror"}).bootstrap
    assert isinstance(setting, KubernetesSetting)
    assert (str(setting.service), setting.access.place()) == ("kube-system/p2pmirror", ("fd00::1", 6443))
    assert str(setting) == "kubernetes:kube-system/p2pmirror"
    setting = load({}, {"bootstrap": "kubernetes:kube-system/p2pmirror"}).bootstrap
    assert isinstance(setting, KubernetesSetting)
    with pytest.raises(NoAccess):
        setting.access.place()


def test_a_key_and_who_is_served_besides(tmp_path: Path) -> None:
    """Networks of both families, single addresses, and IPv4 mapped into IPv6, which is IPv4 as clients are."""
    clients = "10.0.0.0/8, 192.0.2.7,fd00::/8,::ffff:198.51.100.0/120,::/0"
    config = load({}, {"peer_key_file": str(tmp_path / "key"), "allowed_clients": clients})
    assert config.peer_key_file == tmp_path / "key"
    assert [str(each) for each in config.allowed_clients] == [
        "10.0.0.0/8",
        "192.0.2.7/32",
        "fd00::/8",
        "198.51.100.0/24",
        "::/0",
    ]
    assert load({}, {}).peer_key_file is None


def test_a_cache_has_a_directory_and_a_size(tmp_path: Path) -> None:
    """Without a directory, or with a size of 0, there is no cache; else 20 GiB and a week unless others are given."""
    assert load({}, {}).cache is None
    assert load({}, {"cache_max_bytes": "1Gi"}).cache is None
    assert load({}, {"cache_dir": str(tmp_path), "cache_max_bytes": "0"}).cache is None
    assert load({}, {"cache_dir": str(tmp_path)}).cache == CacheChoice(tmp_path, 20 * 2**30, 7 * 86400.0)
    given = {"cache_dir": "c", "cache_max_bytes": "100Mi", "cache_ttl": "30m"}
    assert load({}, given).cache == CacheChoice(Path("c").absolute(), 100 * 2**20, 1800.0)


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("registry_addr", "29999", "port"),
        ("registry_addr", "host.example:29999", "IPv"),
        ("registry_addr", "127.0.0.1:70000", "65535"),
        ("advertise_addr", "::", "dial"),
        ("advertise_addr", "node7", "IPv"),
        ("zone", "a\nb", "printable"),
        ("store", "docker", "containerd, oci-layout:DIR or none"),
        ("store", "oci-layout:", "oci-layout:DIR"),
        ("containerd_namespace", "../x", "namespace"),
        ("containerd_sock", "", "path"),
        ("bootstrap", "zookeeper:x", "static:HOST:PORT"),
        ("bootstrap", "static:", "static:HOST:PORT"),
        ("bootstrap", "kubernetes:x", "NAMESPACE/SERVICE"),
        ("mirror_resolve_timeout", "30", "30ms"),
        ("mirror_resolve_retries", "0", "1 to 50"),
        ("resolve_tags", "yes", "true or false"),
        ("filters", "docker.io/(", "regular expression"),
        ("filters", "!", "pattern"),
        ("default_registry", "not a host", "docker.io"),
        ("registries", "ghcr.io,bad/name", "ghcr.io"),
        ("upload_rate_max", "fast", "512Mi"),
        ("peer_key_file", "a\0b", "path"),
        ("allowed_clients", "10.0.0.0/8", "nothing without peer_key_file"),
        ("allowed_clients", "node7", "10.0.0.0/8"),
        ("allowed_clients", "10.0.0.7/8", "host bits"),
        ("allowed_clients", "fe80::%eth0/10", "scope"),
        ("allowed_clients", "10.0.0.0/33", "10.0.0.0/8"),
        ("cache_dir", "a\0b", "path"),
        ("cache_max_bytes", "lots", "512Mi"),
        ("cache_ttl", "7", "168h"),
        ("log_level", "LOUD", "DEBUG"),
        ("log_format", "xml", "json or text"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_value_and_what_is_allowed(key: str, text: str, allowed: str) -> None:
    """Whoever made the mistake reads where it is and how to mend it."""
    with pytest.raises(BadSetting) as caught:
        load({}, {key: text})
    message = str(caught.value)
    assert message.startswith(f"{key} = {text!r}")
    assert allowed in message
    assert "\n" not in message


def test_a_long_wrong_value_is_shortened() -> None:
    """A whole file given by mistake does not become the log."""
    with pytest.raises(BadSetting) as caught:
        load({}, {"store": "x" * 10_000})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no_such_key = 1\n", "no_such_key = 1"),
        ("zone = [1]\n", "zone = [1]"),
        ("filters = 3\n", "filters = 3"),
        ("filters = [[1]]\n", "filters"),
        ("zone =\n", "TOML"),
        ("[[registries]]\nmode = 'peers'\n", "name"),
        ("[[registries]]\nname = 'ghcr.io'\nmode = 'pull'\n", "as mode through or peers, not 'pull'"),
        ("[[registries]]\nname = 'ghcr.io'\ncolour = 'blue'\n", "colour"),
        ("x = " + "[" * 5000, "TOML"),
    ],
)
def test_a_wrong_file_is_one_line_too(tmp_path: Path, text: str, says: str) -> None:
    """Unknown keys, wrong types and broken TOML are named."""
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(BadSetting, match=r"allowed: ") as caught:
        load({}, {}, file)
    assert says in str(caught.value)


@pytest.mark.parametrize("what", ["absent", "directory", "binary", "huge"])
def test_a_file_that_is_none_is_named(tmp_path: Path, what: str) -> None:
    """A settings file that cannot be read is an error with its path."""
    file = tmp_path / "settings.toml"
    match what:
        case "directory":
            file.mkdir()
        case "binary":
            file.write_bytes(b"\xff\xfe\x00")
        case "huge":
            file.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(BadSetting, match=r"settings\.toml"):
        load({}, {}, file)


def test_a_misspelled_variable_is_refused() -> None:
    """A variable of ours that nobody reads would be a setting that silently does nothing."""
    with pytest.raises(BadSetting, match="P2PMIRROR_ZONES"):
        load({"P2PMIRROR_ZONES": "a"}, {})


def test_every_setting_has_a_help_and_a_default_that_reads() -> None:
    """The table is complete."""
    for setting in SETTINGS:
        assert setting.help
        load({setting.variable: setting.default}, {})
