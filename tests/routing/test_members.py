"""Who is alive, suspected or gone, and how news of it travels and is refuted."""

import math
from random import Random
from typing import Any

import msgspec
import pytest

from p2pmirror.routing.dht import members as room
from p2pmirror.routing.dht.members import FRESH_S, GONE_KEPT_S, PASSING_S, SUSPICION_S, Change, Membership
from p2pmirror.routing.dht.messages import ALIVE, GONE, LEFT, NEWS_MAX, SUSPECT, News, NodeInfo, pack_address
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

BOOT = b"b" * 8
REBOOT = b"c" * 8


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def at(number: int) -> Address:
    return Address(f"10.0.{number // 250}.{number % 250 + 1}", 29998)


def info(number: int, *, boot: bytes = BOOT, incarnation: int = 0) -> NodeInfo:
    return NodeInfo(node(number), boot, incarnation, pack_address(at(number)), pack_address(at(number)), "")


def news(number: int, state: int, *, boot: bytes = BOOT, incarnation: int = 0) -> News:
    introduced = info(number, boot=boot, incarnation=incarnation) if state == ALIVE else None
    return News(node(number), boot, incarnation, state, introduced)


def membership(*numbers: int) -> Membership:
    own = NodeInfo(node(0), BOOT, 0, b"", pack_address(at(0)), "")
    members = Membership(own, Random(1))
    for number in numbers:
        assert members.met(info(number), 0.0)
        members.admitted(node(number))
    members.changes()
    return members


def end(members: Membership, number: int, now: float) -> None:
    """Let a contact be gone at `now`: nobody reached it."""
    members.suspect(node(number), now - SUSPICION_S)
    members.tick(now)


def state(members: Membership, number: int) -> Any:
    known = members.get(node(number))
    return None if known is None else known.word


def kinds(members: Membership) -> list[tuple[str, NodeId]]:
    return [(change.kind, change.node_id) for change in members.changes()]


def test_whoever_is_met_is_a_member_once() -> None:
    """A newcomer is news once it is a contact, the first time only; this node is no member of its own list."""
    members = membership()
    assert members.met(info(1), 0)
    assert kinds(members) == []
    assert members.news() == ()
    members.admitted(node(1))
    assert members.met(info(1), 1)
    assert not members.met(info(0), 1)
    assert kinds(members) == [("joined", node(1))]
    assert [each.about for each in members.news()] == [node(1)]
    assert (len(members), state(members, 1)) == (1, "alive")
    assert members.get(node(1)).router == at(1)  # type: ignore[union-attr]


def test_fresh_until_eight_seconds_or_doubt() -> None:
    """A member may be handed out for 8 s after it was heard, unless it is doubted; hearing it ends the doubt."""
    members = membership(1)
    assert members.is_fresh(node(1), FRESH_S - 0.1)
    assert not members.is_fresh(node(1), FRESH_S)
    assert members.heard(node(1), at(1), 20)
    assert members.is_fresh(node(1), 21)
    members.doubt(node(1))
    members.doubt(node(9))
    assert not members.is_fresh(node(1), 21)
    members.heard(node(1), at(1), 22)
    assert members.is_fresh(node(1), 22)
    assert not members.is_fresh(node(9), 22)


def test_only_its_own_address_speaks_for_a_member() -> None:
    """Hearing an unknown node, or a known one from elsewhere, counts for nothing."""
    members = membership(1)
    assert not members.heard(node(1), at(2), 20)
    assert not members.heard(node(2), at(2), 20)
    assert not members.is_fresh(node(1), 20)


def test_suspicion_ends_in_death_or_in_a_word_of_life() -> None:
    """A suspect is gone after its time, and alive when it is heard."""
    members = membership(1, 2)
    members.suspect(node(1), 10)
    members.suspect(node(2), 10)
    members.suspect(node(1), 12)
    members.suspect(node(3), 12)
    assert (state(members, 1), members.is_fresh(node(1), 7)) == ("suspect", False)
    members.heard(node(2), at(2), 11)
    members.tick(10 + SUSPICION_S)
    assert (state(members, 1), state(members, 2)) == ("gone", "alive")
    assert kinds(members) == [("gone", node(1))]
    assert {known.info.node_id for known in members.present()} == {node(2)}
    members.tick(10 + SUSPICION_S + GONE_KEPT_S)
    assert state(members, 1) is None


