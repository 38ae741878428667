"""Rates are shared max-min fairly, whatever the hosts and flows are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.wire.memory_rates import UNLIMITED, share

hosts = st.integers(0, 7)
rates = st.dictionaries(hosts, st.floats(1.0, 1e10), max_size=8)
flows = st.lists(st.tuples(hosts, hosts), max_size=40)


def near(one: float, other: float) -> bool:
    return one == pytest.approx(other, rel=1e-6)


@given(flows, rates, rates)
def test_no_host_over_its_rate(flows, upload, download) -> None:
    """What a host sends, and what it receives, stays within its rate."""
    given_rates = share(flows, upload, download)
    for place, limits in ((0, upload), (1, download)):
        for host, limit in limits.items():
            used = sum(rate for flow, rate in zip(flows, given_rates, strict=True) if flow[place] == host)
            assert used <= limit * (1 + 1e-6)


@given(flows, rates, rates)
def test_max_min(flows, upload, download) -> None:
    """Every flow has an end that is full and in which nobody gets more, unless neither of its ends has a rate."""
    given_rates = share(flows, upload, download)
    for (source, target), rate in zip(flows, given_rates, strict=True):
        if source not in upload and target not in download:
            assert rate == UNLIMITED
            continue
        full = []
        for place, host, limits in ((0, source, upload), (1, target, download)):
            if host in limits:
                there = [other for flow, other in zip(flows, given_rates, strict=True) if flow[place] == host]
                full.append(near(sum(there), limits[host]) and rate >= max(there) * (1 - 1e-6))
        assert any(full)


@given(flows, rates, rates)
def test_nobody_starves(flows, upload, download) -> None:
    """Every flow gets at least what it had if each of its ends shared equally among all its flows."""
    for (source, target), rate in zip(flows, share(flows, upload, download), strict=True):
        up = upload.get(source, UNLIMITED) / sum(flow[0] == source for flow in flows)
        down = download.get(target, UNLIMITED) / sum(flow[1] == target for flow in flows)
        assert rate > 0
        assert rate >= min(up, down) * (1 - 1e-6)


@given(flows, rates, rates, st.randoms())
def test_order_does_not_matter(flows, upload, download, random) -> None:
    """The same flows get the same rates in whatever order they come."""
    order = list(range(len(flows)))
    random.shuffle(order)
    shuffled = share([flows[number] for number in order], upload, download)
    plain = share(flows, upload, download)
    assert all(near(shuffled[place], plain[number]) for place, number in enumerate(order))


def test_what_one_cannot_use_is_the_others() -> None:
    """Of 90 up, one that can only receive 10 leaves 40 to each of the two others."""
    assert share([("a", "b"), ("a", "c"), ("a", "d")], {"a": 90.0}, {"d": 10.0}) == [40.0, 40.0, 10.0]


def test_a_classic() -> None:
    """Three bottlenecks that depend on one another are filled one after the other."""
    flows = [("a", "x"), ("a", "y"), ("b", "y"), ("b", "z"), ("c", "z")]
    assert share(flows, {"a": 10.0, "b": 30.0}, {"y": 12.0, "z": 100.0}) == [5.0, 5.0, 7.0, 23.0, 77.0]
