"""Byte ranges of HTTP: what a Range header asks for, and what a Content-Range header says.

Laws:
- a Range header that cannot be understood, names another unit or asks for several ranges is ignored: the answer is the
  whole (RFC 9110 section 14.2 allows it for several, demands it for the others);
- a single range that lies outside raises, and nothing else does;
- numbers of any length are safe: a position beyond every file is only ever compared.

Follows RFC 9110 section 14. This module only thinks.
"""

import re
from dataclasses import dataclass

from p2pmirror.errors import BadRequest

DIGITS_MAX = 19  # 10^19 bytes are more than any file has; int() of thousands of digits would cost time, or raise
BEYOND = 10**DIGITS_MAX

_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_SATISFIED = re.compile(r"bytes +([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """`count` bytes from byte `offset` on; `count` is at least 1."""

    offset: int
    count: int

    @property
    def last(self) -> int:
        """Position of the last byte, inclusive, as HTTP counts."""
        return self.offset + self.count - 1


class Unsatisfiable(BadRequest):
    """The range lies outside of content that has `size` bytes: answer 416 with `content_range`."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies outside of {size} bytes")
        self.size = size

    @property
    def content_range(self) -> str:
        """Return the Content-Range that a 416 carries."""
        return f"bytes */{self.size}"


def parse_range(value: str | None, size: int) -> Span | None:
    """Return the span of a content of `size` bytes that a Range header asks for; None means the whole.

    A suffix longer than the content is the whole content as a span; a suffix of empty content is None, as no
    Content-Range can name it. Raises `Unsatisfiable`.
    """
    first, last = _single_range(value)
    if first is None and last is None:
        return None
    if first is None:
        return _suffix(last or 0, size)
    if last is not None and last < first:
        return None
    if first >= size:
        raise Unsatisfiable(size)
    end = size if last is None else min(last + 1, size)
    return Span(first, end - first)


def content_range(span: Span, size: int) -> str:
    """Return the Content-Range of a 206 that carries `span` of `size` bytes."""
    return f"bytes {span.offset}-{span.last}/{size}"


def parse_content_range(text: str) -> tuple[Span, int | None]:
    """Read the Content-Range of a 206: the span and the whole size (None where it says `*`).

    Raises ValueError when it is not a byte range, or contradicts itself.
    """
    match = _SATISFIED.fullmatch(text.strip(" \t"))
    if match is None:
        raise ValueError(f"not the content range of a 206: {text[:80]!r}")
    first, last = int(match[1]), int(match[2])
    size = None if match[3] == "*" else int(match[3])
    if last < first or (size is not None and last >= size):
        raise ValueError(f"a content range that contradicts itself: {text[:80]!r}")
    return Span(first, last - first + 1), size


def _single_range(value: str | None) -> tuple[int | None, int | None]:
    """Return (first, last) of the one range of a header, (None, None) when there is no such thing."""
    unit, equals, ranges = (value or "").partition("=")
    if not equals or unit.strip(" \t").lower() != "bytes":
        return None, None
    specs = [spec for part in ranges.split(",") if (spec := part.strip(" \t"))]  # a list may have empty elements
    match = _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if match is None:
        return None, None
    return _number(match[1]), _number(match[2])


def _number(digits: str) -> int | None:
    if not digits:
        return None
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= DIGITS_MAX else BEYOND


def _suffix(count: int, size: int) -> Span | None:
    if count == 0:
        raise Unsatisfiable(size)
    if size == 0:
        return None
    return Span(max(0, size - count), min(count, size))
