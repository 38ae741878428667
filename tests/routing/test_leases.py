"""One leads as long as it speaks, only it prolongs or ends that, and nobody can fill a holder without limit."""

from typing import Any

import pytest

from p2pmirror.routing import leases as room
from p2pmirror.routing.leases import PASSED_OVER_S, RESIGNED_S, Leader, Leases, seed_of
from p2pmirror.routing.protocol import LEASE_S, STANDSTILL_S
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from tests.routing.conformance import key

BOOT, REBOOT = b"b" * 8, b"c" * 8


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def leader(number: int, *, boot: bytes = BOOT, host: str = "") -> Leader:
    host = host or f"10.0.{number // 250}.{number % 250 + 1}"
    return Leader(node(number), boot, Address(host, 29998), Address(host, 29999), "zone")


def test_the_first_asker_leads_and_the_second_learns_it() -> None:
    """Each later asker is told the same leader, as a provider that leads and has not all of it."""
    leases = Leases()
    assert leases.wants(key(1), leader(1), 1, 0.0) == leader(1)
    assert leases.wants(key(1), leader(2), 1, 0.1) == leader(1)
    assert leases.wants(key(2), leader(2), 2, 0.1) == leader(2)
    assert leases.leader(key(1), 1.0) == leader(1)
    assert leases.leader(key(3), 1.0) is None
    provider = leader(1).as_provider()
    assert (provider.node_id, provider.complete, provider.leading) == (node(1), False, True)
    assert (len(leases), leases.live(1.0), leases.live(LEASE_S + 0.1)) == (2, 2, 0)


def test_who_fell_silent_and_leads_again_begins_anew() -> None:
    """What a lease that ended by silence had moved, and when, says nothing of the next one of the same node."""
    leases = Leases()
    for term, begins in ((1, 0.0), (2, STANDSTILL_S + 1.0), (3, 2 * STANDSTILL_S)):
        assert leases.wants(key(1), leader(1), term, begins) == leader(1)
        assert leases.reports(key(1), leader(1), term, 0, begins + 1.0)
        assert leases.wants(key(1), leader(2), 1, begins + 1.5) == leader(1)


def test_a_lease_ends_with_silence_and_goes_on_with_each_report() -> None:
    """At `LEASE_S` after the last word, and not before, the next asker leads; asking again is a word."""
    leases = Leases()
    leases.wants(key(1), leader(1), 1, 0.0)
    assert leases.reports(key(1), leader(1), 1, 5, LEASE_S - 0.1)
    assert leases.wants(key(1), leader(2), 1, 2 * LEASE_S - 0.2) == leader(1)
    assert leases.wants(key(1), leader(1), 2, 2 * LEASE_S - 0.2) == leader(1)
    assert leases.wants(key(1), leader(2), 1, 3 * LEASE_S - 0.3) == leader(1)
    assert leases.wants(key(1), leader(2), 1, 3 * LEASE_S - 0.2) == leader(2)
    assert not leases.reports(key(1), leader(1), 2, 6, 3 * LEASE_S)


def report_until(leases: Leases, until: float, count: int, *, began: float = 0.0, step_s: float = 0.4) -> None:
    """Let node 1 report the same number of bytes again and again."""
    now = began
    while (now := now + step_s) < until:
        leases.reports(key(1), leader(1), 1, count, now)


def test_words_without_bytes_keep_no_lease() -> None:
    """Who reports and moves nothing leads for `STANDSTILL_S` and no longer, also when it asks anew meanwhile."""
    leases = Leases()
    leases.wants(key(1), leader(1), 1, 0.0)
    report_until(leases, 3.0, 0)
    leases.wants(key(1), leader(1), 1, 3.0)
    report_until(leases, STANDSTILL_S, 0, began=3.0)
    assert leases.leader(key(1), STANDSTILL_S - 0.1) == leader(1)
    assert leases.leader(key(1), STANDSTILL_S) is None
    assert leases.wants(key(1), leader(2), 1, STANDSTILL_S + 0.1) == leader(2)
    assert not leases.reports(key(1), leader(1), 1, 0, STANDSTILL_S + 0.2)
    assert leases.leader(key(1), STANDSTILL_S + 0.3) == leader(2)


