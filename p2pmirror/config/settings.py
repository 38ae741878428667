"""Every setting there is: its key, its default, how it is read, and what it is for.

One row is a flag (`--registry-addr`), an environment variable (`P2PMIRROR_REGISTRY_ADDR`) and a key in the file
(`registry_addr`). A reader takes text and raises ValueError with what is allowed; lists are comma-separated in flags
and in the environment, and arrays in the file.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmirror.config.model import CacheChoice, ContainerdStore, LayoutStore, ScratchChoice
from p2pmirror.config.quantities import parse_duration, parse_size, parse_switch
from p2pmirror.config.registries import read_name, read_registries
from p2pmirror.front.slots import PER_PEER, SLOTS_MAX, SLOTS_MIN
from p2pmirror.oci.filters import Filters
from p2pmirror.routing import bootstrap
from p2pmirror.routing.dht.messages import ZONE_CHARS_MAX
from p2pmirror.upstream.registries import Registries
from p2pmirror.wire.address import Address, split_host_port

REGISTRY_PORT = 29999
ROUTER_PORT = 29998
OBSERVABILITY_PORT = 9090
MAPPED_PREFIX_BITS = 96  # ::ffff:0:0/96 holds every IPv4 address (RFC 4291, section 2.5.5.2)
SCRATCH = Path("/var/tmp")  # noqa: S108  # a disk, where /tmp may be memory; files there have no names
UPLOADS_MAX = 10_000  # at once: more than a process may have open
RETRIES_MAX = 50  # more providers than a holder ever names


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `read` turns text into its value; `many` takes a list of texts instead."""

    key: str
    default: str
    read: Callable[[Any], object]
    help: str
    many: bool = False

    @property
    def flag(self) -> str:
        """Return its flag."""
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """Return its environment variable."""
        return "P2PMIRROR_" + self.key.upper()


def _listen_address(text: str) -> Address:
    """Read `[HOST]:PORT`; without a host it is every address of both families."""
    host, port = split_host_port(text)
    return _without_scope(Address.of(host or "::", port))


def _advertise_host(text: str) -> str | None:
    if not text:
        return None
    address = _without_scope(Address.of(text.strip("[]"), 0))
    if address.is_unspecified:
        raise ValueError("an address that peers can dial")
    return address.host


def _without_scope(address: Address) -> Address:
    """Refuse `fe80::1%eth0`: the scope means something on this host alone, and peers are told the address."""
    if "%" in address.host:
        raise ValueError("an address without a scope, which peers can dial")
    return address


def _zone(text: str) -> str:
    if len(text) > ZONE_CHARS_MAX or not text.isprintable():
        raise ValueError(f"at most {ZONE_CHARS_MAX} printable characters")
    return text


def _store(text: str) -> str | LayoutStore | None:
    """Read the kind of store; the containerd settings are added when all are known."""
    kind, _, directory = text.partition(":")
    if kind == "containerd" and not directory:
        return "containerd"
    if kind == "oci-layout" and directory:
        return LayoutStore(_path(directory))
    if text == "none":
        return None
    raise ValueError("containerd, oci-layout:DIR or none")


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("a path")
    return Path(text).absolute()


def _path_or_none(text: str) -> Path | None:
    return _path(text) if text else None


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", text):
        raise ValueError("a containerd namespace such as k8s.io")
    return text


def _bootstrap(text: str) -> bootstrap.BootstrapSetting | None:
    try:
        return bootstrap.parse(text) if text else None
    except ValueError as error:
        raise ValueError(f"{bootstrap.KINDS} ({error})") from None


def _networks(texts: list[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(_network(text) for text in texts)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Read `10.0.0.0/8`, `fd00::/8` or one address; IPv4 mapped into IPv6 is IPv4, as it is with clients."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"networks such as 10.0.0.0/8 or fd00::/8 ({error})") from None
    if "%" in text:
        raise ValueError("networks such as fe80::/10, without a scope such as %eth0: whatever the interface")
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < MAPPED_PREFIX_BITS:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - MAPPED_PREFIX_BITS))


def _retries(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= RETRIES_MAX):
        raise ValueError(f"a number from 1 to {RETRIES_MAX}")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= UPLOADS_MAX):
        raise ValueError(f"a number from 1 to {UPLOADS_MAX}")
    return int(text)


def _slots(text: str) -> int | None:
    return _count(text) if text else None


def _registries(entries: list[object]) -> Registries:
    return read_registries(entries, _path_or_none)


def _level(text: str) -> str:
    if text.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("DEBUG, INFO, WARNING or ERROR")
    return text.upper()


def _format(text: str) -> str:
    if text not in {"json", "text"}:
        raise ValueError("json or text")
    return text


