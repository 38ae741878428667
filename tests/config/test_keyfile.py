"""Promises of the key file: what it may hold, what is said of anything else, and how a change of it is taken in."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from p2pmirror.config import BadSetting
from p2pmirror.config.keyfile import LOOK_S, BadKeyFile, KeyFile, parse_keys
from p2pmirror.config.metrics import KeyMetrics
from p2pmirror.store.files import Files
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.keyring import KeyRing

OLD, NEW = b"0123456789abcdef-old", b"0123456789abcdef-new"
PATH = Path("/etc/p2pmirror/key")
SETTLED_S = 2.5 * LOOK_S  # two looks, and what a look itself takes


def key(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=32).digest()


def ring(*lines: bytes) -> str:
    """Return what a ring of these lines shows of itself."""
    return repr(KeyRing([key(line) for line in lines]))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (OLD, [OLD]),
        (OLD + b"\n", [OLD]),
        (b"  " + OLD + b" \t\r\n\r\n", [OLD]),
        (OLD + b"\n" + NEW, [OLD, NEW]),
        (b"\n" + NEW + b"\r\n" + OLD + b"\n\n", [NEW, OLD]),
        (OLD + b"\n" + OLD, [OLD]),
        (b"x" * 16, [b"x" * 16]),
        ("pässwörter".encode() + b" 1234", ["pässwörter".encode() + b" 1234"]),
    ],
)
def test_a_key_is_the_hash_of_its_line(content: bytes, lines: list[bytes]) -> None:
    """One or two lines, space around them not counted, the first one first; a line twice is one key."""
    assert parse_keys(content) == tuple(key(line) for line in lines)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b" \n\t\r\n", "it is empty"),
        (b"x" * 15, "line 1 has 15 bytes"),
        (OLD + b"\nshort\n", "line 2 has 5 bytes"),
        (OLD + b"\n" + NEW + b"\n# the old one\n", "it has 3 lines"),
        (b"\xff\xfe" + OLD, "it is not text"),
        (OLD + b"\0", "line 1 has characters that cannot be printed"),
        (b"\xef\xbb\xbf" + OLD, "line 1 has characters that cannot be printed"),
    ],
)
def test_what_is_no_key_is_named_and_not_shown(content: bytes, says: str) -> None:
    """The complaint says which line and what is wrong with it, and quotes nothing of it."""
    with pytest.raises(BadKeyFile) as caught:
        parse_keys(content)
    assert str(caught.value) == says


@given(st.binary(max_size=300))
def test_any_file_is_keys_or_a_complaint(content: bytes) -> None:
    """Whatever the file holds, there are one or two keys of 32 bytes, or there is one kind of error."""
    try:
        keys = parse_keys(content)
    except BadKeyFile:
        return
    assert [len(each) for each in keys] in ([32], [32, 32])


@pytest.mark.parametrize("what", ["absent", "directory", "pipe", "unreadable", "huge", "short", "loop"])
async def test_a_start_without_a_usable_file_is_refused(tmp_path: Path, what: str) -> None:
    """One line that names the setting, the path and what is wrong; a named pipe or a huge file holds nobody up."""
    path = tmp_path / "key"
    match what:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "huge":
            path.write_bytes(OLD * 1000)
        case "short":
            path.write_bytes(b"short")
        case "loop":
            path.symlink_to(path)
        case "unreadable":
            path.write_bytes(OLD)
            path.chmod(0)
            if os.access(path, os.R_OK):
                path.unlink()
                path = Path("/proc/self/mem/key")  # root may read anything, but not below a file
    with trio.fail_after(5), pytest.raises(BadSetting) as caught:
        await KeyFile.load(HostFiles(), path)
    message = str(caught.value)
    assert message.startswith(f"peer_key_file = '{path}': allowed: a file of one or two lines")
    assert "\n" not in message


class Watched:
    """A key file that is being watched, and what its agent says and counts."""

    def __init__(self, files: Files, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.files = files
        self.path = path
        self.registry = CollectorRegistry()
        self._caplog = caplog
        self._caplog.set_level(logging.INFO, "p2pmirror.config")

    async def start(self, nursery: trio.Nursery) -> None:
        self.file = await KeyFile.load(self.files, self.path)
        await nursery.start(self.file.run, KeyMetrics(self.registry))

    @property
    def ring(self) -> str:
        return repr(self.file.ring)

    def said(self) -> list[str]:
        """Return the names of the events since the last call."""
        names = [record.getMessage() for record in self._caplog.records]
        text = str([getattr(record, "fields", None) for record in self._caplog.records])
        assert OLD.decode() not in text
        assert NEW.decode() not in text
        self._caplog.clear()
        return names

    def state(self) -> tuple[float | None, float | None]:
        """Return how many keys are accepted, and whether the file is refused."""
        name = "p2pmirror_node_peer_keys"
        accepted, refused = (self.registry.get_sample_value(name, {"state": each}) for each in ("accepted", "refused"))
        return accepted, refused


async def watching_old(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> tuple[MemoryFiles, Watched]:
    """Watch a file in memory that has the old key."""
    disk = MemoryFiles()
    disk.put(PATH, OLD)
    watched = Watched(disk, PATH, caplog)
    await watched.start(nursery)
    return disk, watched


async def test_a_key_is_changed_while_the_agent_runs(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Each step of a change reaches the ring within seconds, is said once and counted."""
    disk, watched = await watching_old(nursery, caplog)
    assert (watched.ring, watched.said(), watched.state()) == (ring(OLD), ["keys.accepted"], (1, 0))
    for lines in ([OLD, NEW], [NEW, OLD], [NEW]):
        disk.put(PATH, b"\n".join(lines))
        await trio.sleep(SETTLED_S)
        assert (watched.ring, watched.said(), watched.state()) == (ring(*lines), ["keys.accepted"], (len(lines), 0))
    disk.put(PATH, NEW + b"\n\n")
    await trio.sleep(10 * LOOK_S)
    assert watched.said() == [], "the same key, written otherwise, is no change"


