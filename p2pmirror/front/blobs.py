"""Answers with a blob or a part of one.

Laws: a range that was understood is answered with 206, also when it is the whole (containerd's `bytes=0-`); a range
under a condition that does not hold is ignored; HEAD has no ranges.

Follows the OCI distribution specification, section "Pulling blobs", and RFC 9110, sections 13.1.5 and 14.
"""

from collections.abc import Mapping

from p2pmirror.front.content import headers_of, release
from p2pmirror.oci import Digest
from p2pmirror.resolve.want import Arriving, Found, Held, InHand
from p2pmirror.wire.http import Body, FileBody, PumpBody, Response
from p2pmirror.wire.ranges import Span, content_range, parse_range


def range_asked(headers: Mapping[str, str], digest: Digest, *, head: bool) -> str | None:
    """Return the Range header, None when there is none that counts."""
    value = headers.get("range")
    if value is None or head:
        return None
    condition = headers.get("if-range")
    return value if condition is None or condition.strip() == f'"{digest}"' else None


def answer(found: Found, byte_range: str | None) -> Response:
    """Return the response, which owns what was found from now on; raises `Unsatisfiable`, upon which it is let go."""
    size = found.content.size
    try:
        asked = None if byte_range is None else parse_range(byte_range, size)
    except BaseException:
        release(found)
        raise
    headers = headers_of(found.content)
    headers["Accept-Ranges"] = "bytes"
    span, body = _part(found, asked)
    if span is None:
        return Response(200, headers, body)
    headers["Content-Range"] = content_range(span, size)
    return Response(206, headers, body)


def _part(found: Found, asked: Span | None) -> tuple[Span | None, Body]:
    """Return the body, and which part of the content it is (None: the whole, and no part was asked for)."""
    if isinstance(found, Arriving):
        # Whoever asked the peer settled the range; only whether the whole was asked for as a part is left to see.
        span = Span(found.start, found.end - found.start)
        is_whole = span.count == found.content.size and span != asked
        return None if is_whole else span, PumpBody(span.count, found.pump, found.close)
    offset, count = (0, found.content.size) if asked is None else (asked.offset, asked.count)
    return asked, _bytes_of(found, offset, count)


def _bytes_of(found: Held | InHand, offset: int, count: int) -> Body:
    if isinstance(found, Held):
        return FileBody(found.file, offset, count)
    return found.data[offset : offset + count]
