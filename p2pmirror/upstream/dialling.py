"""To which address a name is dialled: the first that answers, of those that may be.

Laws: an address is judged after the name was looked up and the very one that was judged is dialled, so that a name
server cannot say one thing first and another later; where no address may be dialled, nothing is.

Follows RFC 8305 (families in turn, the next address when one takes its time).
"""

from collections.abc import Sequence
from itertools import zip_longest
from random import Random
from typing import Final

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.upstream.addresses import is_public
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network, Stream

NEXT_S: Final = 0.25  # RFC 8305, section 8
TRIED_MAX: Final = 16  # addresses of one name: large services name eight


class NotAllowed(Unreachable):
    """The name leads to addresses that may not be dialled, and to no other."""


class Dialler:
    """Dials names on behalf of one registry. `proxy` is the one place that may be anywhere."""

    def __init__(
        self, network: Network, random: Random, *, private_addresses: bool, proxy: tuple[str, int] | None
    ) -> None:
        """Dial over `network`; the order among addresses is left to `random`."""
        self._network = network
        self._random = random
        self._private = private_addresses
        self._proxy = proxy

    async def dial(self, host: str, port: int) -> Stream:
        """Connect to `host`. Raises `Unreachable`; `NotAllowed` of it, too. Cancellation: undone."""
        addresses = await self._allowed(host, port)
        return await _first(self._network, self._ordered(addresses)[:TRIED_MAX])

    def check_literal(self, host: str) -> None:
        """Raise `NotAllowed` for a numeric host that may not be dialled, though a proxy would do it for us."""
        try:
            address = Address.of(host.strip("[]"), 0)
        except ValueError:
            return
        if not (self._private or is_public(address.host)):
            raise NotAllowed(_refusal(host, [address]))

    async def _allowed(self, host: str, port: int) -> list[Address]:
        found = await self._network.resolve(host, port)
        if self._private or (host, port) == self._proxy:
            return found
        allowed = [address for address in found if is_public(address.host)]
        if not allowed:
            raise NotAllowed(_refusal(host, found))
        return allowed

    def _ordered(self, addresses: Sequence[Address]) -> list[Address]:
        """Return them in the order of chance, the families in turn."""
        drawn = self._random.sample(addresses, len(addresses))
        families = ([each for each in drawn if each.is_ipv6], [each for each in drawn if not each.is_ipv6])
        return [each for pair in zip_longest(*families) for each in pair if each is not None]


async def _first(network: Network, addresses: Sequence[Address]) -> Stream:
    """Connect to whichever answers first; each is given `NEXT_S` before the next is tried beside it."""
    won: list[Stream] = []
    failures: list[Unreachable] = []

    async def attempt(address: Address, failed: trio.Event) -> None:
        try:
            stream = await network.connect(address)
        except Unreachable as error:
            failures.append(error)
            failed.set()
            return
        if won:
            stream.abort()
        else:
            won.append(stream)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(NEXT_S):
                    await failed.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
    except BaseException:
        for stream in won:
            stream.abort()
        raise
    if not won:
        raise failures[0] if failures else Unreachable("the name has no address")
    return won[0]


def _refusal(host: str, found: Sequence[Address]) -> str:
    named = ", ".join(sorted({address.host for address in found})[:3]) or "no address"
    return f"{host} is {named}, which is not dialled without private_addresses = true"
