"""What goes into `Authorization`: nothing, a password (Basic) or a token (Bearer), as the registry demanded before.

Laws: nothing is sent before the registry has demanded it once; what it demanded of one repository is expected for the
next, which saves a question; a demand that cannot be met is no header, and the registry's 401 stands.
"""

from dataclasses import dataclass
from typing import Final

from p2pmirror.upstream.challenge import Challenge, parse_challenges
from p2pmirror.upstream.credentials.login import Login
from p2pmirror.upstream.tokens import TokenKey, Tokens, key_of

SCOPES_MAX: Final = 1024  # remembered: one a repository


@dataclass(frozen=True, slots=True)
class _Demand:
    """What the registry demanded last: `bearer` is what of its challenge holds for all repositories."""

    scheme: str
    realm: str = ""
    service: str = ""


class Authorizer:
    """Knows what one registry demands."""

    def __init__(self, tokens: Tokens) -> None:
        """Take tokens from `tokens`."""
        self._tokens = tokens
        self._demand: _Demand | None = None
        self._scopes: dict[str, str] = {}  # repository -> the scope that was demanded for it

    async def expected(self, repository: str, login: Login | None) -> str | None:
        """Return the header that the registry will demand, by what it did before. Raises as `Tokens.get`."""
        demand = self._demand
        if demand is None:
            return None
        if demand.scheme == "basic":
            return None if login is None else login.basic
        scope = self._scopes.get(repository, f"repository:{repository}:pull")
        account = "" if login is None else login.account
        return await self._bearer(TokenKey(demand.realm, demand.service, scope, account), login, None)

    async def demanded(self, field: str, repository: str, login: Login | None, refused: str | None) -> str | None:
        """Return the header that answers a 401's `WWW-Authenticate`, unlike the `refused` one; None: there is none.

        Raises as `Tokens.get`.
        """
        challenges = {each.scheme: each for each in reversed(parse_challenges(field))}
        if (bearer := challenges.get("bearer")) is not None and bearer.parameters.get("realm"):
            return await self._answer_bearer(bearer, repository, login, refused)
        if "basic" in challenges and login is not None and not login.identity_token:
            self._demand = _Demand("basic")
            return None if login.basic == refused else login.basic
        return None

    async def _answer_bearer(
        self, challenge: Challenge, repository: str, login: Login | None, refused: str | None
    ) -> str | None:
        key = key_of(challenge, repository, login)
        header = await self._bearer(key, login, None if refused is None else refused.removeprefix("Bearer "))
        self._demand = _Demand("bearer", key.realm, key.service)
        self._scopes.pop(repository, None)
        self._scopes[repository] = key.scope
        if len(self._scopes) > SCOPES_MAX:
            del self._scopes[next(iter(self._scopes))]
        return header

    async def _bearer(self, key: TokenKey, login: Login | None, refused: str | None) -> str:
        return "Bearer " + await self._tokens.get(key, login, refused=refused)
