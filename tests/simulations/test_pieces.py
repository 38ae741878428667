"""Promises of the simulation of pieces alone: links carry no more than they can, and it tells what whole agents do."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.exchange import Exchange, Rules
from simulations.fluid import Fluid, Host
from simulations.playing import Run, play
from simulations.scenario import BadValue
from simulations.scenarios import find

TOLERANCE = 1e-6


def fly(nodes: int, pieces: int = 16, *, seed: int = 1, **rules: Any) -> Exchange:
    """Let an exchange come to its end, pieces of a second a link."""
    exchange = Exchange(nodes, pieces, 1.0, upstream=1.0, rules=Rules(**rules), random=Random(seed))
    until = 0.0
    while not exchange.is_over and until < 20 * pieces:
        until += 1.0
        exchange.fluid.run(until)
    return exchange


def test_one_transfer_takes_what_its_slower_end_takes() -> None:
    """Three units from a host of two a second to one of one: three seconds."""
    fluid, ends = Fluid(), list[float]()
    fluid.begin(Host(2.0, 2.0), Host(1.0, 1.0), 3.0, ends.append)
    assert not fluid.run(10.0)
    assert ends == pytest.approx([3.0])


def test_what_one_cannot_use_goes_to_the_other() -> None:
    """A host sends to a slow one and to a quick one; when the quick one is done the slow one is as slow as ever."""
    fluid, ends = Fluid(), dict[str, float]()
    source = Host(2.0, 2.0)
    for name, rate in (("slow", 0.5), ("quick", 9.0)):
        fluid.begin(source, Host(rate, rate), 3.0, lambda now, name=name: ends.__setitem__(name, now))
    fluid.run(100.0)
    assert ends == pytest.approx({"quick": 2.0, "slow": 6.0})


@given(
    hosts=st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=6),
    transfers=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0.1, 5), st.floats(0, 5)), min_size=1, max_size=20
    ),
)
def test_no_link_carries_more_than_it_can(
    hosts: list[tuple[float, float]], transfers: list[tuple[int, int, float, float]]
) -> None:
    """Whatever begins when, all ends, no host ever has more than its rate, and no moment comes before another."""
    fluid, all_hosts, moments = Fluid(), [Host(up, down) for up, down in hosts], list[float]()

    def look(now: float) -> None:
        moments.append(now)
        for host in all_hosts:
            assert sum(each.rate for each in host.sending) <= host.up + TOLERANCE
            assert sum(each.rate for each in host.receiving) <= host.down + TOLERANCE
            assert all(each.rate > 0 for each in host.sending)

    for source, target, units, when in transfers:
        pair = all_hosts[source % len(hosts)], all_hosts[target % len(hosts)]
        fluid.at(when, lambda _, pair=pair, units=units: fluid.begin(*pair, units, look))
        fluid.at(when, look)
    assert not fluid.run(1e9)
    assert len(moments) == 2 * len(transfers)
    assert all(before <= after for before, after in pairwise(moments))
    assert not any(host.sending or host.receiving for host in all_hosts)


def test_an_end_that_was_foreseen_otherwise_does_not_come() -> None:
    """A second transfer makes the first one later; it ends once."""
    fluid, ends = Fluid(), list[float]()
    source = Host(1.0, 1.0)
    fluid.begin(source, Host(9.0, 9.0), 1.0, ends.append)
    fluid.at(0.5, lambda _: fluid.begin(source, Host(9.0, 9.0), 1.0, ends.append))
    fluid.run(100.0)
    assert ends == pytest.approx([1.5, 2.0])


@pytest.mark.parametrize("nodes", [2, 3, 10, 30])
def test_everybody_has_everything_in_nearly_the_time_that_is_best(nodes: int) -> None:
    """No piece comes twice where nothing goes wrong; sixteen pieces are few, so that their last round shows."""
    exchange = fly(nodes)
    assert exchange.is_over
    assert exchange.wasted == 0
    last = max(peer.done_at for peer in exchange.peers if peer.done_at is not None)
    assert 16 < last < 2.2 * 16


@pytest.mark.parametrize("rule", ["spreads", "rarest", "late", "slots"])
def test_without_a_rule_it_ends_all_the_same(rule: str) -> None:
    """Each may be switched off, so that what it earns can be measured."""
    assert fly(10, **{rule: False}).is_over


def test_giving_each_piece_to_one_is_what_makes_it_quick() -> None:
    """Without it a leader sends the same pieces to many."""
    quick, slow = (max(p.done_at or 1e9 for p in fly(20, 32, spreads=spreads).peers) for spreads in (True, False))
    assert quick < 0.9 * slow


def test_one_seed_is_one_run() -> None:
    """To the last digit; another seed is another run."""
    first, again, other = ([p.done_at for p in fly(10, seed=seed).peers] for seed in (1, 1, 2))
    assert first == again != other


def test_it_tells_what_whole_agents_take() -> None:
    """Four nodes and 16 pieces: the last one's time differs by less than a sixth from that of the agents themselves."""
    took = []
    for name, more in (("pieces", {}), ("cold-stampede", {"piece_bytes": "65536"})):
        scenario = find(name)
        assert scenario is not None
        outcome = play(Run(scenario, 4, 1, {"pieces": "16"} | more))
        assert outcome.ok, outcome
        took.append(outcome.figures["seconds_max"])
    alone, whole = took
    assert isinstance(alone, float)
    assert isinstance(whole, float)
    assert alone == pytest.approx(whole, rel=1 / 6)


def test_wrong_rules_are_refused() -> None:
    """As for any scenario, before anything runs."""
    scenario = find("pieces")
    assert scenario is not None
    with pytest.raises(BadValue):
        scenario.values({"fetches": "0"})
