"""Bootstrap settings are read strictly and resolved leniently."""

import logging
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.bootstrap import Bootstrap, parse
from p2pmirror.routing.bootstrap.file import FileSetting
from p2pmirror.routing.bootstrap.http import UrlSetting
from p2pmirror.routing.bootstrap.names import NamesSetting
from p2pmirror.routing.bootstrap.places import HOST_CHARS_MAX
from p2pmirror.routing.bootstrap.resolver import ADDRESSES_MAX, NAMES_MAX
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network


class NamesOnly:
    """A network of which only the names are asked."""

    def __init__(self, table: Mapping[str, list[str] | str]) -> None:
        self.table = table
        self.asked = 0

    async def resolve(self, host: str, port: int) -> list[Address]:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        found = self.table.get(host, "no such name")
        if found == "hangs":
            await trio.sleep_forever()
        if isinstance(found, str):
            raise Unreachable(found)
        return [Address.of(each, port) for each in found]


def bound(text: str, network: NamesOnly) -> Bootstrap:
    """Return a bootstrap on a host that has names and nothing else."""
    return parse(text).on(cast("Network", network), MemoryFiles(), Random(1))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("static:10.0.0.1", "10.0.0.1:29998"),
        ("static:10.0.0.1:7,[fd00::1]:8,[fd00::2],node-3", "10.0.0.1:7 [fd00::1]:8 [fd00::2]:29998 node-3:29998"),
        ("static: 10.0.0.1 , 10.0.0.2:5 ,", "10.0.0.1:29998 10.0.0.2:5"),
        ("dns:p2pmirror.kube-system.svc", "p2pmirror.kube-system.svc:29998"),
        ("dns:p2pmirror.kube-system.svc:31000", "p2pmirror.kube-system.svc:31000"),
    ],
)
def test_good_names(text: str, names: str) -> None:
    """Hosts, names and bracketed IPv6 are read, with port 29998 unless one is given."""
    setting = parse(text)
    assert isinstance(setting, NamesSetting)
    assert [str(place) if isinstance(place, Address) else "{}:{}".format(*place) for place in setting.places] == (
        names.split()
    )
    assert str(setting) == text


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http://10.0.0.1:9090/api/v1/peers", ("10.0.0.1:9090", "10.0.0.1:9090", "/api/v1/peers")),
        ("http:http://10.0.0.1:9090", ("10.0.0.1:9090", "10.0.0.1:9090", "/api/v1/peers")),
        ("http://[fd00::1]:81/?a=b", ("[fd00::1]:81", "[fd00::1]:81", "/api/v1/peers?a=b")),
        (" http://10.0.0.1/list.json?x=1&y=%20 ", ("10.0.0.1:80", "10.0.0.1", "/list.json?x=1&y=%20")),
    ],
)
def test_good_urls(text: str, asked: tuple[str, str, str]) -> None:
    """A URL is read with or without its kind in front; an agent's own path is that of a URL without one."""
    setting = parse(text)
    assert isinstance(setting, UrlSetting)
    assert (str(setting.place), setting.source.authority, setting.source.target) == asked
    assert str(setting) == text


@pytest.mark.parametrize(
    ("text", "path"),
    [("file:/etc/p2pmirror/peers", "/etc/p2pmirror/peers"), ("file: peers#1", f"{Path.cwd()}/peers#1")],
)
def test_good_files(text: str, path: str) -> None:
    """A file is named by its path, from the directory that the agent was started in when it is relative."""
    setting = parse(text)
    assert isinstance(setting, FileSetting)
    assert (str(setting.path), str(setting)) == (path, text)


BAD = """
|static|static:|static:,|dns:|dns|kubernetes:a|10.0.0.1:29998|static:fd00::1|static:a:b|file|file:|file:\0|http
|http:|http:/x|http:x:80|http://|http://:80|http://a:0|http://a:x|http://a:70000|http://u@a/|http://a/#b|http://a b/
|http://ä/|http://[::1|http://[x]/|http://0.0.0.0/|http://[::]:9090/|https://a/|http:https://a/|http:ftp://a/|ftp://a/
|static:a:70000|static:a:0|static:a b|static::29998|dns:a/b|static:0.0.0.0:29998|static:[::]:29998|static:[fd00::1
"""


@pytest.mark.parametrize("text", BAD.replace("\n", "").split("|"))
def test_bad_settings(text: str) -> None:
    """What is no bootstrap is refused with a text that begins with the setting's name."""
    with pytest.raises(ValueError, match=r"^bootstrap") as caught:
        parse(text)
    assert str(caught.value).isprintable()


def test_https_is_refused_by_name() -> None:
    """Whoever writes https is told that it is not spoken, and what is."""
    with pytest.raises(ValueError, match="https is not spoken here; write http://"):
        parse("https://seed.example/peers")


def test_a_host_has_the_length_of_a_name() -> None:
    """What is too long for any name server is no host, and is not repeated in full."""
    assert parse("static:" + "a" * HOST_CHARS_MAX)
    with pytest.raises(ValueError, match="is no host") as caught:
        parse("static:" + "a" * 100_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["consul:svc", "nonsense"])
