"""The last word of each provider counts, until it ends, and nobody can fill a holder without limit."""

from random import Random
from typing import Any

import pytest

from p2pmirror.routing.dht import records as room
from p2pmirror.routing.dht.messages import COMPLETE, PARTIAL, RECORDS_MAX, WITHDRAWN, Claim, Entry
from p2pmirror.routing.dht.records import Records
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from tests.routing.conformance import claim, key

NOBODY = NodeId(b"\xff" * 20)


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def put(
    records: Records,
    number: int,
    *entries: Entry,
    boot: bytes = b"b" * 8,
    now: float = 0.0,
    ttl_s: float = 600,
    zone: str = "",
    host: str = "",
) -> int:
    host = host or f"10.0.{number // 250}.{number % 250 + 1}"
    addresses = Address(host, 20000 + number), Address(host, 29999)
    return records.store(node(number), boot, addresses, zone, entries, ttl_s=ttl_s, now=now)


def found(records: Records, number: int = 1, *, now: float = 0.0, zone: str = "", but: NodeId = NOBODY) -> list[NodeId]:
    return [record.node_id for record in records.find(key(number), zone, now, Random(1), but=but)]


def entry(sequence: int, state: int = COMPLETE, number: int = 1, **more: Any) -> Entry:
    return Entry(key(number), sequence, state, **more)


def test_a_provider_that_does_not_answer_is_forgotten_after_some_failures() -> None:
    """One or two silences are lost datagrams; a word in between counts from the start; strangers change nothing."""
    records = Records()
    put(records, 1, entry(1))
    for _ in range(room.FAILURES_MAX - 1):
        records.failed(node(1))
    put(records, 1, entry(2))
    for _ in range(room.FAILURES_MAX - 1):
        records.failed(node(1))
        records.failed(node(2))
    assert found(records) == [node(1)]
    records.failed(node(1))
    assert found(records) == []


def test_many_providers_of_one_key() -> None:
    """Each provider has its own record; the asker is left out."""
    records = Records()
    for number in range(3):
        assert put(records, number, entry(1)) == 1
    assert sorted(found(records)) == [node(0), node(1), node(2)]
    assert node(1) not in found(records, but=node(1))
    assert found(records, 2) == []
    assert len(records) == 3


def test_the_higher_sequence_wins_whatever_comes_late() -> None:
    """An older statement changes nothing, also not after a withdrawal; the same one again renews."""
    records = Records()
    put(records, 1, entry(5, PARTIAL))
    put(records, 1, entry(4, COMPLETE))
    assert records.find(key(1), "", 0, Random(1), but=NOBODY)[0].state == PARTIAL
    put(records, 1, entry(5, PARTIAL), now=500)
    assert found(records, now=700) == [node(1)]
    put(records, 1, entry(6, WITHDRAWN), now=700)
    put(records, 1, entry(5, PARTIAL), now=701)
    assert found(records, now=701) == []
    put(records, 1, entry(7), now=702)
    assert found(records, now=702) == [node(1)]


def test_a_withdrawal_is_remembered_for_a_minute_at_least() -> None:
    """A tombstone that came with a short time to live still stops what it overtook."""
    records = Records()
    put(records, 1, entry(6, WITHDRAWN), ttl_s=1)
    records.expire(59)
    put(records, 1, entry(5), now=59)
    assert found(records, now=59) == []
    records.expire(61)
    assert len(records) == 0
    assert records.source(node(1)) is None


def test_records_end_at_their_deadline() -> None:
    """A record is neither handed out nor kept after its time; a renewed one is."""
    records = Records()
    put(records, 1, entry(1), entry(1, number=2), ttl_s=10)
    put(records, 1, entry(1, number=2), now=5, ttl_s=10)
    assert found(records, now=10) == []
    assert records.expire(10) == 1
    assert found(records, 2, now=14) == [node(1)]
    assert records.expire(15) == 1
    assert records.expire(99) == 0


def test_what_a_dead_node_said_is_dropped_at_once() -> None:
    """Dropping forgets one provider's records, and nobody else's; what was queued to end does no harm."""
    records = Records()
    put(records, 1, entry(1), entry(1, number=2))
    put(records, 2, entry(1))
    assert records.drop(node(1)) == 2
    assert records.drop(node(1)) == 0
    assert found(records) == [node(2)]
    assert records.expire(600) == 1


def test_another_boot_begins_anew() -> None:
    """A node that restarted provides only what it has said since, even under lower sequence numbers."""
    records = Records()
    put(records, 1, entry(50), entry(51, number=2))
    put(records, 1, entry(1), boot=b"c" * 8)
    assert found(records) == [node(1)]
    assert found(records, 2) == []


def test_a_sample_of_sixteen_the_same_zone_first() -> None:
    """A hot key gives a random sample; providers of the asker's zone come first."""
    records = Records()
    for number in range(40):
        put(records, number, entry(1), zone="near" if number < 3 else "far")
    sample = found(records, zone="near")
    assert len(sample) == RECORDS_MAX
    assert set(sample[:3]) == {node(0), node(1), node(2)}


