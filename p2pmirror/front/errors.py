"""The one table from what went wrong to what HTTP says about it.

Laws:
- containerd is sent on quickly: 404 where it has somewhere else to go, 503 only where it was told to have nothing else;
- never a challenge (WWW-Authenticate): containerd would answer it with the user's credentials for another registry;
- every error has an OCI error body, except after HEAD, whose answer has the length of that body and not the body.

Follows the OCI distribution specification, section "Error Codes", and DESIGN.md, section "Errors".
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pmirror.errors import BadRequest, MirrorError, NotHere, UpstreamRefused
from p2pmirror.front.journal import Kind, Outcome
from p2pmirror.oci import Invalid, NotAPath
from p2pmirror.peers.protocol import Follow, RegistrySaid
from p2pmirror.wire.http import Response
from p2pmirror.wire.identity import HOLDERS_HEADER, LEADER_HEADER, UPSTREAM_HEADER, NodeId
from p2pmirror.wire.ranges import Unsatisfiable

MESSAGE_CHARS_MAX: Final = 300  # a sentence with a digest in it; it goes to a client's terminal and log
READS: Final = ("GET", "HEAD")
API_VERSION: Final = "registry/2.0"  # what clients older than the OCI specification look for

_UNKNOWN: Final[dict[Kind, str]] = {
    "manifest": "MANIFEST_UNKNOWN",
    "blob": "BLOB_UNKNOWN",
    "referrers": "MANIFEST_UNKNOWN",
}
_UPSTREAM: Final = {401: (403, "DENIED"), 403: (403, "DENIED"), 404: (404, ""), 429: (429, "TOOMANYREQUESTS")}


class Refused(BadRequest):
    """A request that the front itself refuses, with the status and the OCI error code to say so."""

    def __init__(self, code: str, message: str, *, status: int = 400, allowed: Sequence[str] = READS) -> None:
        """`code` is the OCI error code; `allowed`: the methods that would do, where the status is 405."""
        super().__init__(message)
        self.code = code
        self.status = status
        self.allowed = allowed


class Occupied(MirrorError):
    """As many pieces go out to peers as may; these have taken the same before. For peers alone."""

    def __init__(self, message: str, holders: Sequence[NodeId]) -> None:
        """`holders` are the nodes to ask instead."""
        super().__init__(message)
        self.holders = tuple(holders)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said about an error; `headers` beyond those of every answer."""

    status: int
    code: str
    outcome: Outcome
    headers: dict[str, str] = field(default_factory=dict)


def judge(error: MirrorError | Invalid, kind: Kind, *, fallback: bool) -> Verdict:
    """Return the verdict on an error that was met before the head; `fallback`: containerd has somewhere else to go."""
    unknown = _UNKNOWN.get(kind, "NAME_UNKNOWN")
    match error:
        case NotAPath():
            return Verdict(404, "UNSUPPORTED", "refused")
        case Invalid():
            return Verdict(400, error.code, "refused")
        case Refused():
            allow = {"Allow": ", ".join(error.allowed)} if error.status == 405 else {}
            return Verdict(error.status, error.code, "refused", allow)
        case Unsatisfiable():
            return Verdict(416, "RANGE_INVALID", "refused", {"Content-Range": error.content_range})
        case BadRequest():
            return Verdict(400, "UNSUPPORTED", "refused")
        case Follow():
            return Verdict(503, "UNAVAILABLE", "miss", {"Retry-After": "1", LEADER_HEADER: error.leader.hex()})
        case Occupied():
            named = {HOLDERS_HEADER: ", ".join(each.hex() for each in error.holders)} if error.holders else {}
            return Verdict(503, "UNAVAILABLE", "refused", {"Retry-After": "1", **named})
        case RegistrySaid():
            outcome: Outcome = "miss" if error.status == 404 else "error"
            return Verdict(404, unknown, outcome, {UPSTREAM_HEADER: str(error.status)})
        case NotHere():
            return Verdict(404, unknown, "miss")
        case UpstreamRefused() if not fallback and error.status in _UPSTREAM:
            status, code = _UPSTREAM[error.status]
            return Verdict(status, code or unknown, "miss" if status == 404 else "error")
        case _ if fallback:
            return Verdict(404, unknown, "error")
        case _:  # Unreachable, PeerMisbehaved, StoreFull: trouble that may be over in a second
            return Verdict(503, "UNAVAILABLE", "error", {"Retry-After": "1"})


def response(verdict: Verdict, message: str, *, head: bool, attempts: int | None = None) -> Response:
    """Build the answer: an OCI error body, or for HEAD only its length. `attempts`: how many peers were asked."""
    error: dict[str, object] = {"code": verdict.code, "message": message[:MESSAGE_CHARS_MAX]}
    if attempts is not None:
        error["detail"] = {"attempts": attempts}
    body = json.dumps({"errors": [error]}, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Docker-Distribution-Api-Version": API_VERSION,
        **verdict.headers,
    }
    return Response(verdict.status, headers, b"" if head else body)
