"""Which addresses may be dialled on the word of a registry, a redirect or a challenge.

Laws: pure; what counts is the numeric address that is dialled, never a name; an address that stands for another one
(IPv4 in IPv6, by whatever translation) is judged as that one.

Follows the IANA special-purpose address registries, RFC 6052 (64:ff9b::/96) and RFC 3056 (2002::/16).
"""

import ipaddress
from typing import Final

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")  # RFC 4291, section 2.5.5.1: withdrawn, and no way to anybody


def is_public(host: str) -> bool:
    """Say whether a numeric host is an address of the internet at large: not private, loopback, link-local or such."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return _is_global(ip)
    if ip.ipv4_mapped is not None:
        return _is_global(ip.ipv4_mapped)
    if ip in _NAT64:
        return _is_global(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip.sixtofour is not None and not _is_global(ip.sixtofour):
        return False
    return _is_global(ip) and ip not in _COMPATIBLE and not ip.is_site_local


def _is_global(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
