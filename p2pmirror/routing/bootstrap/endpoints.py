"""What is known of a service's endpoints: its slices as lists and watches tell of them, and the places in them.

Laws:
- a slice is replaced as a whole, as the API tells it; the version is that of the last thing taken in;
- who is not ready counts, who is leaving does not: pods that start at the same time must find one another, and one
  that leaves says goodbye by itself;
- the port is the one named `router`, else the router's usual one.

Follows the reference of `discovery.k8s.io/v1`, EndpointSlice.
"""

from collections.abc import Mapping
from typing import Final

from p2pmirror.kubernetes.objects import EndpointSlice, Event, decode, error_of, version_of
from p2pmirror.routing.bootstrap.places import ROUTER_PORT, Place, is_host, place_of
from p2pmirror.wire.address import PORT_MAX

PORT_NAME: Final = "router"
_UNSPECIFIED: Final = frozenset(
    {"0.0.0.0", "::"}
)  # as `Address` spells them; to parse them again would double the work
SLICES_MAX: Final = 2000  # as many as a list may have; what a watch adds beyond is passed over


class Endpoints:
    """Slices by name, and the version at which they were so."""

    def __init__(self) -> None:
        """Know nothing."""
        self.version = ""
        """From which a watch goes on; empty: everything has to be listed."""
        self.places: frozenset[Place] = frozenset()
        """Where to knock."""
        self._slices: dict[str, frozenset[Place]] = {}

    def replace(self, version: str, slices: Mapping[str, frozenset[Place]]) -> None:
        """Know what was listed, the places of each slice by its name, and nothing else."""
        self._slices = dict(slices)
        self.version = version
        self._count()

    def take(self, event: Event) -> None:
        """Take a change in; of kinds that are unknown, nothing. Raises `ApiRefused` (of it `Gone`) and `NoObject`."""
        match event.type:
            case "ADDED" | "MODIFIED":
                changed = decode(event.object, EndpointSlice)
                name = changed.metadata.name
                if name in self._slices or len(self._slices) < SLICES_MAX:
                    self._slices[name] = places_of(changed)
                self.version = changed.metadata.resource_version
                self._count()
            case "DELETED":
                gone = decode(event.object, EndpointSlice)
                self._slices.pop(gone.metadata.name, None)
                self.version = gone.metadata.resource_version
                self._count()
            case "BOOKMARK":
                self.version = version_of(event.object)
            case "ERROR":
                raise error_of(event.object)

    def _count(self) -> None:
        self.places = frozenset().union(*self._slices.values())


def places_of(part: EndpointSlice) -> frozenset[Place]:
    """Return where the routers of a slice are; what is no address is left out."""
    port = next((each.port for each in part.ports or () if each.name == PORT_NAME and each.port), ROUTER_PORT)
    if not 0 < port <= PORT_MAX:
        return frozenset()
    hosts = (
        host
        for endpoint in part.endpoints or ()
        if endpoint.conditions is None or not endpoint.conditions.terminating
        for host in endpoint.addresses or ()
    )
    places = (place_of(host, port) for host in hosts if is_host(host))
    return frozenset(each for each in places if each[0] not in _UNSPECIFIED)
