"""Where a node that knows nobody looks for members: `static:HOST:PORT,…` and `dns:NAME[:PORT]`.

Laws:
- a bootstrap is asked again whenever a node is alone, so what it says may change;
- it may name this node too: the ping tells (a ping that our own id answers), nobody guesses own addresses;
- what cannot be used is logged once per change and left out, the rest counts; a bootstrap raises nothing and ends
  within some seconds.

DESIGN.md section 4, "Settings" (`bootstrap`).
"""

from p2pmirror.routing.bootstrap.names import NamesSetting
from p2pmirror.routing.bootstrap.places import ROUTER_PORT, Place, read_place
from p2pmirror.routing.bootstrap.protocol import Bootstrap, BootstrapSetting

__all__ = ["ROUTER_PORT", "Bootstrap", "BootstrapSetting", "NamesSetting", "parse"]


def parse(text: str) -> BootstrapSetting:
    """Read a `bootstrap` setting; ValueError with a clear text for what is none.

    The port is 29998 unless given; IPv6 addresses stand in brackets; host names are resolved when they are needed.
    """
    kind, colon, rest = text.strip().partition(":")
    if kind == "static" and colon:
        places = tuple(_place(part.strip()) for part in rest.split(",") if part.strip())
        if not places:
            raise ValueError(f"bootstrap {text!r} names no host: write static:HOST:PORT,…")
        return NamesSetting(text, places)
    if kind == "dns" and colon:
        return NamesSetting(text, (_place(rest.strip()),))
    raise ValueError(f"bootstrap {text!r}: allowed are static:HOST:PORT,… and dns:NAME[:PORT]")


def _place(text: str) -> Place:
    try:
        return read_place(text)
    except ValueError as error:
        raise ValueError(f"bootstrap: {error}") from None
