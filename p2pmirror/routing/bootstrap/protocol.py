"""What every way of finding first members offers."""

from random import Random
from typing import Protocol

from p2pmirror.store.files import Files
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network


class Bootstrap(Protocol):
    """Names addresses of routers, of which some may be there, and one may be our own."""

    async def addresses(self) -> list[Address]:
        """Return where to knock, sorted, without duplicates; empty when nobody is known. Never raises `MirrorError`.

        Takes some seconds at most. Cancellation leaves nothing behind.
        """
        ...

    async def changed(self) -> None:
        """Return when `addresses` may name somebody whom it did not name the last time; perhaps never.

        It looks from time to time, so it returns late rather than often. Never raises `MirrorError`.
        """
        ...


class BootstrapSetting(Protocol):
    """A `bootstrap` setting that was read; `str()` is its text."""

    def on(self, network: Network, files: Files, random: Random) -> Bootstrap:
        """Return the bootstrap as seen from one host; nothing is asked yet."""
        ...
