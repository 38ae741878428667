"""Heads of HTTP/1.1 messages as the server reads and writes them; no I/O.

Laws:
- h11 parses: what it does not accept is never seen by a handler;
- a request that brings a body is refused (413), one whose head is too large is refused (431);
- a response's head has exactly the lines that were meant: a CR, LF or NUL in any field is an error of ours, not a line;
- Content-Length is always there and never lies: for HEAD it is that of GET.

Follows RFC 9112 (syntax), RFC 9110 sections 6.4.1 and 8.6 (which responses have content, Content-Length).
"""

import re
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import h11

from p2pmirror.wire.address import Address
from p2pmirror.wire.http import Request, Response

FIELDS_MAX = 100  # containerd sends about 8; each costs microseconds and joining repeated ones more than that

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\nDate: " for status in HTTPStatus}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SERVERS_OWN = frozenset({"connection", "date", "keep-alive", "transfer-encoding", "upgrade"})


class Refused(Exception):
    """A request that no handler sees: answer `status` and close."""

    def __init__(self, status: int, text: str, *, bodiless: bool = False) -> None:
        """`bodiless`: the request was a HEAD, as far as that is known."""
        super().__init__(text)
        self.status = status
        self.bodiless = bodiless


class DateLine:
    """The current Date, formatted once a second."""

    __slots__ = ("_second", "_text", "_wall_s")

    def __init__(self, wall_s: Callable[[], float]) -> None:
        """`wall_s` gives seconds since 1970."""
        self._wall_s = wall_s
        self._second = -1
        self._text = ""

    def text(self) -> str:
        """Return the date in the form of RFC 9110 section 5.6.7."""
        second = int(self._wall_s())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True)
        return self._text


def request_of(event: h11.Request, *, remote: Address, local: Address) -> tuple[Request, bool]:
    """Turn h11's event into a request; the bool says whether the client wants the connection kept.

    Raises `Refused`.
    """
    method = event.method.decode("ascii")
    fields = event.headers.raw_items()
    if len(fields) > FIELDS_MAX:
        raise Refused(431, "too many header fields", bodiless=method == "HEAD")
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers or headers.get("content-length", "0").strip("0"):
        raise Refused(413, "requests to this server have no body", bodiless=method == "HEAD")
    path, query = _path_and_query(method, event.target.decode("ascii"))
    return Request(method, path, query, headers, remote, local), _wants_kept(event.http_version, headers)


def response_head(response: Response, *, method: str, date: str, connection: str | None) -> tuple[bytes, bool]:
    """Build a response's head; the bool says whether its body follows.

    `connection` is the value of the Connection field, or None for no such field. Raises ValueError when the response
    cannot be said in HTTP (a line break in a field, a wrong length, a body where none may be): a bug of its maker.
    """
    try:
        lines = [_STATUS_LINES[response.status], date, "\r\n"]
    except KeyError:
        raise ValueError(f"no such HTTP status: {response.status}") from None
    declared: str | None = None
    for name, value in response.headers.items():
        if _known_field(name) == "content-length":
            declared = value
        else:
            lines += (name, ": ", value, "\r\n")
    length, body_follows = _length(response, method, declared)
    if length is not None:
        lines += ("Content-Length: ", length, "\r\n")
    if connection is not None:
        lines += ("Connection: ", connection, "\r\n")
    lines.append("\r\n")
    text = "".join(lines)
    line_count = 3 + len(response.headers) - (declared is not None) + (length is not None) + (connection is not None)
    if not text.count("\r\n") == text.count("\r") == text.count("\n") == line_count or "\0" in text:
        raise ValueError(f"a field of this response breaks its line: {response.headers!r}")
    return text.encode("latin-1"), body_follows


def body_count(response: Response) -> int:
    """Return how many bytes the response's body has."""
    body = response.body
    return len(body) if isinstance(body, bytes) else body.count


def _length(response: Response, method: str, declared: str | None) -> tuple[str | None, bool]:
    """Return the value of Content-Length (None: no such field) and whether the body is sent."""
    count = body_count(response)
    if declared is not None and not (declared.isascii() and declared.isdigit()):
        raise ValueError(f"not a content length: {declared!r}")
    if response.status in (204, 304):
        if count or (declared is not None and response.status == 204):
            raise ValueError(f"a response with status {response.status} has no content")
        return declared, False
    if response.status < 200:
        raise ValueError(f"status {response.status} ends no response")
    if method == "HEAD":
        return declared or str(count), False
    if declared is not None and int(declared) != count:
        raise ValueError(f"content length {declared} for a body of {count} bytes")
    return str(count), True


@lru_cache(maxsize=256)  # names come from our own code, a few dozen; the cache is what makes the check free
def _known_field(name: str) -> str:
    """Return the name in lower case; ValueError when it is none, or belongs to the server."""
    lower = name.lower()
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"not a header field's name: {name!r}")
    if lower in _SERVERS_OWN:
        raise ValueError(f"the server itself writes the field {name}")
    return lower


def _path_and_query(method: str, target: str) -> tuple[str, str]:
    """Split a target in origin form, absolute form or `*`; Refused for anything else (RFC 9112 section 3.2)."""
    if target[:7].lower() == "http://" or target[:8].lower() == "https://":
        _, slash, rest = target.partition("//")[2].partition("/")
        target = slash + rest or "/"
    if not target.startswith("/") and not (target == "*" and method == "OPTIONS"):
        raise Refused(400, "the request's target is not a path", bodiless=method == "HEAD")
    path, _, query = target.partition("?")
    return path, query


def _wants_kept(http_version: bytes, headers: dict[str, str]) -> bool:
    connection = headers.get("connection")
    if connection is None:
        return http_version >= b"1.1"
    options = {option.strip().lower() for option in connection.split(",")}
    return "close" not in options and (http_version >= b"1.1" or "keep-alive" in options)
