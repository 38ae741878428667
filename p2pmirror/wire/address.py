"""Addresses that can be dialled: numeric hosts with a port.

Names are resolved once, at the border (`Network.resolve`); everything behind it compares, stores and sends numeric
addresses, so that one host has one spelling.
"""

import ipaddress
from typing import NamedTuple, Self

PORT_MAX = 65535
PORT_DIGITS_MAX = 16  # leading zeros included; int() of thousands of digits is an error of its own
QUOTED_CHARACTERS_MAX = 80  # of foreign text in an error: the longest numeric address with its port has 54


class Address(NamedTuple):
    """A numeric IPv4 or IPv6 `host` and a TCP or UDP `port` (0 to 65535).

    Written `10.0.0.1:29998` and `[fd00::1]:29998`. An IPv4 host mapped into IPv6 is the IPv4 host. A tuple, since each
    datagram is looked up by it some ten times: a tuple is hashed and compared four to ten times as fast as a dataclass.
    """

    host: str
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> Self:
        """Return the address with its host in the one spelling that it has; ValueError unless it is numeric."""
        plain, _, scope = host.partition("%")
        ip = ipaddress.ip_address(plain)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if not 0 <= port <= PORT_MAX:
            raise ValueError(f"port {port} is not in 0 to {PORT_MAX}")
        return cls(f"{ip}%{scope}" if scope else str(ip), port)

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> Self:
        """Read `HOST:PORT`, `[V6]:PORT`, or with `default_port` the host alone; ValueError with a clear text."""
        host, port = split_host_port(text, default_port=default_port)
        try:
            return cls.of(host, port)
        except ValueError as error:
            raise ValueError(f"{_quoted(text)} is not a numeric address with a port") from error

    @property
    def is_unspecified(self) -> bool:
        """Whether the host is 0.0.0.0 or ::, which can be listened on and not dialled."""
        return ipaddress.ip_address(self.host.partition("%")[0]).is_unspecified

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


def split_host_port(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """Split `host:port` (host a name or numeric, IPv6 in brackets); an empty host stays empty (`:29999`).

    Raises ValueError when the port is missing and there is no default, or is not a number from 0 to 65535.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{_quoted(text)}: an IPv6 address stands in brackets, as in [fd00::1]:29998")
        port = rest[1:]
    elif text.count(":") > 1:
        raise ValueError(f"{_quoted(text)}: an IPv6 address stands in brackets, as in [fd00::1]:29998")
    else:
        host, _, port = text.partition(":")
    if not port:
        if default_port is None:
            raise ValueError(f"{_quoted(text)} has no port")
        return host, default_port
    if not (port.isascii() and port.isdigit() and len(port) <= PORT_DIGITS_MAX and int(port) <= PORT_MAX):
        raise ValueError(f"{_quoted(text)}: the port is a number from 0 to {PORT_MAX}")
    return host, int(port)


def _quoted(text: str) -> str:
    return ascii(text) if len(text) <= QUOTED_CHARACTERS_MAX else f"{text[:QUOTED_CHARACTERS_MAX]!a}…"
