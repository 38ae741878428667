"""Bootstrap settings are read strictly and resolved leniently."""

import logging
from random import Random
from typing import Any, cast

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.bootstrap import Bootstrap, NamesSetting, parse
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network


class NamesOnly:
    """A network of which only the names are asked."""

    def __init__(self, table: dict[str, list[str] | str]) -> None:
        self.table = table

    async def resolve(self, host: str, port: int) -> list[Address]:
        await trio.lowlevel.checkpoint()
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
        ("static:10.0.0.1", (("10.0.0.1", 29998),)),
        ("static:10.0.0.1:7,[fd00::1]:8,[fd00::2],node-3", None),
        ("static: 10.0.0.1 , 10.0.0.2:5 ,", (("10.0.0.1", 29998), ("10.0.0.2", 5))),
        ("dns:p2pmirror.kube-system.svc", (("p2pmirror.kube-system.svc", 29998),)),
        ("dns:p2pmirror.kube-system.svc:31000", (("p2pmirror.kube-system.svc", 31000),)),
    ],
)
def test_good_settings(text: str, names: Any) -> None:
    """Hosts, names and bracketed IPv6 are read, with port 29998 unless one is given."""
    expected = names or (("10.0.0.1", 7), ("fd00::1", 8), ("fd00::2", 29998), ("node-3", 29998))
    setting = parse(text)
    assert isinstance(setting, NamesSetting)
    assert setting.names == expected
    assert str(setting) == text


BAD = """
|static|static:|static:,|dns:|dns|kubernetes:a/b|http://x|file:/x|10.0.0.1:29998|static:fd00::1|static:a:b
|static:a:70000|static:a:0|static:a b|static::29998|dns:a/b|static:0.0.0.0:29998|static:[::]:29998|static:[fd00::1
"""


@pytest.mark.parametrize("text", BAD.replace("\n", "").split("|"))
def test_bad_settings(text: str) -> None:
    """What is no bootstrap is refused with a text that begins with the setting's name."""
    with pytest.raises(ValueError, match=r"^bootstrap"):
        parse(text)


@pytest.mark.parametrize("text", ["kubernetes:ns/svc", "http://example.com", "nonsense"])
def test_an_unknown_kind_is_told_which_kinds_exist(text: str) -> None:
    """The error names the kinds that can be written."""
    with pytest.raises(ValueError, match=r"static:HOST:PORT,… and dns:NAME\[:PORT\]"):
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