@pytest.mark.parametrize("content", [b"", b"short", b"a\nb\nc", b"\xff" * 32, OLD * 1000, None])
async def test_a_broken_file_changes_nothing(
    content: bytes | None, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The old keys stay, one warning, the metric shows it; a good file ends it, the old one or a new one."""
    disk, watched = await watching_old(nursery, caplog)
    watched.said()
    for mended in (OLD, NEW):
        before = watched.ring
        if content is None:
            disk.remove(PATH)
        else:
            disk.put(PATH, content)
        await trio.sleep(10 * LOOK_S)
        assert (watched.ring, watched.said(), watched.state()) == (before, ["keys.refused"], (1, 1))
        disk.put(PATH, mended)
        await trio.sleep(SETTLED_S)
        assert (watched.ring, watched.said(), watched.state()) == (ring(mended), ["keys.accepted"], (1, 0))


async def test_a_file_that_is_being_written_is_not_believed(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """What one look alone has seen (nothing, half a line) neither counts nor is complained about."""
    disk, watched = await watching_old(nursery, caplog)
    watched.said()
    await trio.sleep(LOOK_S / 2)
    for content in (b"", NEW[:17], NEW[:18], NEW):
        disk.put(PATH, content)
        await trio.sleep(LOOK_S)
        assert (watched.ring, watched.said()) == (ring(OLD), [])
    await trio.sleep(LOOK_S)
    assert (watched.ring, watched.said()) == (ring(NEW), ["keys.accepted"])


async def test_a_symbolic_link_turned_over_is_a_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """A secret's volume changes by a link to a directory that is renamed into place: the new key is read through it."""
    monkeypatch.setattr("p2pmirror.config.keyfile.LOOK_S", 0.02)
    for name, content in (("..one", OLD), ("..two", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_bytes(content)
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "key").symlink_to("..data/key")
    watched = Watched(HostFiles(), tmp_path / "key", caplog)
    await watched.start(nursery)
    (tmp_path / "..new").symlink_to("..two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    with trio.fail_after(5):
        while watched.ring != ring(NEW):  # noqa: ASYNC110  # the file is watched as another program would
            await trio.sleep(0.01)
    assert watched.said() == ["keys.accepted", "keys.accepted"]
