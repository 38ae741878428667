"""What every way of finding first members offers."""

from typing import Protocol

from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network


class Bootstrap(Protocol):
    """Names addresses of routers, of which some may be there, and one may be our own."""

    async def addresses(self, network: Network) -> list[Address]:
        """Return where to knock, sorted, without duplicates; empty when nobody is known. Never raises `MirrorError`."""
        ...
