"""A bootstrap file is read leniently, and again whenever it changes, on a real directory and on its twin."""

import logging
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from p2pmirror.routing.bootstrap import Bootstrap, parse
from p2pmirror.routing.bootstrap.listing import ENTRIES_MAX, LIST_BYTES_MAX
from p2pmirror.store.files import Files
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.memory import MemoryWorld

FAR_S = 300.0  # of virtual time: many polls


class Place:
    """A file of one kind, somewhere, and a bootstrap that reads it on a host of a world with names."""

    def __init__(self, files: Files, path: Path) -> None:
        self.files = files
        self.path = path
        self.world = MemoryWorld(Random(1))
        self.bootstrap: Bootstrap = parse(f"file:{path}").on(self.world.host("10.9.9.9"), files, Random(2))

    def write(self, text: str | bytes) -> None:
        """Write it as an editor does: a new file in its place."""
        data = text.encode() if isinstance(text, str) else text
        if isinstance(self.files, MemoryFiles):
            self.files.put(self.path, data)
            return
        fresh = self.path.with_name("fresh")
        fresh.write_bytes(data)
        fresh.replace(self.path)

    def remove(self) -> None:
        if isinstance(self.files, MemoryFiles):
            self.files.remove(self.path)
        else:
            self.path.unlink()

    async def named(self) -> list[str]:
        return [str(address) for address in await self.bootstrap.addresses()]


