"""The routing table names exactly the closest, forgets nobody for one loss, and sends nothing."""

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pmirror.routing.dht.table import CONTACTS_MAX, Table, distance
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

OWN = NodeId(b"\x80" + bytes(19))
TARGETS = st.binary(min_size=20, max_size=20)


def at(number: int) -> Address:
    return Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 29998)


def filled(count: int, *, seed: int = 1, contacts: int = 4096, bucket: int | None = None) -> tuple[Table, list[NodeId]]:
    random = Random(seed)
    table = Table(OWN, contacts_max=contacts, bucket_contacts_max=bucket)
    ids = [NodeId(random.randbytes(20)) for _ in range(count)]
    for number, node_id in enumerate(ids):
        meet(table, node_id, at(number))
    return table, ids


def meet(table: Table, node_id: NodeId, address: Address) -> NodeId | None:
    if table.wants(node_id):
        return table.add(node_id, address)
    table.turn_away(node_id)
    return None


def nearest(ids: Iterable[NodeId], target: bytes, count: int) -> list[NodeId]:
    return sorted(ids, key=lambda node_id: distance(node_id, target))[:count]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 600), st.integers(100, 400), st.integers(1, 30), st.integers(), TARGETS)
def test_closest_is_exact(count: int, contacts: int, wanted: int, seed: int, target: bytes) -> None:
    """Whatever was turned away, the k nearest of all contacts come, nearest first."""
    table, _ = filled(count, seed=seed, contacts=contacts)
    expected = nearest((contact.id for contact in table.contacts()), target, wanted)
    assert [contact.id for contact in table.closest(target, wanted)] == expected
    assert len(table) == min(count, contacts)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 600), st.integers(100, 400), st.integers(), TARGETS)
@example(
    482, 100, 1278469, bytes(20)
)  # the eight nearest to this node reach into a bucket that others did not get into
def test_whoever_knows_all_near_knows_the_nearest(count: int, contacts: int, seed: int, target: bytes) -> None:
    """Where the table says that it knows everybody near a key, its closest contacts are the closest of all nodes."""
    table, ids = filled(count, seed=seed, contacts=contacts)
    if table.knows_all_near(target, 8):
        assert [contact.id for contact in table.closest(target, 8)] == nearest(ids, target, 8)
    if count <= contacts:
        assert table.knows_all_near(target, 8)
    own = table._bucket(int.from_bytes(OWN, "big"))
    assert not own.turned_away, "nobody of this node's own bucket is"
    assert [contact.id for contact in table.closest(OWN, len(own))] == nearest(ids, OWN, len(own))


def test_buckets_tile_the_space_without_overlap() -> None:
    """Each id has one bucket; every contact is in the bucket of its range, whose width is a power of two."""
    table, _ = filled(2000, contacts=300)
    assert table.buckets[0].range[0] == 0
    assert table.buckets[-1].range[1] == 2**160 - 1
    for one, two in zip(table.buckets, table.buckets[1:], strict=False):
        assert two.range[0] == one.range[1] + 1
    for bucket in table.buckets:
        assert all(bucket.range[0] <= contact.long_id <= bucket.range[1] for contact in bucket.nodes.values())
        assert (bucket.range[1] - bucket.range[0] + 1).bit_count() == 1


def test_a_large_cluster_takes_the_same_share_of_each_full_bucket() -> None:
    """Of 5,000 nodes as many are known as there are places: full buckets differ by one at most, the rest is whole."""
    table, ids = filled(5000, contacts=CONTACTS_MAX)
    assert len(table) == CONTACTS_MAX
    sizes = [len(bucket) for bucket in table.buckets if bucket.turned_away]
    assert max(sizes) - min(sizes) <= 1
    for bucket in table.buckets:
        if not bucket.turned_away:
            inside = [each for each in ids if bucket.range[0] <= int.from_bytes(each, "big") <= bucket.range[1]]
            assert set(bucket.nodes) == set(inside)
            assert len(inside) <= max(sizes)


def test_a_newcomer_takes_the_place_of_the_least_recently_heard() -> None:
    """In a full table the fullest bucket gives way, by whoever was not heard for the longest time."""
    table = Table(OWN, contacts_max=12)
    far = [NodeId(bytes([n]) + bytes(19)) for n in range(12)]
    for number, node_id in enumerate(far):
        assert meet(table, node_id, at(number)) is None
    table.heard(far[0], at(0))
    near = NodeId(b"\x81" + bytes(19))
    assert not table.wants(NodeId(b"\x14" + bytes(19)))
    assert meet(table, near, at(9)) == far[1]
    assert near in table
    assert far[1] not in table
    with pytest.raises(ValueError, match="no place"):
        table.add(near, at(1))


