"""Which URLs are followed on the word of a registry: of redirects, and of token servers.

Laws: pure; a host is a name or a numeric address in its usual spelling, so that what is checked is what is dialled;
what is not plainly one is not followed.
"""

import ipaddress
import re
from collections.abc import Collection
from typing import Final

import httpx

URL_CHARS_MAX: Final = 16_384  # signed addresses of blob stores have 2,000
PORT_MAX: Final = 65_535

_NAME: Final = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})\.)*[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.?")
_NUMBER: Final = re.compile(r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")  # as a last label: an address, however it is spelled


def read_url(text: str, base: httpx.URL | None, schemes: Collection[str]) -> httpx.URL | None:
    """Return the URL that `text` is, seen from `base`, without its fragment; None when it is not one to be followed."""
    if len(text) > URL_CHARS_MAX:
        return None
    try:
        url = (httpx.URL(text) if base is None else base.join(text)).copy_with(fragment=None)
        port = url.port
    except (httpx.InvalidURL, ValueError, TypeError):
        return None
    if url.scheme not in schemes or url.userinfo or not _is_host(url.host):
        return None
    return url if port is None or 0 < port <= PORT_MAX else None


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        name = host.rstrip(".")
        return _NAME.fullmatch(host) is not None and _NUMBER.fullmatch(name.rpartition(".")[2]) is None
    return "%" not in host
