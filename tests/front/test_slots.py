"""Slots: who gets one, who is named to those who do not, and how many of them there are as a link has room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.front.slots import DIGESTS_MAX, RATED_BYTES_MIN, SLOTS_MAX, SLOTS_MIN, TAKERS_MAX, Slots
from p2pmirror.oci import Digest
from p2pmirror.wire.identity import NodeId

PIECE = 4 << 20
MIB = 1 << 20
DIGEST = Digest.of(b"a blob")


def peer(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def give_back(slots: Slots, number: int, *, digest: Digest | None = DIGEST, whole: bool = True) -> None:
    slots.give_back(peer(number), digest, sent=PIECE, seconds=1.0, whole=whole)


def test_there_are_as_many_as_there_are() -> None:
    """Nobody gets one more, and one that is given back is somebody else's."""
    slots = Slots(3)
    assert [slots.take(peer(number)) for number in range(4)] == [True, True, True, False]
    assert (slots.taken, slots.count) == (3, 3)
    give_back(slots, 0)
    assert slots.has_room(peer(4))
    assert slots.take(peer(4))
    assert not slots.has_room(peer(4))


def test_one_peer_leaves_room_for_others() -> None:
    """However many are free, a peer has `per_peer`, and again as soon as it has given one back."""
    slots = Slots(10, per_peer=2)
    assert [slots.take(peer(1)) for _ in range(3)] == [True, True, False]
    assert slots.take(peer(2))
    give_back(slots, 1)
    assert slots.take(peer(1))


def test_who_took_it_is_named() -> None:
    """The latest first, whoever asks left out; who did not get all that he asked for is not named."""
    slots = Slots(10)
    for number in (1, 2, 3, 1):
        slots.take(peer(number))
        give_back(slots, number, whole=number != 3)
    assert slots.takers(DIGEST, peer(9)) == (peer(1), peer(2))
    assert slots.takers(DIGEST, peer(1)) == (peer(2),)
    assert slots.takers(Digest.of(b"another"), peer(9)) == ()
    assert slots.takers(None, peer(9)) == ()


def test_what_is_remembered_is_bounded() -> None:
    """A thousand peers that take a thousand blobs leave the last ones in memory."""
    slots = Slots(10)
    for number in range(1000):
        for digest in (DIGEST, Digest.of(b"%d" % number), None):
            slots.take(peer(number))
            give_back(slots, number, digest=digest)
    assert slots.takers(DIGEST, peer(0)) == tuple(peer(number) for number in range(999, 999 - TAKERS_MAX, -1))
    known = [number for number in range(1000) if slots.takers(Digest.of(b"%d" % number), peer(0))]
    assert known == list(range(1000 - DIGESTS_MAX + 1, 1000))
    assert slots.taken == 0


def counts_over(uplink: float, downlink: float, *, peers: int = 40, rounds: int = 200) -> list[int]:
    """Have peers take pieces, as many at once as may, over links of so many bytes a second; return the counts."""
    slots, counts = Slots(), list[int]()
    for turn in range(rounds):
        takers = [number for number in range(peers) if slots.take(peer(number))]
        rate = min(uplink / len(takers), downlink)
        for number in takers:
            slots.give_back(peer(number), DIGEST, sent=PIECE, seconds=PIECE / rate, whole=True)
        if turn >= rounds // 2:
            counts.append(slots.count)
    return counts


def test_a_full_link_has_few() -> None:
    """Where four fill it there are no more, but for the one that is tried now and then."""
    counts = counts_over(12 * MIB, 1000 * MIB)
    assert set(counts) <= {SLOTS_MIN, SLOTS_MIN + 1}


@pytest.mark.parametrize(("uplink", "downlink", "least"), [(1000, 1, SLOTS_MAX - 1), (120, 12, 9), (80, 10, 7)])
def test_slow_peers_leave_room_for_more(uplink: int, downlink: int, least: int) -> None:
    """As long as one more brings its share there is one more, up to the most."""
    counts = counts_over(uplink * MIB, downlink * MIB)
    assert min(counts) >= least
    assert max(counts) <= min(SLOTS_MAX, least + 3)


def test_without_need_nothing_changes() -> None:
    """As long as nobody was refused their number stays; what is small or took no time says nothing either."""
    slots = Slots()
    for number in range(100):
        slots.take(peer(number))
        give_back(slots, number)
    assert slots.count == SLOTS_MIN
    for number in range(SLOTS_MIN + 1):
        slots.take(peer(number))
    for number in range(SLOTS_MIN):
        slots.give_back(peer(number), None, sent=RATED_BYTES_MIN - 1, seconds=1.0, whole=True)
    assert slots.count == SLOTS_MIN


def test_a_number_that_was_set_stays() -> None:
    """Whatever is refused."""
    slots = Slots(5)
    for _ in range(20):
        taken = [number for number in range(8) if slots.take(peer(number))]
        for number in taken:
            give_back(slots, number)
    assert slots.count == 5


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1e9), st.integers(0, 1 << 40)), max_size=200))
def test_it_stays_within_its_bounds(uploads: list[tuple[int, float, int]]) -> None:
    """Whatever the uploads are like, there are from `SLOTS_MIN` up to `SLOTS_MAX`."""
    slots = Slots()
    for number, seconds, sent in uploads:
        taken = [each for each in range(number + 1) if slots.take(peer(each))]
        for each in taken:
            slots.give_back(peer(each), None, sent=sent, seconds=seconds, whole=False)
        assert SLOTS_MIN <= slots.count <= SLOTS_MAX
    assert slots.taken == 0
