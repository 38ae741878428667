"""The endpoints of a service, all of them, page by page.

Laws: a list has one version, whatever number of pages it came in; a page that is too old to go on from (410) is no
failure: then the whole is asked for at once, which cannot grow old.

Follows Kubernetes' "API Concepts", section "Retrieving large results sets in chunks".
"""

from dataclasses import dataclass
from typing import Final

from p2pmirror.kubernetes.objects import EndpointSlice, EndpointSlices, Gone, NoObject
from p2pmirror.kubernetes.session import Session

PAGE_SLICES: Final = 10  # of a hundred endpoints each, as the controller cuts them: 0.3 MB, 3 ms of decoding
PAGES_MAX: Final = 200  # two hundred thousand endpoints: no cluster has so many nodes


@dataclass(frozen=True, slots=True)
class Service:
    """A service in a namespace, by name."""

    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Return where its EndpointSlices are listed and watched."""
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"

    @property
    def query(self) -> dict[str, str]:
        """Return what chooses them among those of other services."""
        return {"labelSelector": f"kubernetes.io/service-name={self.name}"}

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Listing:
    """The slices of a service as they were at a `version`, from which a watch goes on."""

    version: str
    slices: list[EndpointSlice]


async def list_slices(session: Session, service: Service) -> Listing:
    """Return all slices of a service. Raises as `Session.get` does. Cancelled, nothing is left open."""
    try:
        return await _pages(session, service, limit=PAGE_SLICES)
    except Gone:
        return await _pages(session, service, limit=None)


async def _pages(session: Session, service: Service, *, limit: int | None) -> Listing:
    query = service.query | ({"limit": str(limit)} if limit else {})
    version, slices = "", list[EndpointSlice]()
    for _ in range(PAGES_MAX):
        page = await session.get(service.path, EndpointSlices, query)
        version = version or page.metadata.resource_version
        if not version:
            raise NoObject("what came is no EndpointSlices: a list has a version")  # else anything is an empty one
        slices += page.items or ()
        if not page.metadata.continue_:
            break
        query["continue"] = page.metadata.continue_
    return Listing(version, slices)