def test_whom_it_would_keep() -> None:
    """Of many strangers those are named who would be contacts in the end; nobody is taken in by asking."""
    table, ids = filled(10)
    strangers = [NodeId(Random(n).randbytes(20)) for n in range(3000)]
    kept = table.would_keep([*ids, *strangers], 100)
    assert len(kept) == 100
    assert set(kept) <= set(strangers)
    assert len(table) == 10
    assert set(nearest(strangers, OWN, 8)) <= set(kept)


def test_a_table_of_a_cluster_that_has_shrunk_is_not_believed_before_others_were_asked() -> None:
    """Once half of the places are free the table says so, and knows nobody's neighbours until it is told to."""
    table, _ = filled(1000, contacts=100)
    assert not table.is_sparse
    for contact in table.contacts()[:50]:
        table.forget(contact.id)
    assert (table.is_sparse, table.knows_all) == (True, False)
    table.trust()
    assert (table.is_sparse, table.knows_all) == (False, True)


def test_pages_are_in_the_order_of_ids() -> None:
    """Page by page everybody comes once."""
    table, ids = filled(50)
    paged: list[NodeId] = []
    after = bytes(20)
    while page := table.page_after(after, 16):
        paged += [contact.id for contact in page]
        after = page[-1].id
    assert paged == sorted(ids)


def test_a_few_hundred_nodes_are_known_entirely() -> None:
    """A cluster of a few hundred nodes fits into the table whole."""
    table, ids = filled(CONTACTS_MAX, contacts=CONTACTS_MAX)
    assert {contact.id for contact in table.contacts()} == set(ids)
    assert all(node_id in table for node_id in ids)
    assert table.knows_all_near(ids[0], 8)


def test_hearing_refreshes_order_and_address() -> None:
    """A node that is heard goes to the end of its bucket, with its present address and without failures."""
    table, ids = filled(3)
    table.failed(ids[0])
    table.heard(ids[0], at(0))
    table.heard(ids[1], at(77))
    assert list(table.buckets[0].nodes) == [ids[2], ids[0], ids[1]]
    first, second = table.get(ids[0]), table.get(ids[1])
    assert first is not None
    assert second is not None
    assert (first.failures, second.address) == (0, at(77))


def test_silence_is_counted_and_evicts_nobody() -> None:
    """Questions without an answer are counted until the node is heard; unknown nodes do not matter."""
    table, ids = filled(2)
    for _ in range(5):
        table.failed(ids[0])
    contact = table.get(ids[0])
    assert contact is not None
    assert contact.failures == 5
    table.heard(ids[0], at(0))
    assert contact.failures == 0
    table.failed(OWN)
    table.forget(OWN)
    assert len(table) == 2


def test_this_node_is_never_in_its_table() -> None:
    """Hearing oneself changes nothing, and there is no place for it."""
    table = Table(OWN)
    assert table.heard(OWN, at(1)) is None
    assert not table.wants(OWN)
    assert len(table) == 0


def test_what_a_table_lacks() -> None:
    """While everybody is known each newcomer is lacked; afterwards only where few of a bucket are known."""
    table, ids = filled(100)
    stranger = NodeId(b"\x01" * 20)
    assert table.lacks(stranger)
    table.turn_away(ids[0])
    table.turn_away(OWN)
    assert table.knows_all, "a contact is not turned away, and neither is this node"
    table.turn_away(stranger)
    assert not table.lacks(stranger)
    assert not table.knows_all_near(stranger, 8)
    assert table.lacks(NodeId(b"\x80" + bytes(18) + b"\x01"))


def test_whom_a_table_does_not_want_it_does_not_take() -> None:
    """There is no way into the table but through `wants`: a contact is in it once, this node never."""
    table, ids = filled(1)
    for node_id in (ids[0], OWN):
        with pytest.raises(ValueError, match="no place"):
            table.add(node_id, at(9))
    assert len(table) == 1
    contact = table.get(ids[0])
    assert str(contact) == "10.0.0.0:29998", "kademlia's own nodes print so"
