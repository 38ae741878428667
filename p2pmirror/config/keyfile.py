"""The file with the cluster's keys: read at the start, and looked at again while the agent runs.

Laws:
- one or two lines of text, the key that signs first; what is no such file stops a start, and changes nothing later;
- a change counts once two looks in a row saw the same, so that a file that is being written is not believed;
- the file is opened by its name at every look: how a new one took that name (a rename, a symbolic link turned over, as
  Kubernetes does with a secret) does not matter;
- nothing of the file's content is ever shown but the fingerprints of its keys.
"""

import logging
from hashlib import blake2b
from pathlib import Path
from typing import Final, Self

import trio

from p2pmirror.config.metrics import KeyMetrics
from p2pmirror.config.model import BadSetting
from p2pmirror.errors import MirrorError
from p2pmirror.store.files import Files
from p2pmirror.telemetry import logs
from p2pmirror.wire.keyring import KEY_BYTES, KEYS_MAX, KeyRing

FILE_BYTES_MAX: Final = 4096  # two lines of `openssl rand -hex 32` have 130
LINE_BYTES_MIN: Final = 16  # 128 bits, when they are random; anything shorter is a word
LOOK_S: Final = 2.0  # between looks: one read of a cached file; Kubernetes itself takes up to a minute
EXPECTED: Final = f"a file of one or two lines of text, each a key of at least {LINE_BYTES_MIN} bytes"

_log = logging.getLogger(__name__)

Keys = tuple[bytes, ...]


class BadKeyFile(MirrorError):
    """What is wrong with a key file; tells nothing of its content."""


def parse_keys(content: bytes) -> Keys:
    """Return the keys that a file's content stands for, the signing one first. Raises `BadKeyFile`."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise BadKeyFile("it is not text") from None
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    if not lines:
        raise BadKeyFile("it is empty")
    if len(lines) > KEYS_MAX:
        raise BadKeyFile(f"it has {len(lines)} lines")
    for number, line in enumerate(lines, 1):
        if not line.isprintable():
            raise BadKeyFile(f"line {number} has characters that cannot be printed")
        if (size := len(line.encode())) < LINE_BYTES_MIN:
            raise BadKeyFile(f"line {number} has {size} bytes")
    return tuple(blake2b(line.encode(), digest_size=KEY_BYTES).digest() for line in dict.fromkeys(lines))


async def read_keys(files: Files, path: Path) -> Keys:
    """Return the keys in a file. Raises `BadKeyFile` for whatever is wrong with it or in the way of reading it."""
    try:
        return parse_keys(await files.read_whole(path, FILE_BYTES_MAX))
    except BadKeyFile:
        raise
    except MirrorError as error:
        raise BadKeyFile(str(error)) from None


class KeyFile:
    """Keeps `ring` equal to a file; made by `load`."""

    def __init__(self, files: Files, path: Path, keys: Keys) -> None:
        """Begin with the `keys` that were read from `path`."""
        self.ring = KeyRing(keys)
        self._files = files
        self._path = path
        self._counted: Keys | str = keys
        self._seen: Keys | str = keys

    @classmethod
    async def load(cls, files: Files, path: Path) -> Self:
        """Read the file for the first time. Raises `BadSetting`."""
        try:
            keys = await read_keys(files, path)
        except BadKeyFile as error:
            raise BadSetting("peer_key_file", str(path), f"{EXPECTED} ({error})") from None
        return cls(files, path, keys)

    async def run(self, metrics: KeyMetrics, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the file every `LOOK_S` until cancelled; never raises for what is in it."""
        self._say(metrics)
        task_status.started()
        while True:
            await trio.sleep(LOOK_S)
            if self._has_changed(await self._look()):
                self._say(metrics)

    async def _look(self) -> Keys | str:
        """Return the keys in the file now, or what is wrong with it."""
        try:
            return await read_keys(self._files, self._path)
        except BadKeyFile as error:
            return str(error)

    def _has_changed(self, found: Keys | str) -> bool:
        """Take in what was found, when it is new and was found before; return whether it was."""
        settled, self._seen = found == self._seen, found
        if not settled or found == self._counted:
            return False
        self._counted = found
        if not isinstance(found, str):
            self.ring.replace(found)
        return True

    def _say(self, metrics: KeyMetrics) -> None:
        found, fingerprints = self._counted, self.ring.fingerprints
        if isinstance(found, str):
            metrics.refused()
            fields = {"file": self._path, "reason": found, "expected": EXPECTED, "kept": fingerprints}
            logs.event(_log, logging.WARNING, "keys.refused", fields)
        else:
            metrics.accepted(len(found))
            logs.event(_log, logging.INFO, "keys.accepted", {"file": self._path, "fingerprints": fingerprints})
