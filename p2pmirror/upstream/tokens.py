"""Tokens: fetched from token servers, kept until they run out, each fetch shared by all who wait for it.

Laws:
- a token belongs to (realm, service, scope, account): nobody is given another's;
- one fetch at a time for each; all who wait share its outcome, a failure too; whoever fetches and is cancelled leaves
  the fetch to the next who waits;
- a realm is asked over TLS, unless the registry itself is not, or is one of the own network (`private_addresses`);
- what is shown of a token is its length.

Follows the distribution project's specifications of token authentication (token.md, oauth.md).
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx
import trio

from p2pmirror.errors import MirrorError, UpstreamRefused
from p2pmirror.upstream.challenge import Challenge
from p2pmirror.upstream.credentials.login import Login
from p2pmirror.upstream.urls import read_url

CLIENT_ID: Final = "p2pmirror"
TOKENS_MAX: Final = 1024  # kept at a time: one a repository and account
ANSWER_BYTES_MAX: Final = 64 << 10  # 64 KiB: the longest tokens have 8
TEXT_CHARS_MAX: Final = 2048  # of a realm, a service, a scope: real ones have 200
EXPIRES_S_MIN: Final = 60.0  # what is said to live shorter lives so long all the same (token.md, `expires_in`)
EXPIRES_S_MAX: Final = 3600.0  # a longer life is not relied on: the account may be locked meanwhile
MARGIN_RATIO: Final = 0.1  # of its life, in which a token is not used any more: the question still has to get there

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,32768}")

Send = Callable[[httpx.Request, int], Awaitable[tuple[int, bytes]]]
"""Sends a request to a token server and returns the status and at most so many bytes of the body."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """What a token is for."""

    realm: str
    service: str
    scope: str
    account: str


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    until: float  # on trio's clock


class _Fetch:
    """One fetch under way, and how it ended; without either outcome it was left."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.token: _Token | None = None
        self.failure: MirrorError | None = None


class Tokens:
    """All tokens of one node's way to a registry."""

    def __init__(self, send: Send, *, plain_realms: bool) -> None:
        """`plain_realms`: token servers may be asked without TLS."""
        self._send = send
        self._plain_realms = plain_realms
        self._kept: dict[TokenKey, _Token] = {}
        self._fetches: dict[TokenKey, _Fetch] = {}

    async def get(self, key: TokenKey, login: Login | None, *, refused: str | None = None) -> str:
        """Return a token, not the `refused` one. Raises `UpstreamRefused`, `Unreachable`. Cancelled, others go on."""
        while True:
            kept = self._kept.get(key)
            if kept is not None and kept.text != refused and trio.current_time() < kept.until:
                return kept.text
            fetch = self._fetches.get(key)
            if fetch is None:
                return (await self._lead(key, login)).text
            await fetch.ended.wait()
            if fetch.failure is not None:
                raise _again(fetch.failure)
            if fetch.token is not None:
                return fetch.token.text

    async def _lead(self, key: TokenKey, login: Login | None) -> _Token:
        fetch = self._fetches[key] = _Fetch()
        try:
            fetch.token = await self._fetch(key, login)
        except MirrorError as error:
            fetch.failure = error
            raise
        finally:
            del self._fetches[key]
            fetch.ended.set()
        self._keep(key, fetch.token)
        return fetch.token

    def _keep(self, key: TokenKey, token: _Token) -> None:
        self._kept.pop(key, None)
        self._kept[key] = token
        if len(self._kept) > TOKENS_MAX:
            del self._kept[next(iter(self._kept))]

    async def _fetch(self, key: TokenKey, login: Login | None) -> _Token:
        realm = _realm(key.realm, plain=self._plain_realms)
        status, body = await self._send(_request(realm, key, login), ANSWER_BYTES_MAX + 1)
        if status != 200:
            raise _refusal(realm.host, status)
        return _token(realm.host, body, trio.current_time())


def key_of(challenge: Challenge, repository: str, login: Login | None) -> TokenKey:
    """Return what a Bearer challenge asks a token for. Raises `UpstreamRefused` when it cannot be meant."""
    scope = challenge.parameters.get("scope") or f"repository:{repository}:pull"
    texts = (challenge.parameters.get("realm", ""), challenge.parameters.get("service", ""), scope)
    if any(len(text) > TEXT_CHARS_MAX or not text.isprintable() for text in texts):
        raise UpstreamRefused("the registry's challenge cannot be read", status=502)
    return TokenKey(*texts, "" if login is None else login.account)


def _realm(text: str, *, plain: bool) -> httpx.URL:
    realm = read_url(text, None, {"http", "https"} if plain else {"https"})
    if realm is None:
        raise UpstreamRefused("the registry's token server is none that is asked", status=502)
    return realm


def _request(realm: httpx.URL, key: TokenKey, login: Login | None) -> httpx.Request:
    headers = {"Accept": "application/json"}
    if login is not None and login.identity_token is not None:
        form = {
            "grant_type": "refresh_token",
            "service": key.service,
            "scope": key.scope,
            "client_id": CLIENT_ID,
            "refresh_token": login.identity_token,
        }
        return httpx.Request("POST", realm, data=form, headers=headers)
    # A scope may be several, which Docker asks for one by one.
    asked: list[tuple[str, str | int | float | bool | None]] = [("scope", each) for each in key.scope.split()]
    if key.service:
        asked.append(("service", key.service))
    if login is not None:
        asked.append(("account", login.account))
        headers["Authorization"] = login.basic
    return httpx.Request("GET", realm.copy_merge_params(asked), headers=headers)


def _refusal(host: str, status: int) -> UpstreamRefused:
    said = status if status in {401, 403, 429} or 500 <= status <= 599 else 502
    return UpstreamRefused(f"the token server {host} answered {status}", status=said)


def _token(host: str, body: bytes, now: float) -> _Token:
    wrong = UpstreamRefused(f"the token server {host} answered with what is no token", status=502)
    if len(body) > ANSWER_BYTES_MAX:
        raise wrong
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise wrong from None
    if not isinstance(answer, Mapping):
        raise wrong
    text = answer.get("token") or answer.get("access_token")
    if not isinstance(text, str) or _TOKEN.fullmatch(text) is None:
        raise wrong
    life = _life(answer.get("expires_in"))
    return _Token(text, now + life * (1 - MARGIN_RATIO))


def _life(expires_in: object) -> float:
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or expires_in != expires_in:  # noqa: PLR0124 - NaN
        return EXPIRES_S_MIN
    return min(EXPIRES_S_MAX, max(EXPIRES_S_MIN, expires_in))


def _again(error: MirrorError) -> MirrorError:
    """Return the same failure for one more who waited: an exception belongs to one task."""
    if isinstance(error, UpstreamRefused):
        return UpstreamRefused(str(error), status=error.status)
    return type(error)(str(error))
