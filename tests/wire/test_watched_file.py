"""Promises of an open file that says when it is closed."""

from __future__ import annotations

from p2pmirror.wire.watched_file import WatchedFile
from tests.front.setting import FakeFile


async def test_it_is_the_file_and_tells_of_its_closing_once() -> None:
    """Whoever reads it sees no difference; closed twice, it is told once."""
    file, told = FakeFile(b"abc"), list[str]()
    watched = WatchedFile(file, lambda: told.append("closed"))
    assert (watched.size, watched.fileno(), await watched.read_at(1, 2)) == (3, None, b"bc")
    assert told == []
    watched.close()
    watched.close()
    assert told == ["closed"]
    assert file.closed >= 1