def test_a_byte_is_progress() -> None:
    """Each report of more bytes keeps the lease as long again; one of fewer, as a late copy has, does not."""
    leases = Leases()
    leases.wants(key(1), leader(1), 1, 0.0)
    report_until(leases, 5.0, 0)
    leases.reports(key(1), leader(1), 1, 1, 5.0)
    report_until(leases, 10.9, 0, began=5.0)
    assert leases.leader(key(1), 5.0 + STANDSTILL_S - 0.1) == leader(1)
    report_until(leases, 12.0, 1, began=10.8)
    assert leases.leader(key(1), 5.0 + STANDSTILL_S) is None
    leases.reports(key(1), leader(1), 1, 2, 12.0)
    assert leases.leader(key(1), 12.1) == leader(1)


def test_who_waits_moves_too() -> None:
    """Of a second leader nothing is kept either once its bytes stand still: then whoever asks leads."""
    leases = Leases()
    leases.wants(key(1), leader(1), 1, 0.0)
    now = 0.0
    while (now := now + 0.4) < STANDSTILL_S + 0.5:
        leases.reports(key(1), leader(1), 1, 0, now)
        leases.reports(key(1), leader(2), 1, 7, now)
    assert leases.wants(key(1), leader(3), 1, now) == leader(3)


def test_a_lease_after_a_resignation_begins_anew() -> None:
    """A node that has resigned and fetches the same once more has as long for its first byte as anybody."""
    leases = Leases()
    leases.wants(key(1), leader(1), 1, 0.0)
    report_until(leases, 5.0, 100)
    leases.resigns(key(1), node(1), leader(1).router, 1)
    leases.wants(key(1), leader(1), 2, 6.0)
    leases.reports(key(1), leader(1), 2, 0, 7.5)
    assert leases.leader(key(1), 9.0) == leader(1)


def test_nobody_speaks_for_another() -> None:
    """Reports and resignations count from the leader alone, where it is and in the life in which it leads."""
    leases = Leases()
    leases.wants(key(1), leader(1), 3, 0.0)
    assert not leases.reports(key(1), leader(2), 9, 5, 1.0)
    assert not leases.reports(key(1), leader(1, host="10.9.9.9"), 9, 5, 1.0)
    assert not leases.reports(key(1), leader(1, boot=REBOOT), 9, 5, 1.0)
    assert not leases.resigns(key(1), node(2), leader(2).router, 9)
    assert not leases.resigns(key(1), node(1), leader(2).router, 9)
    assert not leases.resigns(key(2), node(1), leader(1).router, 9)
    assert leases.wants(key(1), leader(3), 1, LEASE_S - 0.1) == leader(1)
    assert leases.wants(key(1), leader(3), 1, LEASE_S + 1.0) == leader(3)


def test_what_is_resigned_is_free_and_stays_so_for_late_copies() -> None:
    """After a resignation the next asker leads; copies of what was said before it change nothing, in any order."""
    leases = Leases()
    leases.wants(key(1), leader(1), 3, 0.0)
    assert leases.resigns(key(1), node(1), leader(1).router, 3)
    assert leases.leader(key(1), 0.1) is None
    assert not leases.reports(key(1), leader(1), 3, 5, 0.1)
    assert leases.wants(key(1), leader(1), 3, 0.1) == leader(1)
    leases.told(key(1), leader(1), 3, "10.9.9.9", 0.1)
    assert leases.leader(key(1), 0.1) is None
    assert leases.wants(key(1), leader(2), 1, 0.2) == leader(2)
    assert leases.resigns(key(1), node(2), leader(2).router, 1)
    assert leases.wants(key(1), leader(2), 2, 0.3) == leader(2)
    assert not leases.resigns(key(1), node(2), leader(2).router, 1)
    assert leases.leader(key(1), 0.4) == leader(2)


def test_a_copy_of_an_earlier_term_does_not_set_a_lease_back() -> None:
    """A late report of an earlier lease of the same node prolongs, and a resignation of that one ends nothing."""
    leases = Leases()
    leases.wants(key(1), leader(1), 3, 0.0)
    leases.reports(key(1), leader(1), 2, 5, 0.5)
    assert not leases.resigns(key(1), node(1), leader(1).router, 2)
    assert leases.leader(key(1), 1.0) == leader(1)


def test_a_holder_that_never_heard_of_a_lease_takes_a_report_for_one() -> None:
    """A holder that began anew knows the leader with the next report."""
    leases = Leases()
    assert leases.reports(key(1), leader(1), 7, 5, 0.0)
    assert leases.wants(key(1), leader(2), 1, 1.0) == leader(1)


