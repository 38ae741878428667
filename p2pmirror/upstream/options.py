"""What this room is told: which registries there are, where each is asked, and as whom.

Law: a value that exists is usable; who reads settings uses the readers here, whose ValueError says what is allowed.
"""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from p2pmirror.oci import canonical_registry
from p2pmirror.upstream.addresses import is_public
from p2pmirror.upstream.credentials.setting import CredentialsSetting

Mode = Literal["through", "peers"]

URLS: Final = {"docker.io": "https://registry-1.docker.io"}  # where a registry is not found under its own name
BUILT_IN: Final = (
    *("docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "public.ecr.aws", "mcr.microsoft.com"),
)

_URL: Final = "a URL such as https://ghcr.io or http://10.0.0.5:5000, without a path"
_PROXY: Final = "a URL such as http://proxy.example:3128"


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """One registry. `name` is canonical, `url` has neither path nor slash at its end.

    `tag_ttl_s` is how long what a tag named may be told again without asking. `ca_file`: certificates that are trusted
    besides the system's. `proxy` may hold a name and a password, so it is shown nowhere.
    """

    name: str
    url: str
    mode: Mode = "through"
    private_addresses: bool = False
    tag_ttl_s: float = 0.0
    credentials: CredentialsSetting | None = None
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)

    @property
    def is_secure(self) -> bool:
        """Whether it is asked over TLS."""
        return self.url.startswith("https:")


def registry(name: str, url: str = "", **more: object) -> RegistryOptions:
    """Return the options of a registry, whose URL follows from its name unless it is given."""
    plain = canonical_registry(name)
    return RegistryOptions(plain, url or default_url(plain), **more)  # type: ignore[arg-type]  # checked by the caller


def default_url(name: str) -> str:
    """Return where a registry is asked unless its settings say otherwise; `name` is canonical."""
    return URLS.get(name, f"https://{name}")


def read_url(text: str) -> str:
    """Return a registry's URL, as `scheme://host[:port]`. ValueError."""
    parts = _split(text, _URL)
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(_URL)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def read_proxy(text: str) -> str | None:
    """Return a proxy's URL, `http://[NAME:PASSWORD@]HOST[:PORT]`; None for an empty text. ValueError without it."""
    if not text:
        return None
    parts = _split(text, _PROXY)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(_PROXY)
    return f"{parts.scheme}://{parts.netloc}"


def read_mode(text: str) -> Mode:
    """Return how a registry is used. ValueError."""
    for mode in get_args(Mode):
        if text == mode:
            return mode  # type: ignore[no-any-return]  # get_args gives Any
    raise ValueError(" or ".join(get_args(Mode)))


def private_literal(url: str) -> str | None:
    """Return the address that a URL names, when it is one that only `private_addresses` lets be dialled."""
    host = urlsplit(url).hostname or ""
    try:
        numeric = str(ipaddress.ip_address(host))
    except ValueError:
        return None
    return None if is_public(numeric) else numeric


def _split(text: str, allowed: str) -> SplitResult:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(allowed)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(allowed) from None
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or "%" in host:
        raise ValueError(allowed)
    return parts
