"""Where a router may be: an address, or a name with a port; as people and other agents write it."""

from typing import NamedTuple, TypeAlias

from p2pmirror.wire.address import Address, split_host_port

ROUTER_PORT = 29998  # DESIGN.md, "Ports and endpoints"
HOST_CHARS_MAX = 253  # of a name, RFC 1035 section 2.3.4 in text; addresses are shorter
SHOWN_CHARS_MAX = 100  # of foreign text in a log or an error: enough to find it again


class Name(NamedTuple):
    """A host name that is yet to be looked up, with a port."""

    host: str
    port: int


Place: TypeAlias = Address | Name


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
    place = place_of(host, port)
    if isinstance(place, Address) and place.is_unspecified:
        raise ValueError(f"{shown(repr(text))} can be listened on and not be sent to")
    return place


def place_of(host: str, port: int) -> Place:
    """Return the address when the host is numeric, else the name."""
    try:
        return Address.of(host, port)
    except ValueError:
        return Name(host, port)


def is_host(text: str) -> bool:
    """Whether it may be a host: a name that somebody may know, or a numeric one."""
    return 0 < len(text) <= HOST_CHARS_MAX and text.isprintable() and not any(each in " /@?#\\\ufffd" for each in text)


def shown(text: str, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """Return foreign text for one line of a log, shortened."""
    plain = "".join(each if each.isprintable() else "?" for each in text[:chars_max])
    return plain if len(text) <= chars_max else f"{plain}…"
