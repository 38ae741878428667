"""Bootstrap by host names: a fixed list, or the one name of a headless service that has the address of every pod.

Laws: all addresses of a name count, of both families; a name that does not resolve is left out, logged when that
changes, and asked for again the next time.
"""

import logging

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network

RESOLVE_S_MAX = 5.0  # a resolver that is not there answers after 5 s by default; nobody waits longer for one name
ADDRESSES_MAX = 4096  # addresses of one bootstrap: a service of some thousand pods; more is no cluster but a mistake

_log = logging.getLogger(__name__)


class Names:
    """`names`: hosts (names or numeric) with their ports; `text` is the setting that they were read from."""

    def __init__(self, text: str, names: tuple[tuple[str, int], ...]) -> None:
        """Resolve nothing yet."""
        self.text = text
        self.names = names
        self._unresolved: dict[str, str] = {}  # name -> why, as it was logged last

    def __repr__(self) -> str:
        return f"Names({self.text!r})"

    async def addresses(self, network: Network) -> list[Address]:
        """Return every address of every name, sorted. Cancellation leaves nothing behind."""
        found: set[Address] = set()

        async def look_up(host: str, port: int) -> None:
            found.update(await self._resolve(network, host, port))

        async with trio.open_nursery() as nursery:
            for host, port in self.names:
                nursery.start_soon(look_up, host, port)
        return sorted(found)[:ADDRESSES_MAX]

    async def _resolve(self, network: Network, host: str, port: int) -> list[Address]:
        try:
            return [Address.of(host, port)]
        except ValueError:
            pass  # a name
        why = f"no answer within {RESOLVE_S_MAX:g} s"
        with trio.move_on_after(RESOLVE_S_MAX):
            try:
                addresses = await network.resolve(host, port)
            except Unreachable as error:
                why = str(error)
            else:
                self._resolved(host)
                return addresses
        self._not_resolved(host, why)
        return []

    def _resolved(self, host: str) -> None:
        if self._unresolved.pop(host, None) is not None:
            _log.info("bootstrap name %s resolves again", host)

    def _not_resolved(self, host: str, why: str) -> None:
        if self._unresolved.get(host) != why:
            self._unresolved[host] = why
            _log.warning("bootstrap name %s does not resolve: %s", host, why)
