"""Holders are told what changed, once, again when it is time, and again when they did not answer."""

from random import Random

from p2pmirror.routing.dht.messages import COMPLETE, PARTIAL, WITHDRAWN
from p2pmirror.routing.dht.placement import RENEW_FRACTION, RETRY_S, TTL_S, WITHDRAW_TRIES_MAX, Placement
from p2pmirror.routing.protocol import Key, Offer
from p2pmirror.wire.identity import NodeId
from tests.routing.conformance import claim, key

RENEWED_BY = TTL_S * RENEW_FRACTION * 1.1


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


ONE, TWO, THREE = node(1), node(2), node(3)


def tell(placement: Placement, now: float, *closest: NodeId, radius: int = -1) -> dict[Key, list[NodeId]]:
    """Run a round in which everybody answers; return who was told what."""
    told = {}
    for each in placement.take(now):
        targets = placement.place(each, closest, radius)
        entry = placement.entry(each, now)
        assert entry is not None
        for target in targets:
            placement.told(target, [entry])
        if targets:
            told[each] = targets
    return told


def test_what_is_said_is_told_once() -> None:
    """Each holder is told once; saying the same again tells nobody."""
    placement = Placement(Random(1))
    assert placement.next_due() is None
    placement.advertise({key(1): Offer()}, 5.0)
    assert (placement.next_due(), len(placement)) == (5.0, 1)
    assert placement.take(4.9) == []
    assert (placement.offer(key(1)), placement.offer(key(2))) == (Offer(), None)
    assert tell(placement, 5.0, ONE, TWO) == {key(1): [ONE, TWO]}
    placement.advertise({key(1): Offer()}, 6.0)
    assert tell(placement, 6.0, ONE, TWO) == {}


def test_renewed_at_two_fifths_of_the_time_to_live() -> None:
    """All holders are told again at about 40 % of the time to live, under the same sequence number."""
    placement = Placement(Random(1))
    placement.advertise({key(1): Offer()}, 0.0)
    tell(placement, 0.0, ONE)
    before = placement.entry(key(1), 0)
    due = placement.next_due()
    assert due is not None
    assert TTL_S * RENEW_FRACTION * 0.9 <= due <= RENEWED_BY
    assert tell(placement, due, ONE) == {key(1): [ONE]}
    assert placement.entry(key(1), 0) == before


def test_a_change_has_a_higher_sequence() -> None:
    """Partial, complete, withdrawn and said again: each state under a higher number."""
    placement = Placement(Random(1))
    entries = []
    for offer in (Offer(complete=False), Offer(), None, Offer()):
        if offer is None:
            placement.withdraw([key(1), key(2)], 0.0)
        else:
            placement.advertise({key(1): offer}, 0.0)
        entries.append(placement.entry(key(1), 0.0))
    assert [entry.state for entry in entries if entry] == [PARTIAL, COMPLETE, WITHDRAWN, COMPLETE]
    sequences = [entry.sequence for entry in entries if entry]
    assert sequences == sorted(set(sequences))
    assert len(placement) == 1


def test_an_answer_to_an_older_state_does_not_count() -> None:
    """A holder that acknowledged what has changed since is told again."""
    placement = Placement(Random(1))
    placement.advertise({key(1): Offer(complete=False)}, 0.0)
    placement.take(0.0)
    placement.place(key(1), [ONE], -1)
    old = placement.entry(key(1), 0.0)
    assert old is not None
    placement.advertise({key(1): Offer()}, 0.0)
    placement.told(ONE, [old])
    assert tell(placement, 0.0, ONE) == {key(1): [ONE]}