def test_the_gone_return_when_they_are_heard() -> None:
    """A node that was taken for gone and is heard has returned, and can be told of the accusation."""
    members = membership(1)
    end(members, 1, 1)
    assert kinds(members) == [("gone", node(1))]
    assert members.heard(node(1), at(1), 2)
    assert kinds(members) == [("returned", node(1))]
    assert members.accusation(node(1)) == (news(1, GONE),)
    assert members.accusation(node(7)) == ()


def test_a_goodbye_is_final_for_that_life() -> None:
    """Who left is not revived by late datagrams of that boot; another boot is welcome."""
    members = membership(1)
    members.left(node(1), REBOOT, 1)
    assert state(members, 1) == "alive"
    members.left(node(1), BOOT, 1)
    members.left(node(1), BOOT, 2)
    assert not members.heard(node(1), at(1), 2)
    assert not members.met(info(1), 2)
    assert not members.accepts(node(1), BOOT, at(1))
    assert kinds(members) == [("gone", node(1))]
    assert members.met(info(1, boot=REBOOT), 3)
    assert kinds(members) == [("returned", node(1))]


def test_a_goodbye_after_death_changes_only_what_is_remembered() -> None:
    """A node that was gone already and says goodbye is gone once, and for good."""
    members = membership(1)
    end(members, 1, 1)
    members.left(node(1), BOOT, 2)
    assert kinds(members) == [("gone", node(1))]
    assert not members.heard(node(1), at(1), 3)


def test_a_new_boot_is_a_new_life() -> None:
    """A restart is a death and a return; what the earlier life says afterwards is ignored."""
    members = membership(1)
    assert members.met(info(1, boot=REBOOT), 5)
    assert kinds(members) == [("gone", node(1)), ("returned", node(1))]
    assert not members.met(info(1), 6)
    assert not members.accepts(node(1), BOOT, at(1))
    assert members.accepts(node(1), REBOOT, at(1))
    assert members.apply([news(1, GONE)], 7) == []
    assert members.apply([news(1, ALIVE)], 7) == []
    assert state(members, 1) == "alive"


def test_another_address_speaks_for_a_node_only_when_it_is_lost_or_has_left() -> None:
    """Records from another address are taken from strangers, and for nodes that were looked for where they were."""
    members = membership(1, 2)
    assert members.accepts(node(9), BOOT, at(3))
    assert not members.accepts(node(1), BOOT, at(3))
    members.apply([news(1, GONE)], 1)
    assert not members.accepts(node(1), BOOT, at(3))
    members.lost(node(1), 2)
    assert members.accepts(node(1), BOOT, at(3))
    assert members.heard(node(1), at(1), 3)
    assert not members.accepts(node(1), BOOT, at(3))
    members.left(node(2), BOOT, 1)
    assert members.accepts(node(2), REBOOT, at(3))


def test_an_older_introduction_does_not_replace_a_newer_one() -> None:
    """What a node says of itself counts by incarnation."""
    members = membership()
    members.met(info(1, incarnation=5), 0)
    assert members.met(info(1, incarnation=4), 1)
    assert members.get(node(1)).info.incarnation == 5  # type: ignore[union-attr]


def test_news_of_strangers_are_introductions() -> None:
    """Who is said to be alive is to be pinged; who is said to be anything else is nobody."""
    members = membership()
    strangers = members.apply([news(1, ALIVE), news(2, SUSPECT), news(3, GONE), news(4, LEFT)], 0)
    assert strangers == [info(1)]
    assert len(members) == 0


@pytest.mark.parametrize(
    ("said", "incarnation", "word"),
    [
        (SUSPECT, 2, "suspect"),
        (SUSPECT, 1, "alive"),
        (GONE, 2, "suspect"),
        (GONE, 1, "alive"),
        (LEFT, 2, "suspect"),
        (LEFT, 1, "alive"),
        (LEFT, 2**63 - 1, "alive"),
        (GONE, 2**63 - 1, "alive"),
        (ALIVE, 3, "alive"),
    ],
)
def test_news_counts_by_incarnation(said: int, incarnation: int, word: str) -> None:
    """Suspicion, death and departure of an earlier incarnation are old, and those of a far later one are invented."""
    members = membership()
    members.met(info(1, incarnation=2), 0)
    members.admitted(node(1))
    assert members.apply([news(1, said, incarnation=incarnation)], 1) == []
    assert state(members, 1) == word
    members.apply([news(1, said, incarnation=incarnation)], 1)
    assert state(members, 1) == word


