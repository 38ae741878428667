"""Where a router may be: a host, numeric or a name, and a port; as people and other agents write it."""

from typing import NamedTuple

from p2pmirror.wire.address import Address, split_host_port

ROUTER_PORT = 29998  # DESIGN.md, "Ports and endpoints"
HOST_CHARS_MAX = 253  # of a name, RFC 1035 section 2.3.4 in text; addresses are shorter
SHOWN_CHARS_MAX = 100  # of foreign text in a log or an error: enough to find it again


class Place(NamedTuple):
    """A host, numeric or a name, with a UDP port."""

    host: str
    port: int

    @property
    def address(self) -> Address | None:
        """Return it as an address when its host is numeric."""
        try:
            return Address.of(self.host, self.port)
        except ValueError:
            return None


def read_place(text: str) -> Place:
    """Read `HOST[:PORT]`, IPv6 in brackets; the port is 29998 unless given. Raises ValueError with a clear text."""
    try:
        host, port = split_host_port(text, default_port=ROUTER_PORT)
    except ValueError as error:
        raise ValueError(shown(str(error))) from None
    if not is_host(host):
        raise ValueError(f"{shown(repr(text))} is no host with a port")
    if port == 0:
        raise ValueError(f"{shown(repr(text))}: port 0 cannot be sent to")
    place = Place(host, port)
    address = place.address
    if address is not None and address.is_unspecified:
        raise ValueError(f"{shown(repr(text))} can be listened on and not be sent to")
    return place


def is_host(text: str) -> bool:
    """Whether it may be a host: a name that somebody may know, or a numeric one."""
    return 0 < len(text) <= HOST_CHARS_MAX and text.isprintable() and not any(each in " /@?#\\" for each in text)


def shown(text: str, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """Return foreign text for one line of a log, shortened."""
    plain = "".join(each if each.isprintable() else "?" for each in text[:chars_max])
    return plain if len(text) <= chars_max else f"{plain}…"
