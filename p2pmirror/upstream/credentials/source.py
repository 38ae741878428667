"""A registry's login, kept equal to the files that it stands in.

Laws:
- the files are looked at when a login is needed, at most every `LOOK_S`, and read again when they have changed;
- what is broken or absent is said once and nobody is logged in meanwhile: a pull of a public image goes on;
- a helper's answer counts for `HELPER_ANSWER_S`, since helpers do not say how long theirs does.
"""

import logging
from pathlib import Path
from typing import Final

import trio

from p2pmirror.errors import MirrorError
from p2pmirror.store.files import Files, Stat
from p2pmirror.telemetry import logs
from p2pmirror.upstream.credentials.dockerconfig import (
    CONFIG_BYTES_MAX,
    Entry,
    read_basic,
    read_config,
    read_pair,
)
from p2pmirror.upstream.credentials.helper import AskHelper
from p2pmirror.upstream.credentials.login import BadCredentials, Login
from p2pmirror.upstream.credentials.setting import CredentialsSetting

LOOK_S: Final = 2.0  # as for the key file: Kubernetes itself takes up to a minute
HELPER_ANSWER_S: Final = 300.0  # the shortest-lived answers (cloud tokens) live 15 minutes and more

_SECRET_CONFIG: Final = ".dockerconfigjson"  # noqa: S105 - a file's name

_log = logging.getLogger(__name__)


class NoSource:
    """A registry without credentials."""

    async def login(self) -> Login | None:
        """Return None."""
        return None

    def forget(self) -> None:
        """Do nothing."""


class Source:
    """The login of the registry `name`, asked at `host` (with its port)."""

    def __init__(self, setting: CredentialsSetting, name: str, host: str, files: Files, ask_helper: AskHelper) -> None:
        """Look at nothing yet."""
        self._setting = setting
        self._name = name
        self._host = host
        self._files = files
        self._ask_helper = ask_helper
        self._login: Login | None = None
        self._state: list[Stat | None] | None = None
        self._looked = float("-inf")
        self._expires = float("inf")
        self._complaint: str | None = None
        self._looking = trio.Lock()

    async def login(self) -> Login | None:
        """Return the login as it is now; None for nobody. Takes the helper's time where one is asked.

        Cancelled, nothing has changed and the next one looks.
        """
        if trio.current_time() < self._looked + LOOK_S:
            return self._login
        async with self._looking:
            if trio.current_time() >= self._looked + LOOK_S:
                await self._look()
        return self._login

    def forget(self) -> None:
        """Ask again at the next look: the registry refused this login."""
        self._expires = float("-inf")

    async def _look(self) -> None:
        state = await self._files.stat(self._paths())
        now = trio.current_time()
        if state != self._state or now >= self._expires:
            try:
                login, expires = await self._read()
            except BadCredentials as error:
                login, expires = None, now + HELPER_ANSWER_S
                self._complain(str(error))
            else:
                self._content()
            self._login, self._expires, self._state = login, expires, state
        self._looked = now

    def _paths(self) -> list[Path]:
        path = self._setting.path
        if self._setting.kind != "kubernetes-secret":
            return [path]
        return [path, path / _SECRET_CONFIG, path / "username", path / "password"]

    async def _read(self) -> tuple[Login | None, float]:
        """Return the login and until when it counts."""
        path = self._setting.path
        match self._setting.kind:
            case "file":
                return read_pair(await self._content_of(path)), float("inf")
            case "docker-config":
                return await self._from_entry(read_config(await self._content_of(path), self._name, self._host))
            case "kubernetes-secret":
                return await self._from_secret(path), float("inf")

    async def _from_entry(self, entry: Entry) -> tuple[Login | None, float]:
        if entry.helper is not None:
            login = await self._ask_helper(entry.helper, entry.server)
            return login or entry.login, trio.current_time() + HELPER_ANSWER_S
        return entry.login, float("inf")

    async def _from_secret(self, path: Path) -> Login | None:
        """Read a mounted secret, or the one file of it: no helper is run on the word of a secret."""
        whole, config, username, password = await self._files.stat(self._paths())
        if whole is not None or config is not None:
            content = await self._content_of(path if whole is not None else path / _SECRET_CONFIG)
            return read_config(content, self._name, self._host).login
        if username is None or password is None:
            raise BadCredentials(f"there is neither {_SECRET_CONFIG} nor username and password")
        return read_basic(await self._content_of(path / "username"), await self._content_of(path / "password"))

    async def _content_of(self, path: Path) -> bytes:
        try:
            return await self._files.read_whole(path, CONFIG_BYTES_MAX)
        except MirrorError as error:
            raise BadCredentials(str(error)) from None

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            self._complaint = reason
            fields = {"registry": self._name, "file": self._setting.path, "reason": reason, "meanwhile": "anonymous"}
            logs.event(_log, logging.WARNING, "upstream.credentials_refused", fields)

    def _content(self) -> None:
        if self._complaint is not None:
            self._complaint = None
            fields = {"registry": self._name, "file": self._setting.path}
            logs.event(_log, logging.INFO, "upstream.credentials_accepted", fields)