def test_a_higher_incarnation_clears_a_suspect_and_knocks_for_the_gone() -> None:
    """Life under a higher incarnation ends a suspicion; for a gone node it is a reason to ping."""
    members = membership(1, 2)
    members.suspect(node(1), 1)
    members.apply([news(1, ALIVE)], 1)
    assert state(members, 1) == "suspect"
    members.apply([news(1, ALIVE, incarnation=1)], 1)
    assert state(members, 1) == "alive"
    assert members.get(node(1)).deadline == math.inf  # type: ignore[union-attr]
    end(members, 2, 1)
    assert members.apply([news(2, ALIVE)], 2) == []
    assert members.apply([news(2, ALIVE, incarnation=1)], 2) == [info(2, incarnation=1)]


def test_accusations_are_refuted() -> None:
    """This node raises its incarnation when it is suspected, and says everything again when it was taken for gone."""
    members = membership(1)
    members.apply([news(0, SUSPECT)], 1)
    assert (members.own.incarnation, members.changes()) == (1, [])
    members.apply([news(0, SUSPECT), news(0, ALIVE, incarnation=9), news(0, GONE, boot=REBOOT)], 1)
    assert (members.own.incarnation, members.changes()) == (1, [])
    members.apply([news(0, GONE, incarnation=4)], 1)
    assert members.own.incarnation == 5
    assert members.changes() == [Change("accused", node(0))]
    members.own = msgspec.structs.replace(members.own, router=pack_address(at(0)))
    members.apply([news(0, SUSPECT, incarnation=5)], 1)
    assert any(each.about == node(0) and each.incarnation == 6 for each in members.news())


def test_everybody_is_pinged_once_a_round() -> None:
    """A round has everybody present once, in another order each time; the gone are left out."""
    members = membership(*range(1, 21))
    end(members, 7, 0)
    rounds = [[members.next_ping().info.node_id for _ in range(19)] for _ in range(3)]  # type: ignore[union-attr]
    assert all(len(set(each)) == 19 and node(7) not in each for each in rounds[1:])
    assert rounds[1] != rounds[2]
    assert membership().next_ping() is None


def test_knocks_and_helpers() -> None:
    """Gone members are knocked at; three living ones help to ping another."""
    members = membership(1, 2, 3, 4, 5)
    assert members.next_knock() is None
    end(members, 5, 0)
    members.left(node(4), BOOT, 0)
    assert members.next_knock() is members.get(node(5))
    assert {known.info.node_id for known in members.helpers(node(1))} == {node(2), node(3)}


def test_news_is_passed_on_a_bounded_number_of_times() -> None:
    """Each piece of news rides on a few datagrams, the least told first, at most eight on each."""
    members = membership(*range(1, 13))
    told: dict[bytes, int] = {}
    for _ in range(1000):
        riding = members.news()
        assert len(riding) <= NEWS_MAX
        for each in riding:
            told[each.about] = told.get(each.about, 0) + 1
    assert set(told) == {node(number) for number in range(1, 13)}
    assert set(told.values()) == {math.ceil(math.log(14))}, "a newcomer also introduces itself"
    members.apply([news(3, GONE)], 0)
    assert sum(len(members.news()) for _ in range(100)) == math.ceil(4 * math.log(14))
    assert members.news() == ()


def test_who_comes_by_is_remembered_for_a_while() -> None:
    """A node that is no contact may be handed out, is neither watched nor counted, and is forgotten once silent."""
    members = membership(1)
    members.met(info(2), 0)
    assert members.is_fresh(node(2), 1)
    assert [known.info.node_id for known in members.all()] == [node(1)]
    assert {members.next_ping().info.node_id for _ in range(5)} == {node(1)}  # type: ignore[union-attr]
    members.heard(node(2), at(2), 5)
    members.tick(PASSING_S + 4)
    assert state(members, 2) == "alive"
    members.tick(PASSING_S + 5)
    assert (state(members, 1), state(members, 2)) == ("alive", None)
    assert kinds(members) == []


