"""Who is let in at the registry port: without a key everybody, with one members, this node, and named networks.

Laws:
- who says that it is a peer must prove it, wherever it asks from; who does not is a client, and where it asks from
  counts;
- this node's own addresses are those that it talks to itself from: loopback, the address that the connection came in
  at, and any address from which the route to it starts;
- whoever is not let in is told so (403) before anything else is looked at, and nothing is looked up for him.

DESIGN.md, section 4, "Ports and endpoints"; docs/security.md says what it is worth.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from p2pmirror.errors import Unreachable
from p2pmirror.front.errors import Refused
from p2pmirror.front.metrics import FrontMetrics
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import Binding
from p2pmirror.wire.http import Request
from p2pmirror.wire.identity import PEER_HEADER, NodeId, parse_node_id
from p2pmirror.wire.keyring import KeyRing
from p2pmirror.wire.peer_auth import AUTH_HEADER, Asked, Unproven, check

ROUTE_PORT: Final = 9  # any port but 0 will do to ask for a route: nothing is sent

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_PEER_FIELD: Final = PEER_HEADER.lower()
_AUTH_FIELD: Final = AUTH_HEADER.lower()


class Admission(Protocol):
    """Decides who is answered."""

    async def admit(self, request: Request) -> NodeId | None:
        """Return the peer who asks, None for another client. Raises `Refused`. Cancellation changes nothing."""
        ...


class Everybody:
    """A cluster without a key: everybody is answered, and is whom he says he is."""

    async def admit(self, request: Request) -> NodeId | None:
        """Return who asks; see `Admission`."""
        return sender_of(request)


class KeyHolders:
    """A cluster with a key; see the module."""

    def __init__(
        self,
        ring: KeyRing,
        own: Callable[[], Binding],
        *,
        allowed: Sequence[Subnet],
        source_host: Callable[[Address], Awaitable[str]],
        metrics: FrontMetrics,
    ) -> None:
        """`own` gives this node's binding as it is now, `source_host` the start of a route (`wire.network.Network`)."""
        self._ring = ring
        self._own = own
        self._allowed = tuple(allowed)
        self._source_host = source_host
        self._metrics = metrics

    async def admit(self, request: Request) -> NodeId | None:
        """Return who asks; see `Admission`."""
        sender = sender_of(request)
        if sender is not None:
            self._check(request, sender)
        elif not await self._is_served(request.remote.host, request.local.host):
            self._metrics.denied.child("client").inc()
            raise Refused("DENIED", "this registry serves its own node, its peers, and allowed_clients", status=403)
        return sender

    def _check(self, request: Request, sender: NodeId) -> None:
        target = f"{request.path}?{request.query}" if request.query else request.path
        asked = Asked(request.method, target, request.headers.get("range", ""), sender)
        try:
            check(self._ring, asked, request.headers.get(_AUTH_FIELD), self._own())
        except Unproven as error:
            self._metrics.denied.child(error.doubt).inc()
            raise Refused("DENIED", str(error), status=403) from None

    async def _is_served(self, remote: str, local: str) -> bool:
        """Return whether a client at `remote` is on this node or in an allowed network; the cheap tests come first."""
        if remote == local:
            return True
        ip = ipaddress.ip_address(remote.partition("%")[0])  # the scope names an interface, not an address
        if ip.is_loopback or any(ip in network for network in self._allowed):
            return True
        try:
            return await self._source_host(Address(remote, ROUTE_PORT)) == remote
        except Unreachable:
            return False


def sender_of(request: Request) -> NodeId | None:
    """Return who a request says it is from, None when it says nothing. Raises `Refused` for what is no node id."""
    text = request.headers.get(_PEER_FIELD)
    if text is None:
        return None
    try:
        return parse_node_id(text)
    except ValueError as error:
        raise Refused("UNSUPPORTED", f"{PEER_HEADER}: {error}") from None
