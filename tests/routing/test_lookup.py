"""A lookup asks the right nodes, waits no longer than it must, and always ends."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmirror.routing.dht.lookup import (
    ALPHA,
    CANDIDATES_MAX,
    HOLDERS,
    PENDING_S,
    QUORUM,
    Lookup,
    soft_timeout_s,
)
from p2pmirror.wire.identity import NodeId

TARGET = bytes(20)
OWN = NodeId(b"\xff" * 20)


def node(number: int) -> NodeId:
    """Return the node at this distance from the target."""
    return NodeId(number.to_bytes(20, "big"))


def lookup(*numbers: int) -> Lookup:
    return Lookup(TARGET, OWN, [node(number) for number in numbers])


@pytest.mark.parametrize(("srtt", "soft"), [(None, 0.015), (0.0001, 0.005), (0.004, 0.012), (1.0, 0.025)])
def test_soft_timeout(srtt: float | None, soft: float) -> None:
    """Three round trips, within 5 and 25 ms."""
    assert soft_timeout_s(srtt) == pytest.approx(soft)


def test_nobody_known() -> None:
    """A node alone has ended before it began, and is the holder itself."""
    alone = lookup()
    assert alone.ended(0)
    assert alone.next_asks(0) == []
    assert alone.closest() == [OWN]
    assert alone.next_deadline(0) is None


def test_the_closest_are_asked_first_three_at_a_time() -> None:
    """Places go to the closest; an answer frees one, a failure too."""
    search = lookup(*range(20, 0, -1))
    assert search.next_asks(0) == [node(1), node(2), node(3)]
    for number in (1, 2, 3):
        search.asked(node(number), 1.0)
    assert search.next_asks(0) == []
    assert search.next_deadline(0) == 1.0
    search.answered(node(2), [])
    assert search.next_asks(0) == [node(4)]
    search.failed(node(1))
    assert search.next_asks(0) == [node(4), node(5)]


def test_a_closer_node_that_is_learnt_is_asked_next() -> None:
    """Answers name nodes; only new ones are told of; the closest go first."""
    search = lookup(10, 11)
    search.asked(node(10), 1.0)
    assert search.answered(node(10), [node(11), node(3), OWN]) == [node(3)]
    assert search.next_asks(0) == [node(3), node(11)]


def test_silence_frees_a_place_and_a_late_answer_counts() -> None:
    """Past its soft timeout a question holds no place; its answer is still taken."""
    search = lookup(*range(1, 12))
    for number in (1, 2, 3):
        search.asked(node(number), 1.0)
    assert search.next_asks(1.0) == [node(4), node(5), node(6)]
    search.answered(node(1), [], found=True)
    assert search.closest()[0] == node(1)


def test_without_records_it_ends_when_all_holders_answered() -> None:
    """Eight empty answers are a miss; seven are not."""
    search = lookup(*range(1, 20))
    for number in range(1, HOLDERS + 1):
        assert not search.ended(0)
        search.asked(node(number), 1.0)
        search.answered(node(number), [])
    assert search.ended(0)
    assert search.next_asks(0) == []
    assert search.closest() == [node(number) for number in range(1, 9)]


def test_with_records_a_quorum_is_enough() -> None:
    """Three holders with records end it, and no more are asked than are missing."""
    search = lookup(*range(1, 20))
    for number in range(1, ALPHA + 1):
        search.asked(node(number), 1.0)
    search.answered(node(1), [], found=True)
    assert search.next_asks(0) == []
    search.answered(node(2), [])
    assert search.next_asks(0) == [node(4)]
    search.asked(node(4), 1.0)
    search.answered(node(3), [], found=True)
    assert not search.ended(0)
    search.answered(node(4), [], found=True)
    assert search.ended(0)
    assert QUORUM == 3


def test_records_of_nodes_that_are_not_the_closest_end_nothing() -> None:
    """Three nodes that held the key before nearer ones came give records: the nearer ones are asked all the same."""
    search = lookup(11, 12, 13)
    for number in (11, 12, 13):
        search.asked(node(number), 1.0)
    search.answered(node(11), [node(1), node(2)], found=True)
    search.answered(node(12), [node(3)], found=True)
    search.answered(node(13), [], found=True)
    assert search.next_asks(0) == [node(1), node(2), node(3)]
    for number in (1, 2, 3):
        assert not search.ended(0)
        search.asked(node(number), 1.0)
        search.answered(node(number), [], found=True)
    assert search.ended(0)


def test_this_node_counts_as_a_holder() -> None:
    """Records found here are one of the three."""
    search = Lookup(TARGET, node(1), [node(2), node(3)])
    search.answered_here(found=True)
    for number in (2, 3):
        assert not search.ended(0)
        search.asked(node(number), 1.0)
        search.answered(node(number), [], found=True)
    assert search.ended(0)


def test_silent_nodes_are_passed_over_while_they_are_fewer() -> None:
    """One silent node of three ends the lookup at its soft timeout; a node that hears nobody waits for the failures."""
    search = lookup(1, 2)
    for number in (1, 2):
        search.asked(node(number), 1.0)
    search.answered(node(1), [])
    assert not search.ended(0.9)
    assert search.ended(1.0)
    deaf = lookup(1, 2)
    for number in (1, 2):
        deaf.asked(node(number), 1.0)
    assert not deaf.ended(5.0)
    deaf.failed(node(1))
    deaf.failed(node(2))
    assert deaf.ended(5.0)


def test_a_holder_that_pings_first_is_waited_for_without_a_place() -> None:
    """An answer in parts keeps the lookup open until its last part, or its deadline, and holds no place."""
    search = lookup(*range(1, 10))
    for number in (1, 2, 3):
        search.asked(node(number), 0.01)
    search.answered(node(1), [], pending_until=PENDING_S)
    assert search.next_asks(0.0) == [node(4)]
    for number in (2, 3, *range(4, 9)):
        search.asked(node(number), 0.02)
        search.answered(node(number), [])
    assert not search.ended(0.03)
    assert search.next_deadline(0.03) == PENDING_S
    search.answered(node(1), [], found=True)
    assert search.ended(0.03)


def test_a_part_and_a_failure_after_the_answer_change_nothing() -> None:
    """What comes after the last part is late."""
    search = lookup(1)
    search.asked(node(1), 1.0)
    search.answered(node(1), [])
    search.answered(node(1), [], pending_until=9.0)
    search.failed(node(1))
    assert search.closest() == [node(1), OWN]


def test_invented_nodes_are_bounded() -> None:
    """A flood of contacts is cut off."""
    search = lookup(5)
    search.asked(node(5), 1.0)
    assert len(search.answered(node(5), [node(number) for number in range(10, 2000)])) == CANDIDATES_MAX - 2


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.floats(0, 0.6), st.integers(1, 60))
def test_it_always_ends(seed: int, dead: float, count: int) -> None:
    """Whatever is answered, lost and invented, a lookup ends within its candidates' deadlines and asks nobody twice."""
    random = Random(seed)
    everybody = [NodeId(random.randbytes(20)) for _ in range(count)]
    search = Lookup(TARGET, OWN, random.sample(everybody, min(5, count)))
    now, asked, out = 0.0, set(), {}
    for _ in range(2000):
        for node_id in search.next_asks(now):
            assert node_id not in asked
            asked.add(node_id)
            out[node_id] = now + 0.1
            search.asked(node_id, now + 0.01)
        if search.ended(now):
            break
        now += 0.002
        for node_id, deadline in list(out.items()):
            if now >= deadline:
                search.failed(node_id)
                del out[node_id]
            elif random.random() < 0.3 and int.from_bytes(node_id[:2], "big") > dead * 65536:
                search.answered(node_id, random.sample(everybody, min(8, count)), found=random.random() < 0.2)
                del out[node_id]
    assert search.ended(now)
