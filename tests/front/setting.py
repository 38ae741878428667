"""A front over a resolver that finds what a test has put there."""

from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from p2pmirror.errors import NotHere
from p2pmirror.front import Front, FrontMetrics, FrontOptions
from p2pmirror.front.admission import Admission
from p2pmirror.oci import Descriptor, Digest
from p2pmirror.oci.filters import Filters
from p2pmirror.peers.piecemap import PieceMap
from p2pmirror.resolve.sharing import Piece
from p2pmirror.resolve.want import Found, Listing, Trail, Want
from p2pmirror.wire.address import Address
from p2pmirror.wire.http import FileBody, PumpBody, Request, Response
from p2pmirror.wire.identity import NodeId

THERE = NodeId(b"\x02" * 20)


class FakeFile:
    """An open file in memory that counts how often it was closed."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.closed = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def fileno(self) -> int | None:
        return None

    async def read_at(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]

    def close(self) -> None:
        self.closed += 1


class FakeResolver:
    """Finds what `found` says for a reference, raises it when it is an error, and keeps what it was asked."""

    def __init__(self) -> None:
        self.found: dict[Digest | str, Found | BaseException] = {}
        self.held_tags: dict[str, list[str]] = {}
        self.held_referrers: dict[Digest, tuple[Descriptor, ...]] = {}
        self.wants: list[Want] = []
        self.source: Any = "store"
        self.is_stale = False
        self.attempts = 0
        self.told: dict[Digest, PieceMap] = {}  # what there is of flights
        self.pieces: list[Piece | None] = []  # what is given, one after another
        self.flights_asked: list[tuple[Any, ...]] = []
        self.flights_wanted: list[Want | None] = []
        self.zones: list[str] = []  # of those who asked for pieces

    async def flight_map(
        self, digest: Digest, asker: NodeId, *, since: int, wait_s: float, want: Want | None = None
    ) -> PieceMap:
        self.flights_asked.append((digest, asker, since, wait_s))
        self.flights_wanted.append(want)
        if digest not in self.told:
            raise NotHere("it is not arriving")
        return self.told[digest]

    async def flight_piece(
        self, digest: Digest, asker: NodeId, *, first: int, lacks: bytes, wait_s: float, zone: str = ""
    ) -> Piece | None:
        self.zones.append(zone)
        self.flights_asked.append((digest, asker, first, lacks, wait_s))
        if digest not in self.told:
            raise NotHere("it is not arriving")
        return self.pieces.pop(0)

    async def find(self, want: Want, trail: Trail) -> Found:
        self.wants.append(want)
        trail.attempts = self.attempts
        found = self.found.get(want.reference, NotHere("nobody has it"))
        if isinstance(found, BaseException):
            raise found
        trail.source, trail.is_stale = self.source, self.is_stale
        return found

    async def tags(self, listing: Listing, trail: Trail) -> list[str]:
        trail.source = self.source
        return self.held_tags.get(f"{listing.registry}/{listing.repository}", [])

    async def referrers(self, listing: Listing, subject: Digest, trail: Trail) -> tuple[Descriptor, ...]:
        trail.source = self.source
        found = self.held_referrers.get(subject)
        if found is None:
            raise NotHere("neither it nor a referrer is held")
        return found

    def transfers(self) -> list[Any]:
        return []


class FakeSink:
    """Takes bytes, or raises `error` as a client does that has gone."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.data = b""
        self.error = error

    @property
    def sent(self) -> int:
        return len(self.data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.error is not None:
            raise self.error
        self.data += data

    async def send_file(self, file: Any, offset: int, count: int) -> None:
        await self.send_all(await file.read_at(offset, count))


@dataclass
class Bench:
    """A front, what it is built from, and a clock that a test moves."""

    resolver: FakeResolver = field(default_factory=FakeResolver)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    now: float = 0.0
    front: Front = None  # type: ignore[assignment]

    def build(self, *, filters: Filters | None = None, admission: Admission | None = None, **options: Any) -> "Bench":
        self.registry = CollectorRegistry()
        self.front = Front(
            resolver=self.resolver,
            filters=filters or Filters(),
            options=FrontOptions(**options),
            metrics=FrontMetrics(self.registry),
            clock=lambda: self.now,
            admission=admission,
        )
        return self

    async def ask(self, target: str, method: str = "GET", **headers: str) -> Response:
        """One request, whose answer is not sent yet; header names with `_` for `-`."""
        path, _, query = target.partition("?")
        fields = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        return await self.front.handle(
            Request(method, path, query, fields, Address("10.0.0.9", 40000), Address("10.0.0.1", 29999))
        )

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"p2pmirror_front_{name}", labels) or 0.0


async def send(response: Response, method: str = "GET", sink: Any = None) -> bytes:
    """Do what the server does with a response; return the body that the client sees."""
    sink = FakeSink() if sink is None else sink
    body, finished, error = response.body, True, None
    if method != "HEAD" and response.status != 304:
        try:
            if isinstance(body, bytes):
                await sink.send_all(body)
            elif isinstance(body, FileBody):
                await sink.send_file(body.file, body.offset, body.count)
            else:
                await body.pump(sink)
                finished = sink.sent == body.count
        except Exception as caught:
            finished, error = False, caught
    if isinstance(body, FileBody):
        body.file.close()
    elif isinstance(body, PumpBody):
        body.close()
    assert response.done is not None
    response.done(sink.sent, finished)
    assert error is None or not finished
    return sink.data
