"""Where a node that knows nobody looks for members: `static:HOST:PORT,…` and `dns:NAME[:PORT]`.

Laws:
- a bootstrap is asked again whenever a node is alone, so what it says may change;
- it may name this node too: the ping tells (a ping that our own id answers), nobody guesses own addresses;
- what does not resolve is logged once per change and left out.

DESIGN.md section 4, "Settings" (`bootstrap`).
"""

from p2pmirror.routing.bootstrap.names import Names
from p2pmirror.routing.bootstrap.protocol import Bootstrap
from p2pmirror.wire.address import Address, split_host_port

ROUTER_PORT = 29998  # DESIGN.md, "Ports and endpoints"

__all__ = ["ROUTER_PORT", "Bootstrap", "Names", "parse"]


def parse(text: str) -> Bootstrap:
    """Read a `bootstrap` setting; ValueError with a clear text for what is none.

    The port is 29998 unless given; IPv6 addresses stand in brackets; host names are resolved when they are needed.
    """
    kind, colon, rest = text.strip().partition(":")
    if kind == "static" and colon:
        return Names(text, tuple(_host_port(part.strip()) for part in rest.split(",") if part.strip()) or _none(text))
    if kind == "dns" and colon:
        return Names(text, (_host_port(rest.strip()),))
    raise ValueError(f"bootstrap {text!r}: allowed are static:HOST:PORT,… and dns:NAME[:PORT]")


def _none(text: str) -> tuple[tuple[str, int], ...]:
    raise ValueError(f"bootstrap {text!r} names no host: write static:HOST:PORT,…")


def _host_port(text: str) -> tuple[str, int]:
    try:
        host, port = split_host_port(text, default_port=ROUTER_PORT)
    except ValueError as error:
        raise ValueError(f"bootstrap: {error}") from None
    if not host or any(each in " /" or not each.isprintable() for each in host):
        raise ValueError(f"bootstrap: {text!r} is no host with a port")
    if port == 0:
        raise ValueError(f"bootstrap: {text!r}: port 0 cannot be sent to")
    _refuse_unspecified(host, port, text)
    return host, port


def _refuse_unspecified(host: str, port: int, text: str) -> None:
    """Refuse 0.0.0.0 and ::; a host name passes."""
    try:
        address = Address.of(host, port)
    except ValueError:
        return
    if address.is_unspecified:
        raise ValueError(f"bootstrap: {text!r} can be listened on and not be sent to")
