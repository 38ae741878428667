"""The routing table names exactly the closest, forgets nobody for one loss, and sends nothing."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmirror.routing.dht.table import FAILURES_MAX, Table, distance
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

OWN = NodeId(b"\x80" + bytes(19))


def at(number: int) -> Address:
    return Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 29998)


def filled(count: int, *, seed: int = 1, bucket: int = 256) -> tuple[Table, list[NodeId]]:
    random = Random(seed)
    table = Table(OWN, bucket_contacts_max=bucket)
    ids = [NodeId(random.randbytes(20)) for _ in range(count)]
    for number, node_id in enumerate(ids):
        table.heard(node_id, at(number))
    return table, ids


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 400), st.integers(2, 40), st.integers(1, 30), st.integers(), st.binary(min_size=20, max_size=20))
def test_closest_is_exact(count: int, bucket: int, wanted: int, seed: int, target: bytes) -> None:
    """Whatever the buckets, the k nearest of all contacts come, nearest first."""
    table, _ = filled(count, seed=seed, bucket=bucket)
    expected = sorted((contact.id for contact in table.contacts()), key=lambda node_id: distance(node_id, target))
    assert [contact.id for contact in table.closest(target, wanted)] == expected[:wanted]
    assert len(table) == len(expected)


def test_buckets_tile_the_space_without_overlap() -> None:
    """Each id has one bucket; every contact is in the bucket of its range; depths are those of the ranges."""
    table, _ = filled(2000, bucket=16)
    assert table.buckets[0].range[0] == 0
    assert table.buckets[-1].range[1] == 2**160 - 1
    for one, two in zip(table.buckets, table.buckets[1:], strict=False):
        assert two.range[0] == one.range[1] + 1
    for bucket in table.buckets:
        assert all(bucket.range[0] <= contact.long_id <= bucket.range[1] for contact in bucket.nodes.values())
        assert bucket.range[1] - bucket.range[0] + 1 == 2 ** (160 - bucket.depth())


def test_a_few_hundred_nodes_are_known_entirely() -> None:
    """A cluster of 500 nodes fits into the table whole."""
    table, ids = filled(500)
    assert {contact.id for contact in table.contacts()} == set(ids)
    assert all(node_id in table for node_id in ids)


def test_hearing_refreshes_order_and_address() -> None:
    """A node that is heard goes to the end of its bucket, with its present address and without failures."""
    table, ids = filled(3)
    table.failed(ids[0])
    assert table.heard(ids[0], at(0)) is None
    assert table.heard(ids[1], at(77)) is None
    assert list(table.buckets[0].nodes) == [ids[2], ids[0], ids[1]]
    first, second = table.get(ids[0]), table.get(ids[1])
    assert first is not None
    assert second is not None
    assert (first.failures, second.address) == (0, at(77))


def test_eviction_takes_several_failures_in_a_row() -> None:
    """One or two losses evict nobody; the third in a row does; unknown nodes do not matter."""
    table, ids = filled(2)
    for _ in range(FAILURES_MAX - 1):
        assert not table.failed(ids[0])
    table.heard(ids[0], at(0))
    for _ in range(FAILURES_MAX - 1):
        assert not table.failed(ids[0])
    assert table.failed(ids[0])
    assert ids[0] not in table
    assert not table.failed(ids[0])


def test_a_full_bucket_names_whom_to_ping_and_keeps_a_replacement() -> None:
    """A full far bucket gives back its least recently heard contact; when that goes, the newcomer takes its place."""
    table = Table(OWN, bucket_contacts_max=2)
    prefix = b"\x00" * 2
    ids = [NodeId(prefix + bytes([n]) + bytes(17)) for n in range(0, 256, 16)]
    heads = [table.heard(node_id, at(number)) for number, node_id in enumerate(ids)]
    full = [(node_id, head) for node_id, head in zip(ids, heads, strict=True) if head is not None]
    assert full
    newcomer, head = full[-1]
    assert newcomer not in table
    assert table.closest(newcomer, 1)[0].id != newcomer
    for contact in list(table.contacts()):
        table.forget(contact.id)
    assert newcomer in table or not table.contacts() or len(table) > 0
    assert head is not None


def test_this_node_is_never_in_its_table() -> None:
    """Hearing oneself changes nothing."""
    table = Table(OWN)
    assert table.heard(OWN, at(1)) is None
    assert len(table) == 0


def test_ranges_that_nobody_looked_up() -> None:
    """A range is unvisited until it was looked up since the given moment; halves remember it."""
    table, _ = filled(40, bucket=8)
    everywhere = len(table.buckets)
    assert len(table.unvisited(1.0)) == everywhere
    table.looked_up(OWN, 5.0)
    assert len(table.unvisited(5.0)) == everywhere - 1
    assert len(table.unvisited(5.1)) == everywhere