def test_a_contact_that_gives_way_is_no_news() -> None:
    """Who is displaced from the table comes by from then on: nobody is told, and nothing is dropped."""
    members = membership(1)
    while members.news():
        pass
    members.displaced(node(1))
    assert (kinds(members), members.news(), members.present()) == ([], (), [])
    members.suspect(node(1), 1)
    assert state(members, 1) == "alive"
    members.apply([news(1, SUSPECT)], 1)
    assert not members.is_fresh(node(1), 1)
    members.heard(node(1), at(1), 2)
    members.apply([news(1, GONE)], 2)
    assert not members.is_fresh(node(1), 2)
    assert (kinds(members), members.news()) == ([], ())
    assert members.doubtful() == [at(1), at(1)]


def test_limits(monkeypatch: Any) -> None:
    """Members, gone members and news are bounded."""
    members = membership(*range(1, 500))
    assert len(members._news) == room.NEWS_HELD_MAX
    monkeypatch.setattr(room, "MEMBERS_MAX", 499)
    assert not members.met(info(999), 0)
    monkeypatch.setattr(room, "GONE_MAX", 2)
    for number in (1, 2, 3):
        end(members, number, number)
    assert [state(members, number) for number in (1, 2, 3)] == [None, "gone", "gone"]


@pytest.mark.parametrize("said", [SUSPECT, GONE, LEFT])
def test_nobody_is_gone_by_hearsay(said: int) -> None:
    """Whom others say to be dead or to have left is pinged, and not named unasked; silent for a while he is gone."""
    members = membership(1, 2)
    members.apply([news(1, said), news(2, said)], 0)
    assert [state(members, number) for number in (1, 2)] == ["suspect", "suspect"]
    assert members.doubtful() == [at(1), at(2)]
    assert (members.doubtful(), members.is_fresh(node(1), 0), kinds(members)) == ([], False, [])
    assert members.heard(node(1), at(1), 1)
    members.tick(SUSPICION_S)
    assert [state(members, number) for number in (1, 2)] == ["alive", "gone"]


def test_nobody_is_driven_to_the_end_of_his_incarnations() -> None:
    """An accusation in a far later incarnation is not answered, and no refutation leaps: there is always a next one."""
    members = membership(1)
    for said in (SUSPECT, GONE, LEFT):
        members.apply([News(node(0), BOOT, 2**63 - 1, said)], 0)
        assert members.own.incarnation == 0
    assert kinds(members) == []
    members.suspect(node(1), 0)
    members.apply([news(1, ALIVE, incarnation=2**63 - 1)], 0)
    assert state(members, 1) == "suspect"
    members.apply([news(1, ALIVE, incarnation=room.INCARNATION_LEAP_MAX)], 0)
    assert state(members, 1) == "alive"


def test_who_is_not_where_it_was() -> None:
    """Who is lost is gone at once and may be elsewhere; a stranger, or one that is gone already, is not gone again."""
    members = membership(1)
    members.lost(node(1), 1.0)
    members.lost(node(1), 2.0)
    members.lost(node(9), 2.0)
    assert kinds(members) == [("gone", node(1))]
    assert members.may_move(node(1))
    assert [each.state for each in members.news()] == [GONE]


def test_the_end_of_one_in_passing_is_no_news() -> None:
    """Nobody was told of a member that is no contact, and nobody is told that it is gone."""
    members = membership()
    assert members.met(info(1), 0.0)
    members.lost(node(1), 1.0)
    assert kinds(members) == [("gone", node(1))]
    assert members.news() == ()


def test_a_goodbye_after_the_end_is_news() -> None:
    """Who was taken for gone and says goodbye after all is told of as left: that is final for its life."""
    members = membership(1)
    end(members, 1, 10.0)
    members.left(node(1), BOOT, 11.0)
    assert kinds(members) == [("gone", node(1))]
    assert [each.state for each in members.news()] == [LEFT]
    assert not members.accepts(node(1), BOOT, at(1))