def test_an_unknown_kind_is_told_which_kinds_exist(text: str) -> None:
    """The error names the kinds that can be written."""
    with pytest.raises(
        ValueError, match=r"static:HOST:PORT,\.\.\., dns:NAME\[:PORT\], kubernetes:NAMESPACE/SERVICE, file:PATH"
    ):
        parse(text)


async def test_all_addresses_of_all_names_both_families(autojump_clock: Any) -> None:
    """Every address comes once, sorted, IPv4 and IPv6; numeric hosts need no resolver."""
    network = NamesOnly({"pods": ["10.0.0.2", "fd00::2", "10.0.0.1"], "more": ["10.0.0.1"]})
    found = await bound("static:pods,more,10.0.0.9:5", network).addresses()
    assert found == sorted(
        [*(Address.of(h, 29998) for h in ("10.0.0.1", "10.0.0.2", "fd00::2")), Address("10.0.0.9", 5)]
    )


async def test_a_name_that_does_not_resolve_is_logged_once_per_change(autojump_clock: Any, caplog: Any) -> None:
    """A missing name costs the others nothing, is logged when that changes, and is asked for again."""
    network = NamesOnly({"there": ["10.0.0.1"]})
    bootstrap = bound("static:there,missing", network)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await bootstrap.addresses() == [Address("10.0.0.1", 29998)]
        assert len(caplog.records) == 1
        network.table["missing"] = ["10.0.0.2"]
        assert len(await bootstrap.addresses()) == 2
        assert "resolves again" in caplog.records[1].message
        network.table["missing"] = "hangs"
        assert len(await bootstrap.addresses()) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


async def test_a_name_with_thousands_of_addresses_is_a_sample(autojump_clock: Any) -> None:
    """More addresses than a cluster has are told in part, by chance: the first of them are not everybody's first."""
    many = [f"10.{number // 250}.{number % 250}.1" for number in range(2 * ADDRESSES_MAX)]
    bootstrap = bound("dns:pods", NamesOnly({"pods": many}))
    first, second = await bootstrap.addresses(), await bootstrap.addresses()
    assert len(first) == len(second) == ADDRESSES_MAX
    assert first == sorted(set(first))
    assert first != second
    assert sum(int(each.host.split(".")[1]) >= ADDRESSES_MAX // 250 for each in first) > ADDRESSES_MAX // 3


async def test_a_list_of_thousands_of_names_asks_for_a_few(autojump_clock: Any) -> None:
    """The name server is asked for a bounded number of names at a time, and for others the next time."""
    names = NamesOnly({f"node-{number}": [f"10.1.{number // 250}.{number % 250}"] for number in range(1000)})
    bootstrap = bound("static:" + ",".join(names.table), names)
    found = {address for _ in range(2) for address in await bootstrap.addresses()}
    assert names.asked == 2 * NAMES_MAX
    assert NAMES_MAX < len(found) < 2 * NAMES_MAX


async def test_names_that_hang_cost_five_seconds_together(autojump_clock: Any) -> None:
    """However many name servers are silent, the others' addresses come within the time of one."""
    network = NamesOnly({**{f"silent-{number}": "hangs" for number in range(50)}, "there": ["10.0.0.1"]})
    start = trio.current_time()
    assert len(await bound("static:" + ",".join(network.table), network).addresses()) == 1
    assert trio.current_time() - start == 5.0


async def test_an_address_to_listen_on_is_nobodys(autojump_clock: Any) -> None:
    """A name that stands for 0.0.0.0 or :: names nobody who could be sent to."""
    assert await bound("dns:odd", NamesOnly({"odd": ["0.0.0.0", "::", "10.0.0.1"]})).addresses() == [
        Address("10.0.0.1", 29998)
    ]


async def test_a_new_pod_is_a_change_and_a_lost_one_is_none(autojump_clock: Any) -> None:
    """A service is asked for new pods about once a minute; pods that went, and silent name servers, are no news."""
    network = NamesOnly({"pods": ["10.0.0.1", "10.0.0.2"]})
    bootstrap = bound("dns:pods", network)
    await bootstrap.addresses()
    for table in ({"pods": ["10.0.0.1"]}, {}, {"pods": "hangs"}):
        network.table = table
        with trio.move_on_after(300) as scope:
            await bootstrap.changed()
        assert scope.cancelled_caught
    assert 10 <= network.asked <= 22
    network.table = {"pods": ["10.0.0.1", "10.0.0.3"]}
    with trio.fail_after(80):
        await bootstrap.changed()
    with trio.fail_after(80):  # it stays news until somebody has asked
        await bootstrap.changed()
    await bootstrap.addresses()
    with trio.move_on_after(300) as scope:
        await bootstrap.changed()
    assert scope.cancelled_caught


@pytest.mark.parametrize("text", ["static:10.0.0.1", "http://10.0.0.1"])
async def test_what_cannot_change_is_not_asked(autojump_clock: Any, text: str) -> None:
    """Numeric addresses never change, and an agent's own list is not polled: waiting costs nothing."""
    network = NamesOnly({})
    with trio.move_on_after(100_000) as scope:
        await bound(text, network).changed()
    assert scope.cancelled_caught
    assert network.asked == 0
