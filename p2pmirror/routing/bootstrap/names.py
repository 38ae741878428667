"""Bootstrap by host names: a fixed list, or the one name of a headless service that has the address of every pod.

Law: the names are looked up whenever somebody asks, and now and then in between, for pods that were not there before.
"""

from dataclasses import dataclass
from random import Random

import trio

from p2pmirror.routing.bootstrap.complaints import Complaints
from p2pmirror.routing.bootstrap.places import Place
from p2pmirror.routing.bootstrap.resolver import Resolver
from p2pmirror.store.files import Files
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network

LOOK_AGAIN_S = 60.0  # a name server's usual time to live is 5 to 30 s; a thousand nodes ask it 17 times a second


@dataclass(frozen=True, slots=True)
class NamesSetting:
    """`names`: hosts (names or numeric) with their ports; `text` is the setting that they were read from."""

    text: str
    names: tuple[Place, ...]

    def __str__(self) -> str:
        return self.text

    def on(self, network: Network, files: Files, random: Random) -> "Names":  # noqa: ARG002 - no file is needed
        """See `protocol.BootstrapSetting`."""
        return Names(self.names, Resolver(network, random, Complaints()), random)


class Names:
    """See `protocol.Bootstrap`."""

    def __init__(self, names: tuple[Place, ...], resolver: Resolver, random: Random) -> None:
        """Resolve nothing yet."""
        self._names = names
        self._resolver = resolver
        self._random = random

    async def addresses(self) -> list[Address]:
        """Return every address of every name."""
        return await self._resolver.resolve(self._names)

    async def changed(self) -> None:
        """Return when a name has an address that it did not have; never where all hosts are numeric."""
        if all(name.address is not None for name in self._names):
            await trio.sleep_forever()
        while True:
            await trio.sleep(look_again_s(self._random))
            if await self._resolver.has_news():
                return


def look_again_s(random: Random) -> float:
    """Return how long to wait before names are looked up again; nodes that started together drift apart."""
    return LOOK_AGAIN_S * random.uniform(0.8, 1.2)