def test_whoever_leads_besides_is_the_next_leader() -> None:
    """Two holders granted it: the second leader is no leader here, until the first falls silent, resigns or dies."""
    for ends in ("silent", "resigned", "gone", "not there"):
        leases = Leases()
        leases.wants(key(1), leader(1), 1, 0.0)
        assert not leases.reports(key(1), leader(2), 1, 5, 0.5)
        leases.told(key(1), leader(3), 1, "10.9.9.9", 0.6)
        assert leases.named(key(1), 0.7) == [leader(1), leader(2)]
        assert not leases.reports(key(1), leader(3), 1, 5, 0.8)
        assert not leases.reports(key(1), leader(2), 1, 6, 1.5)
        if ends == "silent":
            now = LEASE_S
        else:
            now = 1.6
            assert leases.leader(key(1), now) == leader(1)
            if ends == "resigned":
                leases.resigns(key(1), node(1), leader(1).router, 1)
            elif ends == "gone":
                leases.gone(node(1))
            else:
                leases.end(key(1), leader(1))
        assert leases.wants(key(1), leader(4), 1, now) == leader(2)
        assert leases.wants(key(1), leader(4), 1, 3.6) == leader(4)


def test_who_waits_and_falls_silent_or_dies_does_not_lead() -> None:
    """A second leader that said nothing for a lease is forgotten, and so is one that is gone; others may wait then."""
    leases = Leases()
    leases.wants(key(1), leader(1), 1, 0.0)
    leases.told(key(1), leader(1), 1, "10.9.9.9", 0.0)
    leases.told(key(1), leader(2), 1, "10.9.9.9", 0.0)
    leases.told(key(1), leader(2), 1, "10.9.9.9", 1.9)
    leases.reports(key(1), leader(1), 1, 5, 1.9)
    assert leases.named(key(1), 2.0) == [leader(1)]
    leases.told(key(1), leader(3), 1, "10.9.9.9", 2.0)
    assert leases.named(key(1), 2.0) == [leader(1), leader(3)]
    assert not leases.reports(key(1), leader(4), 1, 5, 2.1)
    assert leases.named(key(1), 2.1) == [leader(1), leader(4)]
    leases.gone(node(4))
    assert leases.named(key(1), 2.1) == [leader(1)]
    assert not leases.reports(key(1), leader(4), 1, 5, 2.1)
    assert not leases.resigns(key(1), node(4), leader(4).router, 1)
    assert leases.named(key(1), 2.1) == [leader(1)]
    leases.gone(node(1))
    assert (leases.named(key(1), 2.1), len(leases)) == ([], 0)


