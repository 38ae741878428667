"""What the API sends: the fields that we read of its objects, and what it says when it refuses.

Laws: fields that we do not know are passed over; absent ones, and null in place of a list (as Go writes an empty one),
have their defaults; anything else than JSON of the expected shape is `NoObject`, in one line.

Follows Kubernetes' "API Concepts" and the reference of `discovery.k8s.io/v1` and `apps/v1`.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from p2pmirror.errors import MirrorError, PeerMisbehaved

SAID_CHARACTERS_MAX: Final = 300  # of the API's own words, in a log
RETRY_S_MAX: Final = 120.0  # of `Retry-After`; real ones say 1 to 30

_Kind = TypeVar("_Kind")


class NoObject(PeerMisbehaved):
    """What came is no object of the kind that was asked for."""


class ApiRefused(MirrorError):
    """The API answered with an error; `status` is its HTTP code, `retry_s` for how long it wants to be left alone."""

    def __init__(self, message: str, *, status: int, retry_s: float = 0.0) -> None:
        """Keep what the API said."""
        super().__init__(message)
        self.status = status
        self.retry_s = retry_s


class Gone(ApiRefused):
    """410: what the question builds upon (a version, a page) is too old to be known; list again."""


class Metadata(msgspec.Struct, rename="camel"):
    """Of an object or of a list."""

    name: str = ""
    resource_version: str = ""
    generation: int = 0
    continue_: str = msgspec.field(default="", name="continue")


class Conditions(msgspec.Struct):
    """Of an endpoint; we follow nobody who is leaving."""

    terminating: bool | None = None


class Endpoint(msgspec.Struct):
    """One pod of a service; its addresses stand for one another."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None


class Port(msgspec.Struct):
    """A port of every endpoint of a slice; without a number it is all ports."""

    name: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct, rename="camel"):
    """A part of a service's endpoints, of one family of addresses."""

    metadata: Metadata
    address_type: str = ""
    endpoints: list[Endpoint] | None = None
    ports: list[Port] | None = None


class EndpointSlices(msgspec.Struct):
    """A page of a list."""

    metadata: Metadata
    items: list[EndpointSlice] | None = None


class RolloutStatus(msgspec.Struct, rename="camel"):
    """How far a DaemonSet is."""

    observed_generation: int = 0
    desired_number_scheduled: int = 0
    number_ready: int = 0


class DaemonSet(msgspec.Struct):
    """A pod on every node."""

    metadata: Metadata
    status: RolloutStatus = msgspec.field(default_factory=RolloutStatus)


class Event(msgspec.Struct):
    """One line of a watch; what `object` is depends on `type`."""

    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int | None = None
    message: str | None = None


class _Versioned(msgspec.Struct):
    metadata: Metadata


def decode(data: bytes | msgspec.Raw, kind: type[_Kind]) -> _Kind:
    """Return the object that JSON stands for. Raises `NoObject`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        what = kind.__name__.strip("_")
        raise NoObject(f"what came is no {what}: {said(str(error))}") from None


def version_of(data: msgspec.Raw) -> str:
    """Return the version that a bookmark's object carries. Raises `NoObject`."""
    return decode(data, _Versioned).metadata.resource_version


def error_of(data: msgspec.Raw) -> ApiRefused:
    """Return what an ERROR event of a watch says. Raises `NoObject`."""
    status = decode(data, _Status)
    return refusal(status.code or 0, status.message or "")


def refusal_of(status: int, headers: Mapping[str, str], body: bytes) -> ApiRefused:
    """Return what an answer that is not 200 says; whoever stands in front of an API may send any body."""
    try:
        message = decode(body, _Status).message or ""
    except NoObject:
        message = ""
    return refusal(status, message, _retry_s(headers.get("retry-after", "")))


def refusal(status: int, message: str, retry_s: float = 0.0) -> ApiRefused:
    """Return the error for an HTTP code and the API's words."""
    kind = Gone if status == 410 else ApiRefused
    text = said(message)
    return kind(
        f"the API answered {status or 'with an error'}{': ' if text else ''}{text}", status=status, retry_s=retry_s
    )


def said(text: str) -> str:
    """Return foreign words for one line of a log, shortened."""
    plain = "".join(each if each.isprintable() else "?" for each in text[:SAID_CHARACTERS_MAX])
    return plain if len(text) <= SAID_CHARACTERS_MAX else f"{plain}…"


def _retry_s(text: str) -> float:
    """Read `Retry-After` in seconds, which is all that the API sends (RFC 9110 section 10.2.3 knows dates, too)."""
    return min(float(text), RETRY_S_MAX) if text.isascii() and text.isdigit() else 0.0
