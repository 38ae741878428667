"""The observability port: which page or fact a request gets.

Laws: nothing here changes anything, so only GET and HEAD are answered; a wrong request gets one line that says what is
wrong; every answer says how it is to be read (no sniffing), and that it is old at once.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from prometheus_client.exposition import choose_encoder

from p2pmirror.errors import BadRequest, MirrorError
from p2pmirror.oci.paths import HARBOR_PING
from p2pmirror.web import page
from p2pmirror.web.facts import Facts
from p2pmirror.web.finding import Finder
from p2pmirror.web.tasks import task_tree
from p2pmirror.wire.http import Request, Response

QUERY_CHARS_MAX: Final = 4_096  # a reference of 1,024 characters, percent-encoded
QUERY_FIELDS_MAX: Final = 10

_TEXT: Final = "text/plain; charset=utf-8"
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_BARE_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"

_Answer = Callable[[Request], Awaitable[Response]]


class Web:
    """Answers the observability port: `handle` is its handler."""

    def __init__(self, facts: Facts, *, default_registry: str = "docker.io") -> None:
        """Answer from `facts`; `default_registry` is that of references without one."""
        self._facts = facts
        self._finder = Finder(facts.store, facts.router, default_registry)
        self._answers: dict[str, _Answer] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/livez": self._livez,
            "/readyz": self._readyz,
            HARBOR_PING: self._ping,
            "/api/v1/status": _of(facts.status),
            "/api/v1/members": _of(lambda: {"members": facts.members()}),
            "/api/v1/transfers": _of(lambda: {"transfers": facts.running()}),
            "/api/v1/requests": _of(lambda: _recent(facts)),
            "/api/v1/peers": _of(lambda: {"peers": facts.peers()}),
            "/api/v1/find": self._find,
            "/debug/tasks": self._tasks,
        }

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        answer = self._answers.get(request.path)
        if answer is None:
            return _text(404, "there is no such page; see /\n")
        if request.method not in ("GET", "HEAD"):
            refusal = _text(405, "this is only read from\n")
            refusal.headers["Allow"] = "GET, HEAD"
            return refusal
        try:
            return await answer(request)
        except MirrorError as error:
            return _json(400 if isinstance(error, BadRequest) else 503, {"error": str(error)})

    async def _page(self, request: Request) -> Response:  # noqa: ARG002  # every answer is asked the same way
        facts, identity = self._facts, self._facts.identity
        about = {
            "node": identity.node_id.hex(),
            "registry": str(identity.registry_address),
            "router": str(identity.router_address),
            "zone": identity.zone or "-",
            "version": identity.version,
        }
        html = page.render(facts.status(), _recent(facts), about, facts.uptime_s())
        return _response(200, "text/html; charset=utf-8", html, page.POLICY)

    async def _metrics(self, request: Request) -> Response:
        # Only the choice between the two formats is taken from the client, never its version or escaping.
        wants_open = "application/openmetrics-text" in request.headers.get("accept", "")
        encode, content_type = choose_encoder("application/openmetrics-text" if wants_open else "")
        return Response(200, {"Content-Type": content_type, **_HEADERS}, encode(self._facts.registry))

    async def _livez(self, request: Request) -> Response:  # noqa: ARG002  # every answer is asked the same way
        return _text(200, "alive\n")

    async def _ping(self, request: Request) -> Response:  # noqa: ARG002  # every answer is asked the same way
        return _text(200, "Pong")

    async def _readyz(self, request: Request) -> Response:
        reasons = list(self._facts.readiness())
        status = 503 if reasons else 200
        if "application/json" in request.headers.get("accept", ""):
            return _json(status, {"ready": not reasons, "reasons": reasons})
        return _text(status, "".join(f"{reason}\n" for reason in reasons) or "ready\n")

    async def _find(self, request: Request) -> Response:
        query = _query(request.query)
        trace = _switch(query, "trace")
        return _json(200, await self._finder.find(ref=query.get("ref"), digest=query.get("digest"), trace=trace))

    async def _tasks(self, request: Request) -> Response:  # noqa: ARG002  # every answer is asked the same way
        return _text(200, task_tree())


def _recent(facts: Facts) -> dict[str, Any]:
    return {"requests": facts.requests(), "sources": facts.sources()}


def _of(fact: Callable[[], dict[str, Any]]) -> _Answer:
    async def answer(request: Request) -> Response:  # noqa: ARG001  # every answer is asked the same way
        return _json(200, fact())

    return answer


def _query(text: str) -> dict[str, str]:
    if len(text) > QUERY_CHARS_MAX:
        raise BadRequest(f"a query has at most {QUERY_CHARS_MAX} characters")
    try:
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise BadRequest(f"a query has at most {QUERY_FIELDS_MAX} fields") from None
    return {name: values[0] for name, values in fields.items()}


def _switch(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "0")
    if value not in ("0", "1"):
        raise BadRequest(f"{name}= is 0 or 1")
    return value == "1"


def _json(status: int, value: dict[str, Any]) -> Response:
    return _response(status, "application/json", json.dumps(value, allow_nan=False) + "\n", _BARE_POLICY)


def _text(status: int, text: str) -> Response:
    return _response(status, _TEXT, text, _BARE_POLICY)


def _response(status: int, content_type: str, text: str, policy: str) -> Response:
    headers = {"Content-Type": content_type, **_HEADERS, "Content-Security-Policy": policy}
    return Response(status, headers, text.encode("utf-8", "replace"))
