"""What theory says of lookups agrees with what was published, and with the tables that routers build."""

from random import Random
from statistics import fmean

import pytest

from p2pmirror.routing.dht.table import CONTACTS_MAX, Table
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from simulations.theory import (
    REFERENCE_HOPS,
    REFERENCE_K,
    Cluster,
    filled_sizes,
    greedy_hops,
    paper_sizes,
    window_hops,
)

HOME = Address("10.0.0.1", 29998)


def drawn(nodes: int, random: Random) -> list[int]:
    return [random.getrandbits(160) for _ in range(nodes)]


@pytest.mark.parametrize("nodes", REFERENCE_HOPS)
def test_greedy_lookups_over_the_papers_tables_take_the_published_hops(nodes: int) -> None:
    """With 20 contacts of a bucket and 20 holders the mean hops are the published ones, within 5 %."""
    random = Random(nodes)
    cluster = Cluster(drawn(nodes, random), paper_sizes(REFERENCE_K), random)
    hops = []
    for _ in range(1500):
        key = random.getrandbits(160)
        hops.append(greedy_hops(cluster, random.choice(cluster.ids), key, cluster.holders(key, REFERENCE_K)))
    assert fmean(hops) == pytest.approx(REFERENCE_HOPS[nodes], rel=0.05)


@pytest.mark.parametrize("nodes", [300, 3000])
def test_the_ideal_table_is_the_one_that_a_router_fills(nodes: int) -> None:
    """A router's table that met everybody, in an order of chance, has as many contacts of each bucket, but for one."""
    random = Random(nodes)
    ids = drawn(nodes, random)
    own = ids[0]
    ideal = Cluster(ids, filled_sizes(CONTACTS_MAX), random).table(own)
    table = Table(NodeId(own.to_bytes(20, "big")))
    for each in ids[1:]:
        node_id = NodeId(each.to_bytes(20, "big"))
        if table.wants(node_id):
            table.add(node_id, HOME)
    built = [contact.long_id for contact in table.contacts()]
    assert len(built) == len(ideal) == min(nodes - 1, CONTACTS_MAX)
    for shared in range(160):
        assert abs(in_bucket(own, built, shared) - in_bucket(own, ideal, shared)) <= 1


def in_bucket(own: int, ids: list[int], shared_bits: int) -> int:
    return sum((own ^ each).bit_length() == 160 - shared_bits for each in ids)


def test_holders_are_the_closest_of_all() -> None:
    """Who holds a key is found without looking at everybody, and is the same."""
    random = Random(7)
    cluster = Cluster(drawn(500, random), paper_sizes(20), random)
    for _ in range(200):
        key = random.getrandbits(160)
        assert cluster.holders(key, 8) == sorted(cluster.ids, key=key.__xor__)[:8]
    assert cluster.holders(key, 600) == sorted(cluster.ids, key=key.__xor__)


def test_places_are_given_to_the_smallest_buckets_first() -> None:
    """All of the small buckets, equally many of the others, and no place is left over."""
    assert filled_sizes(20)([100, 2, 50, 4]) == [7, 2, 7, 4]
    assert filled_sizes(20)([5, 5]) == [5, 5]
    assert sum(filled_sizes(383)([5000, 2500, 1250, 600, 3])) == 383


def test_dead_contacts_cost_no_hops_but_are_passed_over() -> None:
    """A lookup finds a living holder though many are dead, and says so when none is alive."""
    random = Random(3)
    cluster = Cluster(drawn(2000, random), filled_sizes(CONTACTS_MAX), random)
    dead = set(random.sample(cluster.ids, 600))
    asker = next(each for each in cluster.ids if each not in dead)
    for _ in range(50):
        key = random.getrandbits(160)
        holders = cluster.holders(key, 8)
        hops = window_hops(cluster, asker, key, holders, alpha=3, answer=10, random=random, dead=dead)
        assert hops is not None
        assert 0 <= hops <= 4
        doomed = dead | set(holders)
        if asker not in holders:
            assert window_hops(cluster, asker, key, holders, alpha=3, answer=10, random=random, dead=doomed) is None


def test_a_cluster_of_those_who_know_one_another_needs_one_hop() -> None:
    """Nobody is farther than one question where every table has everybody."""
    random = Random(5)
    cluster = Cluster(drawn(100, random), filled_sizes(CONTACTS_MAX), random)
    for _ in range(100):
        key, asker = random.getrandbits(160), random.choice(cluster.ids)
        holders = cluster.holders(key, 8)
        hops = window_hops(cluster, asker, key, holders, alpha=3, answer=10, random=random)
        assert hops == greedy_hops(cluster, asker, key, holders) == (asker not in holders)
