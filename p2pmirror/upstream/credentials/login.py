"""As whom a registry is asked."""

import base64
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Login:
    """A name with a password, or, where `identity_token` is set, with what stands for one at the token server."""

    username: str
    password: str = field(repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def account(self) -> str:
        """What tells accounts apart; not a secret."""
        return self.username

    @property
    def basic(self) -> str:
        """The value of `Authorization` for the scheme Basic."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class BadCredentials(Exception):
    """What is wrong with a file or a helper; quotes nothing of what it holds."""