@pytest.fixture(params=["host", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "host":
        return Place(HostFiles(), tmp_path / "peers")
    return Place(MemoryFiles(), Path("/etc/peers"))


@pytest.fixture
def twin() -> Place:
    return Place(MemoryFiles(), Path("/etc/peers"))


async def quiet(bootstrap: Bootstrap) -> bool:
    """Return whether nothing is said to have changed for a long time."""
    with trio.move_on_after(FAR_S) as scope:
        await bootstrap.changed()
    return scope.cancelled_caught


async def test_one_host_a_line(place: Place) -> None:
    """Comments, blank lines, blanks, Windows line ends and a byte order mark do no harm; nothing comes twice."""
    place.world.names["seed"] = ["10.0.0.9", "fd00::9"]
    place.write(
        "\ufeff10.0.0.2 # second\r\n\n# 10.0.0.8\n  10.0.0.1:7\t\r\n[fd00::1]\n[fd00::1]:8#x\nseed:5\n10.0.0.2:29998"
    )
    assert await place.named() == [
        "10.0.0.1:7",
        "10.0.0.2:29998",
        "10.0.0.9:5",
        "[fd00::1]:8",
        "[fd00::1]:29998",
        "[fd00::9]:5",
    ]


async def test_a_missing_file_is_nobody_said_once(place: Place, caplog: Any) -> None:
    """A file that is not there is logged once, and so is its coming back; its directory may be missing as well."""
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await place.named() == []
        place.write("10.0.0.1")
        for _ in range(3):
            assert await place.named() == ["10.0.0.1:29998"]
        place.remove()
        for _ in range(3):
            assert await place.named() == []
    said = [record.message for record in caplog.records]
    assert [text.removeprefix(f"bootstrap file {place.path} ") for text in said] == [
        "is not there",
        "is read again",
        "is not there",
    ]


async def test_broken_lines_are_named_and_left_out(place: Place, caplog: Any) -> None:
    """The good lines count; the first broken ones are named by number and content, once, the others counted."""
    broken = b"a b\n10.0.0.1\nfd00::1\n:29998\n0.0.0.0\n10.0.0.2:0\nx:99999\n\xff\xfe\n\x1b[2J\n10.0.0.3\n"
    place.write(broken)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await place.named() == ["10.0.0.1:29998", "10.0.0.3:29998"]
        (record,) = caplog.records
        for said in (
            "is read without line 1 (",
            "'a b' is no host",
            "line 3 (",
            "in brackets",
            "line 4 (",
            "and 5 more",
        ):
            assert said in record.message
        assert record.message.isprintable()
        place.write("10.0.0.1")
        await place.named()
        assert "is read again" in caplog.records[1].message


async def test_what_is_too_large_or_no_file_is_nobody(place: Place, caplog: Any) -> None:
    """A file of any size, or anything else in its place, costs one line in the log and no memory."""
    place.write(b"#" * (LIST_BYTES_MAX + 1))
    with caplog.at_level(logging.INFO):
        assert await place.named() == []
    assert "cannot be read" in caplog.records[0].message


@pytest.mark.parametrize("kind", ["directory", "pipe", "loop"])
async def test_what_is_no_regular_file_is_nobody(tmp_path: Path, kind: str) -> None:
    """A directory, a named pipe or a circle of links in the file's place names nobody and holds nobody up."""
    path = tmp_path / "peers"
    {"directory": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[kind]()
    with trio.fail_after(10):
        assert await Place(HostFiles(), path).named() == []


async def test_a_very_long_list_is_read_in_part_without_stopping_the_loop(twin: Place, caplog: Any) -> None:
    """Of many thousand lines a sample by chance counts, and other tasks have their turns while it is read."""
    count = 3 * ENTRIES_MAX
    twin.write("".join(f"10.{number // 250}.{number % 250}.1\n" for number in range(count)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        named = await twin.bootstrap.addresses()
        nursery.cancel_scope.cancel()
    assert len(named) == ENTRIES_MAX
    assert any(int(each.host.split(".")[1]) > ENTRIES_MAX / 250 for each in named)
    assert turns >= ENTRIES_MAX // 100
    assert f"has {count} entries" in caplog.records[0].message


async def test_a_change_is_noticed(twin: Place, autojump_clock: Any) -> None:
    """Appearing, changing and vanishing are told within some seconds, each once it has been asked for; else silence."""
    assert await twin.named() == []
    assert await quiet(twin.bootstrap)
    for change in (lambda: twin.write("10.0.0.1"), lambda: twin.write("10.0.0.2"), twin.remove):
        change()
        with trio.fail_after(5):
            await twin.bootstrap.changed()
        await twin.named()
        assert await quiet(twin.bootstrap)


async def test_a_change_between_two_questions_is_not_lost(twin: Place, autojump_clock: Any) -> None:
    """What changed while nobody waited, or while it was read, is told to whoever waits next."""
    twin.write("10.0.0.1")
    await twin.named()
    twin.write("10.0.0.2")
    with trio.fail_after(5):
        await twin.bootstrap.changed()
    twin.world.names["slow"] = ["10.0.0.3"]
    twin.write("slow")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(twin.named)
        for _ in range(4):
            await trio.lowlevel.checkpoint()
        twin.write("10.0.0.4")  # while the old content is being looked up
    with trio.fail_after(5):
        await twin.bootstrap.changed()
    assert await twin.named() == ["10.0.0.4:29998"]


async def test_a_question_that_was_cancelled_leaves_the_change_to_be_told(twin: Place, autojump_clock: Any) -> None:
    """Whoever gave up reading a change has not heard of it."""
    twin.write("10.0.0.1")
    await twin.named()
    twin.write("10.0.0.2")
    for checkpoints in range(4):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(twin.named)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught
        if checkpoints < 2:
            with trio.fail_after(5):
                await twin.bootstrap.changed()


async def test_names_in_a_file_are_looked_up_again(twin: Place, autojump_clock: Any) -> None:
    """A name in the file that has a new address is a change, as it is for `dns`."""
    twin.world.names["pods"] = ["10.0.0.1"]
    twin.write("pods")
    await twin.named()
    assert await quiet(twin.bootstrap)
    twin.world.names["pods"] = ["10.0.0.2"]
    with trio.fail_after(80):
        await twin.bootstrap.changed()
    assert await twin.named() == ["10.0.0.2:29998"]


async def test_a_disk_that_does_not_answer_is_nobody(autojump_clock: Any, caplog: Any) -> None:
    """A file on a disk that hangs names nobody after some seconds."""

    class Hanging(MemoryFiles):
        async def stat(self, paths: Any) -> Any:
            await trio.sleep_forever()

        async def read_whole(self, path: Path, bytes_max: int) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

    with trio.fail_after(15):
        assert await Place(Hanging(), Path("/nfs/peers")).named() == []
    assert "no answer within 5 s" in caplog.records[0].message


async def test_a_config_map_that_is_exchanged_is_a_change(tmp_path: Path) -> None:
    """Kubernetes exchanges a mounted ConfigMap by a link to another directory; that is noticed in real time too."""
    for version, text in (("1", "10.0.0.1"), ("2", "10.0.0.2")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "peers").write_text(text)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "peers").symlink_to("..data/peers")
    place = Place(HostFiles(), tmp_path / "peers")
    assert await place.named() == ["10.0.0.1:29998"]
    (tmp_path / "fresh").symlink_to("2")
    (tmp_path / "fresh").replace(tmp_path / "..data")
    with trio.fail_after(20):
        await place.bootstrap.changed()
    assert await place.named() == ["10.0.0.2:29998"]