def test_the_dead_lead_nothing() -> None:
    """What a node led that is gone, or does not answer, is free; what others lead is not."""
    leases = Leases()
    for number in (1, 2, 3):
        leases.wants(key(number), leader(1 + number // 3), 1, 0.0)
    leases.gone(node(1))
    assert [leases.leader(key(number), 0.1) for number in (1, 2, 3)] == [None, None, leader(2)]
    leases.end(key(3), leader(2, boot=REBOOT))
    leases.end(key(9), leader(2))
    assert leases.leader(key(3), 0.1) == leader(2)
    leases.end(key(3), leader(2))
    assert (leases.leader(key(3), 0.1), len(leases)) == (None, 0)


def test_who_begins_anew_leads_again() -> None:
    """A node that asks in another life leads under that one, with numbers that begin anew."""
    leases = Leases()
    leases.wants(key(1), leader(1), 50, 0.0)
    assert leases.wants(key(1), leader(1, boot=REBOOT), 1, 0.5) == leader(1, boot=REBOOT)
    assert leases.reports(key(1), leader(1, boot=REBOOT), 1, 5, 1.0)
    assert leases.resigns(key(1), node(1), leader(1).router, 1)


def test_what_another_holder_tells_counts_where_nobody_leads() -> None:
    """It binds for one lease, in which the leader has to speak; it takes nothing from whoever leads already."""
    leases = Leases()
    leases.told(key(1), leader(1), 1, "10.9.9.9", 0.0)
    assert leases.wants(key(1), leader(2), 1, 1.0) == leader(1)
    leases.told(key(1), leader(3), 1, "10.9.9.9", 1.0)
    assert leases.wants(key(1), leader(1), 1, 1.5) == leader(1)
    assert leases.wants(key(1), leader(2), 1, LEASE_S + 1.0) == leader(1)
    assert leases.leader(key(1), LEASE_S + 1.4) == leader(1)


def test_nobody_keeps_a_key_from_being_fetched_by_telling_of_leaders() -> None:
    """Who was named and did not speak is not believed again for a while, whoever tells of him."""
    leases = Leases()
    leases.told(key(1), leader(1), 1, "10.9.9.9", 0.0)
    leases.told(key(1), leader(1), 2, "10.9.9.9", LEASE_S)
    leases.told(key(1), leader(3), 2, "10.9.9.9", LEASE_S)
    assert leases.leader(key(1), LEASE_S) is None
    leases.told(key(1), leader(3), 2, "10.9.9.9", LEASE_S + PASSED_OVER_S)
    assert leases.leader(key(1), LEASE_S + PASSED_OVER_S) == leader(3)


def test_a_seed_is_named_and_passed_over_when_it_says_nothing() -> None:
    """All who ask are told the same seed; it leads once it asks; a silent one costs one lease."""
    seeds = [leader(8), leader(9)]
    leases = Leases()
    named = leases.wants(key(1), leader(1), 1, 0.0, seeds=seeds)
    assert named in seeds
    assert leases.wants(key(1), leader(2), 1, 0.5, seeds=seeds) == named
    (other,) = [seed for seed in seeds if seed != named]
    assert leases.wants(key(1), other, 1, 0.5) == named
    assert leases.wants(key(1), leader(2), 1, LEASE_S, seeds=seeds) == leader(2)
    assert leases.wants(key(1), leader(1), 1, 2 * LEASE_S, seeds=seeds) == named
    assert leases.wants(key(1), named, 1, 2 * LEASE_S + 0.1) == named
    assert leases.reports(key(1), named, 1, 5, 3 * LEASE_S)
    assert leases.wants(key(1), leader(1), 1, 5 * LEASE_S, seeds=seeds) == other
    leases.resigns(key(1), other.node_id, other.router, 0)
    assert leases.wants(key(1), leader(1), 1, 5 * LEASE_S, seeds=[other]) == leader(1)


def test_seeds_share_the_keys() -> None:
    """Each key has one seed wherever the same ones are known, in any order, and each seed has about its share."""
    seeds = [leader(number) for number in range(4)]
    chosen = [seed_of(key(number), seeds) for number in range(400)]
    assert chosen == [seed_of(key(number), reversed(seeds)) for number in range(400)]
    assert all(60 < chosen.count(seed) < 140 for seed in seeds)
    assert seed_of(key(1), ()) is None


@pytest.mark.parametrize("resigned", [False, True])
def test_what_has_ended_is_forgotten(resigned: bool) -> None:
    """Who fell silent after a while, who resigned after a minute: not before, and nothing is left."""
    kept_s = LEASE_S + (RESIGNED_S if resigned else PASSED_OVER_S)
    leases = Leases()
    leases.wants(key(1), leader(1), 1, 0.0)
    if resigned:
        leases.resigns(key(1), node(1), leader(1).router, 1)
    leases.expire(kept_s - 0.1)
    assert len(leases) == 1
    leases.expire(kept_s)
    assert (len(leases), leases._hosts) == (0, {})


def test_a_host_gives_up_its_own_oldest(monkeypatch: Any) -> None:
    """Whoever takes more leases than a host may have loses the one that spoke longest ago, and nobody else's."""
    monkeypatch.setattr(room, "PER_HOST_MAX", 3)
    leases = Leases()
    leases.wants(key(0), leader(1), 1, 0.0)
    for number in range(1, 4):
        leases.wants(key(number), leader(2), 1, 0.0)
    leases.reports(key(1), leader(2), 1, 5, 0.1)
    leases.wants(key(4), leader(2), 1, 0.2)
    led = [leases.leader(key(number), 0.3) for number in range(5)]
    assert led == [leader(1), leader(2), None, leader(2), leader(2)]


def test_one_host_cannot_keep_the_others_out(monkeypatch: Any) -> None:
    """Where all places are taken the host with most leases gives up its oldest, also when it only told of leaders."""
    monkeypatch.setattr(room, "LEASES_MAX", 10)
    leases = Leases()
    for number in range(20):
        leases.told(key(number), leader(100 + number), 1, "10.9.9.9", 0.0)
    assert len(leases) == 10
    for number in range(5):
        assert leases.wants(key(50 + number), leader(number), 1, 0.1) == leader(number)
    for number in range(5):
        assert leases.leader(key(50 + number), 0.2) == leader(number)
    assert len(leases) == 10
