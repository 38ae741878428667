"""Docker's config file: who logs in where, or which helper program knows.

Laws: pure; whatever the bytes, the answer is a value or `BadCredentials`; a helper's name is a name and no path.

Follows docker/cli's `config.json` (auths, credHelpers, credsStore) and, for hosts, how it writes Docker Hub's.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from p2pmirror.upstream.credentials.login import BadCredentials, Login

CONFIG_BYTES_MAX: Final = 1 << 20  # 1 MiB: Kubernetes' own limit of a secret
DOCKER_HUB: Final = "https://index.docker.io/v1/"  # the key under which Docker keeps its own registry
TOKEN_USER: Final = "<token>"  # noqa: S105 - a name: what stands in the password's place is an identity token

_HELPER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_HUB_NAMES: Final = ("index.docker.io", "docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a config says of one registry: which helper to ask for `server`, and a login, where it has them."""

    helper: str | None = None
    server: str = ""
    login: Login | None = field(default=None)


def read_config(content: bytes, name: str, host: str) -> Entry:
    """Return what a config says of the registry `name`, asked at `host` (with its port). Raises `BadCredentials`."""
    config = _object(_decoded(content), "it")
    names = _HUB_NAMES if name == "docker.io" else tuple(dict.fromkeys((name, host)))
    helpers = _object(config.get("credHelpers"), "credHelpers")
    helper = _named(helpers, names)
    if helper is None:
        helper = config.get("credsStore") or None
    if helper is not None and (not isinstance(helper, str) or _HELPER.fullmatch(helper) is None):
        raise BadCredentials("a helper's name is not as ecr-login")
    login = _login(_named(_object(config.get("auths"), "auths"), names))
    return Entry(helper, DOCKER_HUB if name == "docker.io" else name, login)


def read_answer(content: bytes) -> Login:
    """Return what a helper answered. Raises `BadCredentials`."""
    answer = _object(_decoded(content), "its answer")
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        raise BadCredentials("its answer has no Username and Secret")
    if username == TOKEN_USER:
        return Login("", "", _printable(secret))
    return Login(_printable(username), _printable(secret))


def read_pair(content: bytes) -> Login:
    """Return the login in a line `user:password`. Raises `BadCredentials`."""
    username, colon, password = _text(content).strip("\r\n").partition(":")
    if not colon or not username.strip():
        raise BadCredentials("it is not one line user:password")
    return Login(_printable(username.strip()), _printable(password))


def read_basic(username: bytes, password: bytes) -> Login:
    """Return the login in the two files of a basic-auth secret. Raises `BadCredentials`."""
    name = _text(username).strip()
    if not name:
        raise BadCredentials("its username is empty")
    return Login(_printable(name), _printable(_text(password).strip("\r\n")))


def _login(entry: object) -> Login | None:
    fields = _object(entry, "an entry of auths")
    token = fields.get("identitytoken")
    username, password = fields.get("username"), fields.get("password")
    if encoded := fields.get("auth"):
        username, password = _pair(encoded)
    if isinstance(token, str) and token:
        return Login(username if isinstance(username, str) else "", "", _printable(token))
    if not isinstance(username, str) or not isinstance(password, str) or not username:
        return None
    return Login(_printable(username), _printable(password))


def _pair(encoded: object) -> tuple[str, str]:
    try:
        text = base64.b64decode(str(encoded), validate=True).decode()
    except (binascii.Error, ValueError):
        raise BadCredentials("an auth of auths is not the base64 of user:password") from None
    username, colon, password = text.partition(":")
    if not colon:
        raise BadCredentials("an auth of auths is not the base64 of user:password")
    return username, password.strip("\0")  # as Docker itself, which once wrote them


def _named(table: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the entry of a registry: by one of its names, else by a URL of one."""
    wanted = list(names)
    for name in wanted:
        if name in table:
            return table[name]
    for key, value in table.items():
        if _host_of(key) in wanted:
            return value
    return None


def _host_of(key: str) -> str | None:
    """Return the host of a key written as a URL, or with a version behind it; None for a key with another path."""
    try:
        parts = urlsplit(key if "://" in key else f"//{key}")
    except ValueError:
        return None
    return parts.netloc.lower() if parts.path.strip("/") in {"", "v1", "v2"} else None


def _decoded(content: bytes) -> object:
    try:
        return json.loads(_text(content))
    except (ValueError, RecursionError):
        raise BadCredentials("it is not JSON") from None


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadCredentials("it is not text") from None


def _object(value: object, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadCredentials(f"{what} is not a JSON object")
    return value


def _printable(text: str) -> str:
    if not text.isprintable():
        raise BadCredentials("it holds characters that cannot be printed")
    return text