SETTINGS = (
    Setting("registry_addr", f":{REGISTRY_PORT}", _listen_address, "where containerd and peers are answered, TCP"),
    Setting("router_addr", f":{ROUTER_PORT}", _listen_address, "where other agents' datagrams are answered, UDP"),
    Setting(
        "observability_addr", f":{OBSERVABILITY_PORT}", _listen_address, "metrics, health and the status page, TCP"
    ),
    Setting(
        "advertise_addr",
        "",
        _advertise_host,
        "the address that peers are told to dial; default: the one listened on, else that of the route to a peer",
    ),
    Setting("zone", "", _zone, "this node's zone: peers of the same zone are preferred"),
    Setting("store", "containerd", _store, "what this node serves: containerd, oci-layout:DIR or none"),
    Setting("containerd_sock", "/run/containerd/containerd.sock", _path, "containerd's socket"),
    Setting("containerd_namespace", "k8s.io", _namespace, "the containerd namespace whose images are served"),
    Setting(
        "containerd_content_path",
        "",
        _path_or_none,
        "where containerd's content is mounted; default: asked of containerd, and read through it when not mounted",
    ),
    Setting(
        "cache_dir", "", _path_or_none, "where what was fetched is kept; may be wiped at any time; default: no cache"
    ),
    Setting("cache_max_bytes", "20Gi", parse_size, "how much content the cache may have; 0 = no cache"),
    Setting(
        "cache_ttl",
        "168h",
        parse_duration,
        "how long content is kept unused while its registry can be reached; 0 = until its room is needed",
    ),
    Setting(
        "scratch_dir",
        "",
        _path_or_none,
        f"where blobs arrive that no cache has room for, unkept; default: scratch in data_dir, else {SCRATCH}",
    ),
    Setting("scratch_max_bytes", "10Gi", parse_size, "how much of them at once; 0 = they are passed on unshared"),
    Setting("data_dir", "", _path_or_none, "where the node's id is kept; default: a new id at each start"),
    Setting(
        "bootstrap",
        "",
        _bootstrap,
        f"how to find the first peers: {bootstrap.KINDS}; default: a cluster of one",
    ),
    Setting(
        "peer_key_file",
        "",
        _path_or_none,
        "a file with the cluster's key (made by: openssl rand -hex 32), or two lines while the key is being changed: "
        "the first signs, both are accepted; read again when it changes; default: none, everybody is served",
    ),
    Setting(
        "allowed_clients",
        "",
        _networks,
        "with a key: networks such as 10.0.0.0/8 whose clients are served, besides this node and its peers",
        many=True,
    ),
    Setting(
        "seed",
        "false",
        parse_switch,
        "fetch from registries what other nodes want, in their place: for a node that serves as the cluster's cache",
    ),
    Setting("mirror_resolve_timeout", "30ms", parse_duration, "how long to look for a first peer before saying 404"),
    Setting("first_byte_timeout", "2s", parse_duration, "how long a registry may take to answer before we say 404"),
    Setting("tag_ttl", "0s", parse_duration, "how long a registry's word about a tag counts before it is asked again"),
    Setting("tag_stale_max", "168h", parse_duration, "how old that word may be when the registry does not answer"),
    Setting("keep_on_upstream_404", "false", parse_switch, "keep a tag when its registry says that it is gone"),
    Setting(
        "share_tags",
        "true",
        parse_switch,
        "of nodes that ask a registry for a tag at the same moment one asks, and the others believe it",
    ),
    Setting("mirror_resolve_retries", "5", _retries, "how many peers to ask for one thing"),
    Setting("resolve_tags", "true", parse_switch, "answer tags too, not only digests"),
    Setting(
        "filters",
        "",
        Filters,
        "regular expressions over registry/repository[:tag]; ! in front excludes; the last match decides",
        many=True,
    ),
    Setting("fallback", "true", parse_switch, "containerd has another host to go to: say 404 when in trouble"),
    Setting("default_registry", "docker.io", read_name, "the registry of requests that name none"),
    Setting("registries_only", "false", parse_switch, "answer only for the configured registries"),
    Setting(
        "registries",
        "",
        _registries,
        "the configured registries: names such as ghcr.io, which are fetched from; tables with more in the file",
        many=True,
    ),
    Setting(
        "upload_slots",
        "",
        _slots,
        f"how many pieces go out to peers at once; default: {SLOTS_MIN} to {SLOTS_MAX}, as the network has room",
    ),
    Setting("upload_slots_per_peer", str(PER_PEER), _count, "how many of them one peer may have"),
    Setting("upload_rate_max", "0", parse_size, "bytes per second that this node sends to peers; 0 = no limit"),
    Setting(
        "download_rate_max",
        "0",
        parse_size,
        "bytes per second that this node takes from peers and registries together; 0 = no limit",
    ),
    Setting("shutdown_grace", "20s", parse_duration, "how long running responses may take at a stop"),
    Setting("log_level", "INFO", _level, "DEBUG, INFO, WARNING or ERROR"),
    Setting("log_format", "json", _format, "json or text"),
)


def containerd_store(values: dict[str, Any]) -> ContainerdStore:
    """Return the containerd settings as one."""
    return ContainerdStore(values["containerd_sock"], values["containerd_namespace"], values["containerd_content_path"])


def cache_choice(values: dict[str, Any]) -> CacheChoice | None:
    """Return the cache settings as one; None where they say that there is none."""
    if values["cache_dir"] is None or not values["cache_max_bytes"]:
        return None
    return CacheChoice(values["cache_dir"], values["cache_max_bytes"], values["cache_ttl"])


def scratch_choice(values: dict[str, Any]) -> ScratchChoice | None:
    """Return the scratch settings as one; None where they say that there is none."""
    if not values["scratch_max_bytes"]:
        return None
    own = values["data_dir"] / "scratch" if values["data_dir"] is not None else SCRATCH
    return ScratchChoice(values["scratch_dir"] or own, values["scratch_max_bytes"])
