"""Bootstrap by host names: a fixed list, or the one name of a headless service that has the address of every pod.

Law: the names are looked up whenever somebody asks, and now and then in between, for pods that were not there before.
"""

from dataclasses import dataclass
from random import Random

import trio

from p2pmirror.routing.bootstrap.places import Name, Place
from p2pmirror.routing.bootstrap.resolver import Resolver
from p2pmirror.store.files import Files
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network

LOOK_AGAIN_S = 60.0  # a name server's usual time to live is 5 to 30 s; a thousand nodes ask it 17 times a second


@dataclass(frozen=True, slots=True)
class NamesSetting:
    """`places`: addresses and names, with their ports; `text` is the setting that they were read from."""

    text: str
    places: tuple[Place, ...]

    def __str__(self) -> str:
        return self.text

    def on(self, network: Network, files: Files, random: Random) -> "Names":  # noqa: ARG002 - no file is needed
        """See `protocol.BootstrapSetting`."""
        return Names(self.places, Resolver(network, random), random)


class Names:
    """See `protocol.Bootstrap`."""

    def __init__(self, places: tuple[Place, ...], resolver: Resolver, random: Random) -> None:
        """Resolve nothing yet."""
        self._places = places
        self._resolver = resolver
        self._random = random

    async def addresses(self) -> list[Address]:
        """Return every address of every name."""
        return await self._resolver.resolve(self._places)

    async def changed(self) -> None:
        """Return when a name has an address that it did not have; never where all are addresses."""
        if not any(isinstance(each, Name) for each in self._places):
            await trio.sleep_forever()
        while True:
            await trio.sleep(look_again_s(self._random))
            if await self._resolver.has_news():
                return


def look_again_s(random: Random) -> float:
    """Return how long to wait before names are looked up again; nodes that started together drift apart."""
    return LOOK_AGAIN_S * random.uniform(0.8, 1.2)
