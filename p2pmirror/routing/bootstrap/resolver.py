"""From places to addresses: names are looked up at once, side by side, and what they say is remembered.

Laws:
- all addresses of a name count, of both families; a name that does not resolve is left out, logged when that changes;
- however many places and addresses there are, names asked, addresses returned and time spent are bounded; what is over
  a bound is left out by chance, so that the next question meets others.
"""

from collections.abc import Collection, Iterable
from random import Random
from typing import TypeVar

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.bootstrap.complaints import Complaints
from p2pmirror.routing.bootstrap.places import Name, Place
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network

RESOLVE_S_MAX = 5.0  # a resolver that is not there answers after 5 s by default; nobody waits longer for names
NAMES_MAX = 256  # names asked at a time; whoever lists more members than that lists addresses
ADDRESSES_MAX = 4096  # addresses told: some thousand pods; a node knocks at a few of them at a time

_Asked = TypeVar("_Asked", Name, Address)


class Resolver:
    """Looks places up on one host's network."""

    def __init__(self, network: Network, random: Random) -> None:
        """Ask nothing yet."""
        self._network = network
        self._random = random
        self._complaints = Complaints()
        self._names: list[Name] = []
        self._known: frozenset[Address] = frozenset()  # when they were asked for last

    async def resolve(self, places: Iterable[Place]) -> list[Address]:
        """Return the addresses of these places, sorted. Cancellation leaves nothing behind."""
        every = dict.fromkeys(places)
        self._names = [each for each in every if isinstance(each, Name)]
        found = {each for each in every if isinstance(each, Address)}
        found |= await self._look_up()
        self._known = frozenset(found)
        return sorted(self._some(found, ADDRESSES_MAX))

    async def has_news(self) -> bool:
        """Look the last names up again; return whether there are addresses that were not known then."""
        return bool(self._names) and not await self._look_up() <= self._known

    async def _look_up(self) -> set[Address]:
        found: set[Address] = set()
        self._complaints.keep_only({_subject(name) for name in self._names})

        async def look_up(name: Name) -> None:
            found.update(await self._addresses(name))

        async with trio.open_nursery() as nursery:
            for name in self._some(self._names, NAMES_MAX):
                nursery.start_soon(look_up, name)
        return found

    async def _addresses(self, name: Name) -> list[Address]:
        why = f"no answer within {RESOLVE_S_MAX:g} s"
        with trio.move_on_after(RESOLVE_S_MAX):
            try:
                addresses = await self._network.resolve(name.host, name.port)
            except Unreachable as error:
                why = str(error)
            else:
                self._complaints.right(_subject(name), "resolves again")
                return [each for each in addresses if not each.is_unspecified]
        self._complaints.wrong(_subject(name), f"does not resolve: {why}")
        return []

    def _some(self, every: Collection[_Asked], count_max: int) -> list[_Asked]:
        """Return all of them, or as many by chance."""
        if len(every) <= count_max:
            return list(every)
        return self._random.sample(sorted(every), count_max)


def _subject(name: Name) -> str:
    return f"name {name.host}"
