"""Where a node that knows nobody looks for members: a list of hosts, a name, a service, a URL or a file.

Laws:
- a bootstrap is asked again whenever a node is alone, so what it says may change;
- it may name this node too: the ping tells (a ping that our own id answers), nobody guesses own addresses;
- what cannot be used is logged once per change and left out, the rest counts; a bootstrap raises nothing and ends
  within some seconds.

DESIGN.md section 4, "Settings" (`bootstrap`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from p2pmirror.routing.bootstrap.file import FileSetting
from p2pmirror.routing.bootstrap.http import read_url
from p2pmirror.routing.bootstrap.kubernetes import KubernetesSetting, read_service
from p2pmirror.routing.bootstrap.names import NamesSetting
from p2pmirror.routing.bootstrap.places import ROUTER_PORT, read_place, shown
from p2pmirror.routing.bootstrap.protocol import Bootstrap, BootstrapSetting

__all__ = ["KINDS", "ROUTER_PORT", "Bootstrap", "BootstrapSetting", "KubernetesSetting", "parse"]

KINDS = "static:HOST:PORT,..., dns:NAME[:PORT], kubernetes:NAMESPACE/SERVICE, file:PATH or http:URL"


def parse(text: str) -> BootstrapSetting:
    """Read a `bootstrap` setting; ValueError with a clear text for what is none.

    The port is 29998 unless given; IPv6 addresses stand in brackets; host names are resolved when they are needed.
    """
    kind, colon, rest = text.strip().partition(":")
    read = _READERS.get(kind)
    if read is None or not colon:
        raise ValueError(f"bootstrap {shown(repr(text))}: allowed are {KINDS}")
    try:
        return read(text, rest.strip())
    except ValueError as error:
        raise ValueError(f"bootstrap: {error}") from None


def _static(text: str, hosts: str) -> BootstrapSetting:
    places = tuple(read_place(part.strip()) for part in hosts.split(",") if part.strip())
    if not places:
        raise ValueError(f"{shown(repr(text))} names no host: write static:HOST:PORT,...")
    return NamesSetting(text, places)


def _dns(text: str, name: str) -> BootstrapSetting:
    return NamesSetting(text, (read_place(name),))


def _file(text: str, path: str) -> BootstrapSetting:
    if not path or "\0" in path:
        raise ValueError(f"{shown(repr(text))} names no file: write file:PATH")
    return FileSetting(text, Path(path).absolute())


def _http(text: str, url: str) -> BootstrapSetting:
    """Read `http:URL`, where the URL may be the whole text."""
    return read_url(text.strip() if url.startswith("//") else url, text)


def _kubernetes(text: str, name: str) -> BootstrapSetting:
    return read_service(name, text)


_READERS: Final[Mapping[str, Callable[[str, str], BootstrapSetting]]] = {
    "static": _static,
    "dns": _dns,
    "kubernetes": _kubernetes,
    "file": _file,
    "http": _http,
    "https": _http,  # which says that it is not spoken
}
