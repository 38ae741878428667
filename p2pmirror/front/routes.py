"""Requests to the registry API: what is asked for, who asks, and which of the rooms' answers it gets.

Laws:
- `ns` is a name to look up, never an address to dial;
- who is not let in learns nothing but that;
- a peer is answered from what is held here, nobody is asked for it;
- what the filters do not let through is not here, for nobody;
- whatever comes in, what goes out is content, a 304, or an OCI error.

Follows the OCI distribution specification, section "Endpoints", and DESIGN.md, section "Ports and endpoints".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import trio

from p2pmirror.errors import MirrorError, NotHere
from p2pmirror.front import blobs, errors, flights, manifests, referrers, tags
from p2pmirror.front.admission import Admission, Everybody
from p2pmirror.front.content import is_known, not_modified
from p2pmirror.front.journal import Exchange, Journal
from p2pmirror.front.metrics import FrontMetrics
from p2pmirror.front.query import Query, parse_query
from p2pmirror.front.slots import Slots
from p2pmirror.front.upload import Uploads
from p2pmirror.oci import (
    BlobPath,
    Digest,
    Invalid,
    ManifestPath,
    ReferrersPath,
    TagsPath,
    canonical_registry,
    canonical_repository,
    check_registry,
    parse_path,
)
from p2pmirror.oci.filters import Filters
from p2pmirror.oci.paths import HARBOR_PING
from p2pmirror.resolve.protocol import Resolver
from p2pmirror.resolve.want import Listing, Want
from p2pmirror.wire.http import Request, Response
from p2pmirror.wire.identity import FOLLOWS_HEADER, WAITS_HEADER
from p2pmirror.wire.pacing import Pace

STALE: Final = '110 - "Response is Stale"'  # RFC 7234, section 5.5.1: clients that know it still show it

WAIT_DIGITS_MAX: Final = 6  # of milliseconds: no peer waits for a quarter of an hour

_FOLLOWS: Final = FOLLOWS_HEADER.lower()
_WAITS: Final = WAITS_HEADER.lower()
_CONTENT_KINDS: Final = frozenset({"manifest", "blob"})


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """`registries` are the configured ones; `registries_only`: others are not here. `default_registry`: absent `ns`.

    `fallback`: containerd goes elsewhere after a 404, so that trouble is better said as 404 than as 503.
    """

    default_registry: str = "docker.io"
    registries_only: bool = False
    registries: frozenset[str] = frozenset()
    fallback: bool = True


class Front:
    """Answers the registry API: `handle` is the registry port's handler."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        filters: Filters,
        options: FrontOptions,
        metrics: FrontMetrics,
        clock: Callable[[], float] = trio.current_time,
        pace: Pace | None = None,
        slots: Slots | None = None,
        admission: Admission | None = None,
    ) -> None:
        """Answer whom `admission` lets in (everybody) with what `resolver` finds, peers in `slots` and at `pace`."""
        self._resolver = resolver
        self._filters = filters
        self._default_registry = canonical_registry(options.default_registry)
        self._registries = frozenset(map(canonical_registry, options.registries)) if options.registries_only else None
        self._fallback = options.fallback
        self._journal = Journal(metrics, clock)
        self._uploads = Uploads(slots or Slots(), pace, metrics, clock)
        self._admission = admission or Everybody()

    def recent(self) -> list[Exchange]:
        """Return the last requests that ended, newest first."""
        return self._journal.recent()

    async def handle(self, request: Request) -> Response:
        """Answer one request. Cancellation closes what had been opened."""
        exchange = self._journal.begin(request)
        try:
            response = await self._answer(request, exchange)
            if exchange.from_peer is not None:
                is_piece = flights.is_piece(request)
                self._uploads.begin(response, exchange.from_peer, exchange.digest, is_piece=is_piece)
        except (MirrorError, Invalid) as error:
            response = self._error(error, exchange)
        except BaseException as error:
            self._journal.broke(exchange, bug=isinstance(error, Exception))
            raise
        return self._journal.answered(exchange, response)

    async def _answer(self, request: Request, exchange: Exchange) -> Response:
        exchange.from_peer = await self._admission.admit(request)
        if request.path.startswith(flights.PREFIX):
            exchange.kind, exchange.trail.source = "flight", "flight"
            if exchange.from_peer is not None and request.path.endswith(flights.NEXT):
                self._uploads.check(exchange.from_peer)
            response = await flights.answer(request, exchange.from_peer, self._resolver, self._is_served)
            if response.status == 206:  # a piece of a blob, as an ordinary range request would have had it
                exchange.kind = "blob"
                exchange.digest = exchange.reference = Digest.parse(response.headers["Docker-Content-Digest"])
                exchange.registry, exchange.repository = flights.image_of(request)
            return response
        if request.method not in errors.READS and (request.path == "/v2" or request.path.startswith("/v2/")):
            raise errors.Refused("UNSUPPORTED", "this registry is only read from", status=405)
        if request.path == HARBOR_PING and request.method in errors.READS:
            exchange.kind = "base"
            return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, b"Pong")
        path = parse_path(request.path)
        if isinstance(path, BlobPath):
            exchange.kind, exchange.reference = "blob", path.digest
        elif isinstance(path, ManifestPath):
            exchange.kind, exchange.reference = "manifest", path.reference
        elif isinstance(path, TagsPath):
            exchange.kind = "tags"
        elif isinstance(path, ReferrersPath):
            exchange.kind, exchange.reference = "referrers", path.digest
        else:
            exchange.kind = "base"
            return _base()
        query = parse_query(request.query)
        self._name(exchange, path.repository, query)
        if exchange.kind in _CONTENT_KINDS:
            return await self._content(request, exchange)
        if isinstance(path, ReferrersPath):
            return await self._referrers(path.digest, exchange, query)
        return await self._tags(path.repository, exchange, query)

    def _name(self, exchange: Exchange, repository: str, query: Query) -> None:
        """Settle what the request is about. Raises `NotHere`."""
        registry, repository = self._registry_of(repository, query)
        exchange.registry, exchange.repository = registry, canonical_repository(registry, repository)
        if self._registries is not None and registry not in self._registries:
            raise NotHere(f"{registry} is none of the registries that are served here")

    def _is_served(self, registry: str, repository: str) -> bool:
        is_ours = self._registries is None or registry in self._registries
        return is_ours and (self._filters.empty or self._filters.allows(f"{registry}/{repository}"))

    def _registry_of(self, repository: str, query: Query) -> tuple[str, str]:
        """Return the registry that is meant: `ns`, else one that begins the name (`ghcr.io/org/app`), else the default.

        Docker and podman send no `ns`; a registry's name has a dot, the first part of a name on Docker Hub has none.
        """
        if query.registry is not None:
            return query.registry, repository
        first, slash, rest = repository.partition("/")
        if slash and "." in first:
            return canonical_registry(check_registry(first)), rest
        return self._default_registry, repository

    async def _content(self, request: Request, exchange: Exchange) -> Response:
        is_head = request.method == "HEAD"
        want = self._want(request, exchange, is_head=is_head)
        if not self._filters.empty and not self._filters.allows(want.name):
            raise NotHere(f"{want.name} is not served here")
        found = await self._resolver.find(want, exchange.trail)
        exchange.digest = found.content.digest
        known = request.headers.get("if-none-match")
        if known is not None and is_known(known, found.content.digest):
            return not_modified(found)
        response = manifests.answer(found) if want.kind == "manifest" else blobs.answer(found, want.byte_range)
        if exchange.trail.is_stale:
            response.headers["Warning"] = STALE
        return response

    def _want(self, request: Request, exchange: Exchange, *, is_head: bool) -> Want:
        reference = exchange.reference
        if exchange.kind == "blob" and isinstance(reference, Digest):
            byte_range = blobs.range_asked(request.headers, reference, head=is_head)
            return Want(
                "blob",
                exchange.registry,
                exchange.repository,
                reference,
                is_head,
                byte_range,
                exchange.from_peer,
                follows=_FOLLOWS in request.headers,
            )
        return Want(
            "manifest",
            exchange.registry,
            exchange.repository,
            reference,
            is_head,
            None,
            exchange.from_peer,
            waits_s=_waits_s(request.headers),
        )

    async def _tags(self, repository: str, exchange: Exchange, query: Query) -> Response:
        listing = Listing(exchange.registry, exchange.repository, exchange.from_peer)
        name = f"{exchange.registry}/{exchange.repository}"
        known = await self._resolver.tags(listing, exchange.trail)
        allowed = known if self._filters.empty else [tag for tag in known if self._filters.allows(f"{name}:{tag}")]
        if not allowed:
            raise NotHere(f"no tags of {name} are known here")
        return tags.answer(repository, allowed, query)

    async def _referrers(self, subject: Digest, exchange: Exchange, query: Query) -> Response:
        name = f"{exchange.registry}/{exchange.repository}"
        if not self._filters.allows(name):
            raise NotHere(f"{name} is not served here")
        listing = Listing(exchange.registry, exchange.repository, exchange.from_peer)
        known = await self._resolver.referrers(listing, subject, exchange.trail)
        return referrers.answer(known, query.artifact_type)

    def _error(self, error: MirrorError | Invalid, exchange: Exchange) -> Response:
        if isinstance(error, errors.Occupied):
            exchange.kind = "flight"  # the talk of peers, who come back until they are served
        verdict = errors.judge(error, exchange.kind, fallback=self._fallback)
        exchange.outcome, exchange.trail.source = verdict.outcome, "none"
        attempts = exchange.trail.attempts if exchange.kind in _CONTENT_KINDS and verdict.outcome != "refused" else None
        return errors.response(verdict, str(error), head=exchange.method == "HEAD", attempts=attempts)


def _waits_s(headers: Mapping[str, str]) -> float:
    """Return how long a peer waits for what this node is asking a registry for; 0 for nonsense."""
    text = headers.get(_WAITS, "")
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) <= WAIT_DIGITS_MAX else 0.0


def _base() -> Response:
    headers = {"Content-Type": "application/json", "Docker-Distribution-Api-Version": errors.API_VERSION}
    return Response(200, headers, b"{}")