def test_withdrawals_reach_all_who_held_and_are_forgotten() -> None:
    """Former holders are told too; when all know, or after some tries, the key is forgotten."""
    placement = Placement(Random(1))
    placement.advertise({key(1): Offer(), key(2): Offer()}, 0.0)
    tell(placement, 0.0, ONE, TWO)
    placement.withdraw_all(1.0)
    assert len(placement) == 0
    assert tell(placement, 1.0, THREE) == {key(1): [ONE, TWO, THREE], key(2): [ONE, TWO, THREE]}
    assert placement.entry(key(1), 1.0) is None
    assert placement.place(key(1), [ONE], -1) == []
    placement.advertise({key(3): Offer()}, 2.0)
    placement.withdraw([key(3)], 2.0)
    now = 2.0
    for _ in range(WITHDRAW_TRIES_MAX):
        assert placement.take(now) == [key(3)]
        placement.place(key(3), [ONE], -1)
        entry = placement.entry(key(3), now)
        assert entry is not None
        placement.not_told([entry], now)
        now += RETRY_S
    assert placement.next_due() is None
    placement.not_told([entry], now)
    placement.told(ONE, [entry])


def test_silent_holders_are_told_again() -> None:
    """A holder that did not answer is told again after a while, and only it."""
    placement = Placement(Random(1))
    placement.advertise({key(1): Offer()}, 0.0)
    placement.take(0.0)
    placement.place(key(1), [ONE, TWO], -1)
    entry = placement.entry(key(1), 0.0)
    assert entry is not None
    placement.told(ONE, [entry])
    placement.not_told([entry], 0.0)
    assert placement.next_due() == RETRY_S
    assert tell(placement, RETRY_S, ONE, TWO) == {key(1): [TWO]}


def test_newcomers_among_the_closest_are_told() -> None:
    """A node that joined within a key's radius has it placed anew; one outside does not."""
    placement = Placement(Random(1))
    placement.advertise({key(1): Offer()}, 0.0)
    position = int.from_bytes(key(1), "big")
    near, far = NodeId((position ^ 5).to_bytes(20, "big")), NodeId((position ^ 500).to_bytes(20, "big"))
    tell(placement, 0.0, ONE, radius=100)
    placement.joined(far, 1.0)
    assert placement.take(1.0) == []
    placement.joined(near, 1.0)
    assert tell(placement, 1.0, ONE, near) == {key(1): [near]}
    placement.joined(near, 2.0)
    assert tell(placement, 2.0, ONE, near) == {key(1): [near]}


def test_the_keys_of_a_dead_holder_are_placed_anew() -> None:
    """Whoever takes its place is told; keys that it did not hold are left alone."""
    placement = Placement(Random(1))
    placement.advertise({key(1): Offer()}, 0.0)
    tell(placement, 0.0, ONE, TWO)
    placement.gone(THREE, 1.0)
    assert placement.take(1.0) == []
    placement.gone(TWO, 1.0)
    assert tell(placement, 1.0, ONE, THREE) == {key(1): [THREE]}
    assert placement.holders() == {ONE, THREE}


def test_everything_is_said_again_when_this_node_was_taken_for_gone() -> None:
    """All keys go to all holders again."""
    placement = Placement(Random(1))
    placement.advertise({key(1): Offer(), key(2): Offer()}, 0.0)
    tell(placement, 0.0, ONE)
    placement.say_again(1.0)
    assert set(tell(placement, 1.0, ONE)) == {key(1), key(2)}


def test_a_tag_ages_while_it_is_kept() -> None:
    """The claim's age counts from the moment the node learnt it."""
    placement = Placement(Random(1))
    placement.advertise({key(1): Offer(tag=claim(1, age_s=3.0), since=10.0)}, 20.0)
    entry = placement.entry(key(1), 50.0)
    assert entry is not None
    assert entry.tag is not None
    assert entry.tag.age_s == 43.0


def test_the_queue_does_not_grow() -> None:
    """A key that changes without end leaves a bounded queue, and is still told."""
    placement = Placement(Random(1))
    for number in range(1000):
        placement.advertise({key(1): Offer(complete=bool(number % 2))}, float(number))
    assert len(placement._due) < 100
    assert tell(placement, 1000.0, ONE) == {key(1): [ONE]}