def test_tags_are_kept_with_the_moment_they_were_said() -> None:
    """A claim comes back as it was said."""
    records = Records()
    put(records, 1, entry(1, tag=Claim.of(claim(1))), now=7)
    (record,) = records.find(key(1), "", 8, Random(1), but=NOBODY)
    assert (record.tag, record.said_at) == (claim(1), 7)


@pytest.mark.parametrize("limit", ["RECORDS_HELD_MAX", "PER_KEY_MAX", "PER_PROVIDER_MAX"])
def test_limits(monkeypatch: Any, limit: str) -> None:
    """Beyond each limit new records are refused, and held ones are still changed."""
    monkeypatch.setattr(room, limit, 2)
    records = Records()
    taken = [
        put(
            records,
            0 if limit == "PER_PROVIDER_MAX" else number,
            entry(1, number=1 if limit == "PER_KEY_MAX" else number),
        )
        for number in range(3)
    ]
    assert taken == [1, 1, 0]
    assert len(records) == 2


def test_one_host_cannot_keep_the_others_out(monkeypatch: Any) -> None:
    """Where all places are taken, those of the host that has most of them are given to hosts that have fewer."""
    monkeypatch.setattr(room, "RECORDS_HELD_MAX", 100)
    records = Records()
    for number in range(50):
        put(records, number, *(entry(1, number=1000 * number + each) for each in range(10)), host="10.9.9.9")
    assert len(records) == 100
    assert put(records, 60, *(entry(1, number=each) for each in range(1, 21))) == 20
    assert put(records, 61, *(entry(1, number=each) for each in range(1, 61))) == 40
    assert put(records, 0, entry(1, number=77), host="10.9.9.9") == 0
    assert len(records) == 100
    assert [node(60) in found(records, each) for each in range(1, 21)] == [True] * 20
    assert records.expire(600) == 100
    assert (len(records), records._hosts, records._sources) == (0, {}, {})


def test_one_host_cannot_take_a_key(monkeypatch: Any) -> None:
    """Whoever invents providers of a key keeps no provider on another host out of it, nor out of a sample."""
    monkeypatch.setattr(room, "PER_KEY_MAX", 50)
    records = Records()
    for number in range(60):
        put(records, number, entry(1), host="10.9.9.9", zone="near")
    assert put(records, 60, entry(1), zone="far") == 1
    assert put(records, 61, entry(1), zone="far") == 1
    assert len(records) == 50
    for seed in range(20):
        sample = {record.node_id for record in records.find(key(1), "near", 0, Random(seed), but=NOBODY)}
        assert sample > {node(60), node(61)}


def test_who_says_nothing_is_not_remembered() -> None:
    """Batches without entries leave nothing behind, however many invent a provider."""
    records = Records()
    for number in range(100):
        put(records, number)
    assert (len(records), records._sources, records._hosts) == (0, {}, {})


def test_flapping_does_not_grow_the_queue_of_ends() -> None:
    """A provider that is dropped and comes back without end leaves a bounded queue."""
    records = Records()
    for _ in range(3 * room.STALE_ENDS_MAX):
        put(records, 1, entry(1))
        records.drop(node(1))
    assert len(records._ends) <= room.STALE_ENDS_MAX + 3
    put(records, 1, entry(1))
    assert records.expire(600) == 1


def test_what_was_dropped_is_not_queued_for_ever(monkeypatch) -> None:
    """Providers that come and go leave no more behind than there are records, and those that are there still end."""
    monkeypatch.setattr(room, "STALE_ENDS_MAX", 10)
    records = Records()
    put(records, 1, Entry(key(1), 1, COMPLETE), ttl_s=100)
    for number in range(2, 200):
        put(records, number, Entry(key(1), 1, COMPLETE), ttl_s=600)
        records.drop(node(number))
        assert len(records._ends) <= 2 * len(records) + 11
    put(records, 200, Entry(key(1), 1, COMPLETE), ttl_s=200)
    assert set(found(records)) == {node(1), node(200)}
    records.expire(100.0)
    assert (len(records), found(records, now=100.0)) == (1, [node(200)])
    records.expire(200.0)
    assert len(records) == 0


def test_what_gave_way_is_not_queued_for_ever(monkeypatch) -> None:
    """Records that gave way to those of other hosts leave the queue of ends in time; each that is held still ends."""
    monkeypatch.setattr(room, "RECORDS_HELD_MAX", 6)
    monkeypatch.setattr(room, "STALE_ENDS_MAX", -3)  # so that so few make a look through the queue worth while
    records = Records()
    put(records, 1, *(Entry(key(number), 1, COMPLETE) for number in range(6)), ttl_s=100)
    for number in range(2, 7):
        assert put(records, number, Entry(key(9), 1, COMPLETE), ttl_s=200) == 1
        assert len(records._ends) <= 2 * len(records) - 2
    assert len(records._ends) == len(records) == 6
    records.expire(100.0)
    assert len(records) == 5
    records.expire(200.0)
    assert len(records) == 0
