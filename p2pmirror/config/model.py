"""The settings once they are understood: plain values, grouped by the room that they are for."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from p2pmirror.errors import MirrorError
from p2pmirror.oci.filters import Filters
from p2pmirror.routing.bootstrap import BootstrapSetting
from p2pmirror.upstream.registries import Registries
from p2pmirror.wire.address import Address

VALUE_CHARACTERS_MAX = 200  # of a wrong value: enough to find it again
KEY_CHARACTERS_MAX = 100  # of a key that is none; ours are shorter
ALLOWED_CHARACTERS_MAX = 900  # the names of all settings; what else is said may quote the value once more


class BadSetting(MirrorError):
    """A setting that cannot be: names the key, the value and what is allowed, in one line."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        """Describe the mistake; what is long is shortened, what cannot be printed is escaped."""
        said = f"{_shown(key, KEY_CHARACTERS_MAX)} = {_shown(_written(value), VALUE_CHARACTERS_MAX)}"
        super().__init__(f"{said}: allowed: {_shown(allowed, ALLOWED_CHARACTERS_MAX)}")
        self.key = key


def _shown(text: str, characters_max: int) -> str:
    plain = text if text.isprintable() else text.encode("unicode_escape").decode()
    return plain if len(plain) <= characters_max else plain[: characters_max - 3] + "..."


def _written(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, tables a thousand deep
        return "something too large to be shown"


@dataclass(frozen=True, slots=True)
class ContainerdStore:
    """Serve a containerd's content."""

    sock: Path
    namespace: str
    content_path: Path | None  # None: ask containerd


@dataclass(frozen=True, slots=True)
class LayoutStore:
    """Serve a directory in OCI image layout."""

    directory: Path


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """Keep what was fetched in a directory."""

    directory: Path
    bytes_max: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class ScratchChoice:
    """Let arrive in a directory what no cache has room for."""

    directory: Path
    bytes_max: int


StoreChoice = ContainerdStore | LayoutStore | None


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that an agent is told at its start."""

    registry_addr: Address
    router_addr: Address
    observability_addr: Address
    advertise_host: str | None
    zone: str
    store: StoreChoice
    data_dir: Path | None
    bootstrap: BootstrapSetting | None
    mirror_resolve_timeout_s: float
    mirror_resolve_retries: int
    resolve_tags: bool
    fallback: bool
    default_registry: str
    registries_only: bool
    registries: Registries
    upload_rate_max: int  # bytes per second, 0 = none
    shutdown_grace_s: float
    log_level: str
    log_format: Literal["json", "text"]
    peer_key_file: Path | None = None  # None: a cluster without a key
    helper_path: str = ""  # where credential helpers are looked for, as PATH
    allowed_clients: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    first_byte_timeout_s: float = 2.0
    tag_ttl_s: float = 0.0
    tag_stale_max_s: float = 168 * 3600.0
    keep_on_upstream_404: bool = False
    share_tags: bool = True
    cache: CacheChoice | None = None
    scratch: ScratchChoice | None = None
    seed: bool = False
    upload_slots: int | None = None  # None: as many as are good
    upload_slots_per_peer: int = 4
    download_rate_max: int = 0  # bytes per second, 0 = none
    filters: Filters = field(default_factory=Filters)
