"""One question to one registry: when it may be asked, as whom, at which address, and what the answer means.

Laws:
- `Authorization` goes to the registry's own origin and to no other, whatever redirects say;
- redirects are followed a few times, never in circles, never from TLS to none, and each to an address that may be
  dialled;
- a 404 of the registry is `NotHere`; one of another host is not the registry's word;
- after a 401 the question is asked once more, with what was demanded.

Follows the OCI distribution specification and RFC 9110, section 15.4.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

import httpx
import trio

from p2pmirror.errors import NotHere, Unreachable, UpstreamRefused
from p2pmirror.telemetry import logs
from p2pmirror.upstream.answer import (
    REFUSAL_BYTES_MAX,
    Answer,
    Held,
    Paused,
    Question,
    Record,
    begin_of,
    body_of,
    drop,
    error_code,
)
from p2pmirror.upstream.auth import Authorizer
from p2pmirror.upstream.credentials.login import Login
from p2pmirror.upstream.credentials.source import NoSource, Source
from p2pmirror.upstream.dialling import NotAllowed
from p2pmirror.upstream.governor import Cost, Governor
from p2pmirror.upstream.hints import read_hints
from p2pmirror.upstream.metrics import UpstreamMetrics
from p2pmirror.upstream.options import RegistryOptions
from p2pmirror.upstream.tokens import Tokens
from p2pmirror.upstream.transport import RegistryTransport
from p2pmirror.upstream.urls import read_url
from p2pmirror.version import VERSION

REDIRECTS_MAX: Final = 5  # a registry's mirror, its blob store, that one's region: real chains have three
WAIT_S_MAX: Final = 1.0  # a shorter wait than this is waited; a longer one is the caller's matter
ACCOUNTS_MAX: Final = 8  # whose governors are remembered: files change rarely
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
USER_AGENT: Final = f"p2pmirror/{VERSION}"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class World:
    """What an asker needs besides its registry; `wall_s` is the time of day, for dates in answers."""

    metrics: UpstreamMetrics
    random: Random
    wall_s: Callable[[], float]


class Asker:
    """Asks one registry."""

    def __init__(
        self, options: RegistryOptions, transport: RegistryTransport, source: Source | NoSource, world: World
    ) -> None:
        """Ask nothing yet."""
        self.name = options.name
        self.random = world.random
        self._secure = options.is_secure
        self._transport = transport
        self._source = source
        self._world = world
        self._base = httpx.URL(options.url)
        plain_realms = options.private_addresses or not options.is_secure
        self._authorizer = Authorizer(Tokens(self._send_for_token, plain_realms=plain_realms))
        self._governors: dict[str, Governor] = {}
        self._governor = self._governor_of(None)
        self._not_allowed: str | None = None

    @property
    def is_reachable(self) -> bool:
        """Whether the last question had an answer of the registry's own."""
        return self._governor.is_reachable

    @property
    def rests_s(self) -> float:
        """For how long nothing will be asked of it, in seconds from now."""
        return max(0.0, self._governor.may_ask_at("free") - trio.current_time())

    @property
    def quota_left(self) -> int | None:
        """How many pulls are left, as the registry said last."""
        return self._governor.remaining

    def late(self) -> None:
        """Take in that somebody has given up waiting for an answer."""
        self._governor.late(trio.current_time())

    async def ask(self, question: Question) -> Answer:
        """Return the answer, a 200 or 206. Raises as `protocol.Upstream` says. Cancellation: dropped."""
        record = Record(self.name, question, self._world.metrics)
        try:
            response = await self._response(question)
            record.status = response.status_code
            try:
                await self._judge(question, response)
            except BaseException:
                await body_of(response).aclose()
                raise
            return Answer(response, record)
        except BaseException as error:
            record.status = getattr(error, "status", record.status)
            record.end(error)
            raise

    @asynccontextmanager
    async def answer(self, question: Question) -> AsyncIterator[Answer]:
        """Ask, and let go of the answer at the end. Raises as `ask`."""
        answer = await self.ask(question)
        try:
            yield answer
        except BaseException as error:
            await answer.aclose(error)
            raise
        await answer.aclose()

    async def _response(self, question: Question) -> httpx.Response:
        """Return what the registry answers when it has let us in, whatever it is."""
        login = await self._source.login()
        self._governor = governor = self._governor_of(login)
        await self._wait(governor, question.cost)
        try:
            authorization = await self._authorizer.expected(question.repository, login)
            response = await self._followed(question, authorization)
            if response.status_code == 401 and self._is_own(response.request.url):
                response = await self._let_in(question, response, login, authorization)
        except NotAllowed as error:
            self._say_not_allowed(str(error))
            raise
        except Unreachable:
            governor.failed(trio.current_time())
            raise
        return response

    async def _let_in(
        self, question: Question, refusal: httpx.Response, login: Login | None, authorization: str | None
    ) -> httpx.Response:
        """Ask again with what a 401 demands; return that 401 when nothing can be done."""
        demand = refusal.headers.get("www-authenticate", "")
        better = await self._authorizer.demanded(demand, question.repository, login, authorization)
        if better is None:
            self._source.forget()
            return refusal
        await drop(refusal)
        response = await self._followed(question, better)
        if response.status_code == 401:
            self._source.forget()
        return response

    async def _followed(self, question: Question, authorization: str | None) -> httpx.Response:
        """Send a question, and again to where the answer says, until there is one that is no redirect."""
        url = self._base.join(question.target)
        seen = {url}
        while True:
            headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **question.headers}
            if authorization is not None and self._is_own(url):
                headers["Authorization"] = authorization
            request = httpx.Request(question.method, url, headers=headers, extensions={"way": question.way})
            response = await self._transport.handle_async_request(request)
            if response.status_code not in REDIRECTS or "location" not in response.headers:
                return response
            await drop(response)
            url = self._redirected(url, response.headers["location"])
            if url in seen or len(seen) > REDIRECTS_MAX:
                raise UpstreamRefused(f"{self.name} redirects in circles or too often", status=502)
            seen.add(url)

    def _redirected(self, url: httpx.URL, location: str) -> httpx.URL:
        found = read_url(location, url, {"https"} if self._secure else {"http", "https"})
        if found is None:
            raise UpstreamRefused(f"{self.name} redirects to what is not followed", status=502)
        return found

    async def _judge(self, question: Question, response: httpx.Response) -> None:
        """Take in what an answer tells of quotas, and raise what a refusal means."""
        status, own = response.status_code, self._is_own(response.request.url)
        body = b"" if status < 400 else await begin_of(response, REFUSAL_BYTES_MAX)
        text = body.decode(errors="replace")
        if own or status >= 500:
            hints = read_hints(status, response.headers, text, self._world.wall_s())
            self._governor.answered(trio.current_time(), hints)
            if self._governor.remaining is not None:
                self._world.metrics.quota.child(self.name).set(self._governor.remaining)
        self._check_status(question, response, own=own, code=error_code(text))
        self._check_content(response)

    def _check_status(self, question: Question, response: httpx.Response, *, own: bool, code: str) -> None:
        status = response.status_code
        if status == 200 or (status == 206 and "Range" in question.headers):
            return
        if status == 404 and own:
            raise NotHere(f"{self.name} has no {question.kind} {question.repository} {question.reference}{code}")
        host = self.name if own else f"{response.request.url.host}, to which {self.name} redirects,"
        said = status if 400 <= status <= 599 and (own or status != 404) else 502
        raise UpstreamRefused(f"{host} answered {status}{code}", status=said)

    def _check_content(self, response: httpx.Response) -> None:
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise UpstreamRefused(f"{self.name} answered in an encoding that was not asked for", status=502)
        if response.headers.get("content-type", "").lower().startswith("text/html"):
            raise UpstreamRefused(f"{self.name} answered with a page for people", status=502)

    async def _wait(self, governor: Governor, cost: Cost) -> None:
        """Wait until the registry may be asked, when that is soon. Raises `Held`, `Paused`."""
        at = governor.may_ask_at(cost)
        wait = at - trio.current_time()
        if wait > (0.0 if governor.is_late else WAIT_S_MAX):  # who is to wait for a mute registry is one alone
            if governor.is_limited(cost):
                raise Held(f"{self.name} is not asked for {wait:.0f} s, as its limits want it", status=429)
            raise Paused(f"{self.name} is not asked for {wait:.0f} s, since it failed")
        if wait > 0:
            await trio.sleep_until(at)
        governor.asks(trio.current_time())

    async def _send_for_token(self, request: httpx.Request, bytes_max: int) -> tuple[int, bytes]:
        """See `tokens.Send`: one question, to which the registry's name is given; redirects are not followed."""
        record = Record(self.name, Question("token", "GET", "", ""), self._world.metrics)
        request.headers["User-Agent"] = USER_AGENT
        request.headers["Accept-Encoding"] = "identity"
        try:
            response = await self._transport.handle_async_request(request)
            status = record.status = response.status_code
            try:
                body = await begin_of(response, bytes_max)
            finally:
                await body_of(response).aclose()
        except BaseException as error:
            record.end(error)
            raise
        if status == 429 or status >= 500:
            hints = read_hints(status, response.headers, body.decode(errors="replace"), self._world.wall_s())
            self._governor.answered(trio.current_time(), hints)
        record.end(None if status == 200 else UpstreamRefused("a token", status=status))
        return status, body

    def _governor_of(self, login: Login | None) -> Governor:
        account = "" if login is None else login.account
        governor = self._governors.pop(account, None) or Governor(self._world.random)
        self._governors[account] = governor  # the last used stands last
        if len(self._governors) > ACCOUNTS_MAX:
            del self._governors[next(iter(self._governors))]
        return governor

    def _is_own(self, url: httpx.URL) -> bool:
        return (url.scheme, url.host, _port(url)) == (self._base.scheme, self._base.host, _port(self._base))

    def _say_not_allowed(self, reason: str) -> None:
        if reason != self._not_allowed:
            self._not_allowed = reason
            logs.event(_log, logging.WARNING, "upstream.address_refused", {"registry": self.name, "reason": reason})


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)
