"""`/p2p/v1/flights/<digest>`: what peers ask of blobs that are arriving here.

Laws: peers alone are answered; who asks may wait for news as long as he says, within limits; an answer that is nothing
new is short and in no log.

DESIGN.md section 4, "Flights and pieces".
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from p2pmirror.errors import NotHere
from p2pmirror.front.content import headers_of
from p2pmirror.front.errors import Refused
from p2pmirror.front.query import QUERY_CHARS_MAX
from p2pmirror.oci import Digest, Invalid, canonical_registry, check_registry, check_repository
from p2pmirror.peers.piecemap import PIECES_MAX, encode
from p2pmirror.resolve.protocol import Resolver
from p2pmirror.resolve.sharing import Piece
from p2pmirror.resolve.want import Content, Want
from p2pmirror.wire.http import PumpBody, Request, Response, Sink
from p2pmirror.wire.identity import PIECE_HEADER, NodeId
from p2pmirror.wire.ranges import Span, content_range

PREFIX: Final = "/p2p/v1/flights/"
NEXT: Final = "/next"
WAIT_MS_MAX: Final = 10_000
ZONE_CHARS_MAX: Final = 63  # as in the setting
LACKS_BYTES_MAX: Final = 256  # pieces from the first on that would do: 2,048; a window has 32

_PIECE: Final = re.compile(r"bytes=[0-9]+-[0-9]+")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class _Asked:
    digest: Digest
    is_next: bool
    values: dict[str, str]

    def number(self, name: str, most: int) -> int:
        text = self.values.get(name, "0")
        if _NUMBER.fullmatch(text) is None:
            raise Refused("UNSUPPORTED", f"{name} is a number")
        return min(int(text), most)

    def want(self, is_served: Callable[[str, str], bool]) -> Want | None:
        """Return what is to be fetched when it is not here; None where the image is not served, or is no name."""
        try:
            registry = canonical_registry(check_registry(self.values.get("ns", "")))
            repository = check_repository(self.values.get("repository", ""))
        except Invalid:
            return None
        return Want("blob", registry, repository, self.digest) if is_served(registry, repository) else None


async def answer(
    request: Request, peer: NodeId | None, resolver: Resolver, is_served: Callable[[str, str], bool]
) -> Response:
    """Answer a peer; `is_served`: whether a registry's repository is one of ours.

    Raises `Refused`, `Invalid`, `NotHere`. Cancellation leaves nothing behind.
    """
    if peer is None:
        raise Refused("DENIED", "this is for peers", status=403)
    if request.method != "GET":
        raise Refused("UNSUPPORTED", "this is only read from, by GET", status=405, allowed=["GET"])
    asked = _read(request)
    wait_s = asked.number("wait_ms", WAIT_MS_MAX) / 1000
    if not asked.is_next:
        since = asked.number("since", 10**17)
        want = asked.want(is_served)
        found = await resolver.flight_map(asked.digest, peer, since=since, wait_s=wait_s, want=want)
        return Response(200, {"Content-Type": "application/msgpack"}, encode(found))
    try:
        lacks = bytes.fromhex(asked.values.get("lacks", ""))
    except ValueError:
        raise Refused("UNSUPPORTED", "lacks is a bitmap in hexadecimal") from None
    if not 0 < len(lacks) <= LACKS_BYTES_MAX:
        raise Refused("UNSUPPORTED", f"lacks has at most {LACKS_BYTES_MAX} bytes, and one at least")
    first = asked.number("first", PIECES_MAX)
    zone = asked.values.get("zone", "")[:ZONE_CHARS_MAX]
    piece = await resolver.flight_piece(asked.digest, peer, first=first, lacks=lacks, wait_s=wait_s, zone=zone)
    return Response(200, {}, b"") if piece is None else _piece(asked.digest, piece)


def is_piece(request: Request) -> bool:
    """Whether a peer asks for a piece: of our choice, or from a byte to another; not for all that follows one."""
    return request.path.startswith(PREFIX) or _PIECE.fullmatch(request.headers.get("range", "")) is not None


def image_of(request: Request) -> tuple[str, str]:
    """Return the registry and the repository that a peer says it asks for: for the log alone."""
    values = _read(request).values
    return values.get("ns", ""), values.get("repository", "")


def _read(request: Request) -> _Asked:
    if len(request.query) > QUERY_CHARS_MAX:
        raise Refused("UNSUPPORTED", f"a query has at most {QUERY_CHARS_MAX} characters")
    text, _, last = unquote(request.path.removeprefix(PREFIX)).partition("/")
    if last not in {"", "next"}:
        raise NotHere("this path is not one of ours")
    try:
        digest = Digest.parse(text)
    except Invalid as error:
        raise Refused(error.code, str(error)) from None
    fields = (field.partition("=") for field in request.query.split("&"))
    return _Asked(digest, last == "next", {unquote(name): unquote(value) for name, _, value in fields})


def _piece(digest: Digest, piece: Piece) -> Response:
    """Return the response that gives a piece; whether it went out whole is noted when it has ended."""
    whole = False

    async def pump(sink: Sink) -> None:
        nonlocal whole
        await sink.send_file(piece.file, piece.offset, piece.count)
        whole = True

    def close() -> None:
        piece.file.close()
        piece.ended(whole)

    headers = headers_of(Content(digest, piece.size, None))
    headers["Content-Range"] = content_range(Span(piece.offset, piece.count), piece.size)
    if piece.piece_hash is not None:
        headers[PIECE_HEADER] = piece.piece_hash.hex()
    return Response(206, headers, PumpBody(piece.count, pump, close))
