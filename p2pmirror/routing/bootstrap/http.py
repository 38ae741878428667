"""Bootstrap by a URL: JSON `{"peers": ["HOST:PORT"]}`, as every agent serves it at /api/v1/peers.

Law: there is no last good answer: a server that is gone names nobody, and whoever is alone asks again.
"""

from dataclasses import dataclass
from random import Random
from typing import Final
from urllib.parse import urlsplit

import trio

from p2pmirror.routing.bootstrap.complaints import Complaints
from p2pmirror.routing.bootstrap.fetching import NoList, Source, fetch
from p2pmirror.routing.bootstrap.listing import read_entries
from p2pmirror.routing.bootstrap.places import Place, is_host, place_of, shown
from p2pmirror.routing.bootstrap.resolver import Resolver
from p2pmirror.store.files import Files
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network

PATH: Final = "/api/v1/peers"  # of a URL that has none
HTTP_PORT: Final = 80  # RFC 9110 section 4.2.1


@dataclass(frozen=True, slots=True)
class UrlSetting:
    """Where to ask; `text` is the setting that it was read from."""

    text: str
    place: Place
    source: Source

    def __str__(self) -> str:
        return self.text

    def on(self, network: Network, files: Files, random: Random) -> "UrlList":  # noqa: ARG002 - no file is needed
        """See `protocol.BootstrapSetting`."""
        return UrlList(self, network, random)


def read_url(url: str, text: str) -> UrlSetting:
    """Read `http://HOST[:PORT][/PATH]`. Raises ValueError with a clear text."""
    told = shown(repr(url))
    if url.lower().startswith("https:"):
        raise ValueError(f"{told}: https is not spoken here; write http://HOST[:PORT]/PATH, or file:PATH for a list")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{told} is no URL")
    try:
        parts = urlsplit(url)
        port = HTTP_PORT if parts.port is None else parts.port
    except ValueError as error:
        raise ValueError(f"{told} is no URL: {shown(str(error))}") from None
    host = parts.hostname or ""
    if parts.scheme != "http" or parts.username is not None or parts.fragment or not is_host(host) or port == 0:
        raise ValueError(f"{told} is not as http://HOST[:PORT]/PATH")
    place = place_of(host, port)
    if isinstance(place, Address) and place.is_unspecified:
        raise ValueError(f"{told} can be listened on and not be asked")
    path = parts.path if parts.path not in ("", "/") else PATH
    return UrlSetting(text, place, Source(parts.netloc, f"{path}?{parts.query}" if parts.query else path))


class UrlList:
    """See `protocol.Bootstrap`."""

    def __init__(self, setting: UrlSetting, network: Network, random: Random) -> None:
        """Ask nothing yet."""
        self._setting = setting
        self._network = network
        self._random = random
        self._hosts = Resolver(network, random)
        self._peers = Resolver(network, random)
        self._complaints = Complaints()

    async def addresses(self) -> list[Address]:
        """Return the addresses of what the server names now."""
        return await self._peers.resolve(await self._places())

    async def changed(self) -> None:
        """Never return: an agent's list changes with every member, and asking for it costs more than it tells."""
        await trio.sleep_forever()

    async def _places(self) -> list[Place]:
        source = self._setting.source
        subject = f"http://{source.authority}{source.target}"
        hosts = await self._hosts.resolve([self._setting.place])
        try:
            peers = await fetch(hosts, source, self._network, self._random)
        except NoList as error:
            self._complaints.wrong(subject, f"names nobody: {error}")
            return []
        listing = await read_entries([(f"peers[{index}]", each) for index, each in enumerate(peers)], self._random)
        if listing.wrong:
            self._complaints.wrong(subject, listing.wrong)
        else:
            self._complaints.right(subject, "names peers again")
        return listing.places
