"""What a router knows: members, contacts and records agree, whoever speaks from wherever."""

from random import Random

from p2pmirror.routing.dht import view as room
from p2pmirror.routing.dht.members import FRESH_S, GONE_KEPT_S, SUSPICION_S
from p2pmirror.routing.dht.messages import ALIVE, COMPLETE, GONE, SUSPECT, Entry, News, NodeInfo, Store, pack_address
from p2pmirror.routing.dht.view import View
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

BOOT, REBOOT = b"1" * 8, b"2" * 8
KEY = bytes(20)


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 20)


def at(number: int) -> Address:
    return Address(f"10.0.0.{number}", 29998)


def info(number: int, boot: bytes = BOOT, zone: str = "", incarnation: int = 0) -> NodeInfo:
    return NodeInfo(node(number), boot, incarnation, b"", pack_address(at(number)), zone)


def said(number: int, boot: bytes = BOOT) -> Store:
    return Store(boot, pack_address(at(number)), "", 600, (Entry(KEY, 1, COMPLETE),))


class Watched(View):
    """A view that writes down whom it tells what."""

    def __init__(self, *, bucket: int | None = None, contacts: int | None = None) -> None:
        super().__init__(info(100, b"b" * 8), Random(1), bucket_contacts_max=bucket)
        if contacts is not None:
            self.table.contacts_max = contacts
        self.changed: list[tuple[str, NodeId]] = []
        self.met_at: list[Address] = []
        self.told_of: list[NodeId] = []
        self.silent_ones: list[NodeId] = []
        self.claims: list[tuple[NodeId, Address, Address]] = []
        self.on_change = lambda change: self.changed.append((change.kind, change.node_id))
        self.meet = self.met_at.append
        self.introduced = lambda node_id, _: self.told_of.append(node_id)
        self.on_silent = lambda known: self.silent_ones.append(NodeId(known.info.node_id))
        self.on_claimed = lambda node_id, old, new: self.claims.append((node_id, old, new))


def knowing(*numbers: int) -> Watched:
    view = Watched()
    for number in numbers:
        assert view.met(info(number), at(number), 0.0)
    view.changed.clear()
    return view


def in_agreement(view: View) -> bool:
    """Whether the table's contacts are the members that are present, which is the view's first law."""
    return {contact.id for contact in view.table.contacts()} == {each.info.node_id for each in view.members.present()}


def test_who_came_by_and_moved_leaves_no_records_behind() -> None:
    """A node that was forgotten and is met at another address is not handed out where it was."""
    view, old, new = Watched(), at(2), at(3)
    assert view.keep(node(5), old, said(2), 0.0) == 1
    assert view.met(info(5), old, 1.0)
    assert len(view.records) == 1, "where it was it is still"
    other = Watched()
    assert other.keep(node(5), old, said(2), 0.0) == 1
    assert other.met(info(5, REBOOT), new, 1.0)
    assert len(other.records) == 0


def test_strangers_are_pinged_and_members_noted() -> None:
    """Hearing a stranger has its address pinged; hearing a member where it is makes it fresh; elsewhere it is none."""
    view = knowing(1)
    view.heard(node(2), at(2), 1.0)
    assert view.met_at == [at(2)]
    view.heard(node(1), at(1), FRESH_S)
    assert view.may_hand_out(node(1), FRESH_S + 1)
    view.heard(node(1), at(9), 2 * FRESH_S)
    assert not view.may_hand_out(node(1), 2 * FRESH_S + 1)
    assert view.met_at == [at(2)]
    view.heard(view.own_id, at(100), 1.0)
    assert view.met_at == [at(2)], "a node does not ping itself"


def test_an_answer_without_news_is_a_sign_of_life() -> None:
    """Who answers as before is a member still; a new zone is taken over; neither is a change of the cluster."""
    view = knowing(1)
    assert view.met(info(1), at(1), FRESH_S)
    assert view.may_hand_out(node(1), FRESH_S + 1)
    assert view.met(info(1, zone="b"), at(1), FRESH_S)
    known = view.members.get(node(1))
    assert known is not None
    assert known.info.zone == "b"
    assert view.changed == []
    assert not view.met(view.own, at(100), 1.0), "this node is no member of its own view"


def test_a_life_that_is_over_is_not_believed() -> None:
    """After a node began anew a late answer of its earlier life changes nothing."""
    view = knowing(1)
    assert view.met(info(1, REBOOT), at(1), 1.0)
    assert view.changed == [("gone", node(1)), ("returned", node(1)), ("joined", node(1))]
    assert not view.met(info(1), at(1), 2.0)
    assert in_agreement(view)


def test_another_address_is_believed_once_the_known_one_is_silent() -> None:
    """A second address of an id is a claim to be looked into; when the first is silent, the id may move there."""
    view = knowing(1)
    assert view.keep(node(1), at(1), said(1), 0.0) == 1
    assert not view.met(info(1), at(2), 1.0)
    assert view.keep(node(1), at(2), said(2), 1.0) == 0
    assert view.claims == [(node(1), at(1), at(2))] * 2
    assert view.address(node(1)) == at(1)
    view.moved(node(1), at(1), at(2), 2.0)
    assert view.met_at == [at(2)]
    assert view.changed == [("gone", node(1))]
    assert len(view.records) == 0
    assert view.met(info(1), at(2), 3.0)
    assert view.address(node(1)) == at(2)
    assert in_agreement(view)


def test_a_move_away_from_where_nobody_was_changes_nothing() -> None:
    """Silence at an address that the node was not known at is no reason to drop it."""
    view = knowing(1)
    view.moved(node(1), at(7), at(8), 1.0)
    view.moved(node(2), at(7), at(8), 1.0)
    assert view.changed == []
    assert view.met_at == [at(8), at(8)]


def test_a_source_that_moved_says_it_all_again() -> None:
    """What a node that is no member has stored is dropped when nobody answers at its address."""
    view = Watched()
    assert view.keep(node(5), at(5), said(5), 0.0) == 1
    assert view.keep(node(5), at(6), said(6), 0.0) == 0
    assert view.claims == [(node(5), at(5), at(6))]
    assert view.address(node(5)) == at(5)
    view.moved(node(5), at(5), at(6), 1.0)
    assert view.address(node(5)) is None
    assert len(view.records) == 0


def test_news_is_pinged_before_it_counts() -> None:
    """A stranger in the news, and a member that others suspect, are pinged; who is told of is no member by that."""
    view = knowing(1)
    stranger = NodeInfo(node(2), BOOT, 0, pack_address(at(2)), pack_address(at(2)), "")
    view.told([News(node(2), BOOT, 0, ALIVE, stranger), News(node(1), BOOT, 0, SUSPECT)], 1.0)
    assert view.told_of == [node(2)]
    assert view.met_at == [at(1)]
    assert view.members.get(node(2)) is None
    full = Watched(bucket=1)
    assert full.met(info(201), at(201), 0.0)
    assert full.met(info(1), at(1), 0.0)
    stranger = NodeInfo(node(202), BOOT, 0, pack_address(at(2)), pack_address(at(2)), "")
    full.told([News(node(202), BOOT, 0, ALIVE, stranger)], 1.0)
    assert full.told_of == [], "no place, no ping"


def test_a_goodbye_is_believed_from_where_the_node_is() -> None:
    """A goodbye drops contact and records; from another address, or of another life, it is nothing."""
    view = knowing(1)
    assert view.keep(node(1), at(1), said(1), 0.0) == 1
    view.left(node(1), BOOT, at(9), 1.0)
    view.left(node(1), REBOOT, at(1), 1.0)
    assert len(view.records) == 1
    assert view.changed == []
    view.left(node(1), BOOT, at(1), 1.0)
    assert view.changed == [("gone", node(1))]
    assert len(view.records) == 0
    assert view.address(node(1)) is None
    assert in_agreement(view)
    assert view.keep(node(1), at(1), said(1), 2.0) == 0, "a goodbye is final for that life"
    assert view.keep(node(1), at(1), said(1, REBOOT), 2.0) == 1


def test_a_goodbye_of_a_source_drops_its_records() -> None:
    """Who stored without being a member takes its records along, when it is itself that says so."""
    view = Watched()
    assert view.keep(node(5), at(5), said(5), 0.0) == 1
    view.left(node(5), BOOT, at(6), 1.0)
    view.left(node(6), BOOT, at(6), 1.0)
    assert len(view.records) == 1
    view.left(node(5), BOOT, at(5), 1.0)
    assert len(view.records) == 0


def test_silence_counts_where_the_node_is() -> None:
    """A silent contact is looked at, a mere source dropped after some silences; another address does not count."""
    view = knowing(1)
    view.silent(node(1), at(9))
    assert view.silent_ones == []
    view.silent(node(1), at(1))
    assert view.silent_ones == [node(1)]
    assert view.contacts(KEY, 3, but=node(7)) == (), "who is silent is not handed out"
    assert view.keep(node(5), at(5), said(5), 0.0) == 1
    for _ in range(3):
        assert view.address(node(5)) == at(5)
        view.silent(node(5), at(5))
    assert view.address(node(5)) is None


def test_suspects_and_records_end_in_time() -> None:
    """Whom nobody reached is gone after the suspicion; records end by themselves."""
    view = knowing(1)
    assert view.keep(node(5), at(5), said(5), 0.0) == 1
    view.suspect(node(1), 1.0)
    assert view.changed == []
    view.tick(1.0 + SUSPICION_S)
    assert view.changed == [("gone", node(1))]
    assert in_agreement(view)
    view.tick(601.0)
    assert len(view.records) == 0
    view.tick(602.0 + GONE_KEPT_S)
    assert view.members.get(node(1)) is None


def test_who_may_be_handed_out() -> None:
    """This node, and members heard lately whose records name the address that they are at."""
    view = knowing(1)
    assert view.may_hand_out(view.own_id, 1e9)
    assert view.may_hand_out(node(1), 1.0)
    assert not view.may_hand_out(node(1), FRESH_S + 1.0)
    assert view.keep(node(5), at(5), said(5), 0.0) == 1
    assert not view.may_hand_out(node(5), 0.0), "a source that is no member is pinged first"


def test_own_records() -> None:
    """What this node has is kept under its own id; nobody else may say it in its name."""
    view = Watched()
    assert view.keep_own(said(100), 0.0) == 1
    assert view.keep(view.own_id, at(100), said(100), 0.0) == 0


def test_pages_and_contacts() -> None:
    """The closest include this node; a page goes on after an id and leaves out who is not alive; asker is no answer."""
    view = knowing(1, 2, 3)
    assert view.closest(node(100), 2)[0] == view.own_id
    assert view.closest(node(1), 4)[0] == node(1)
    page, is_last = view.page_after(bytes(20), 2)
    assert ([NodeId(each.node_id) for each in page], is_last) == ([node(1), node(2)], False)
    view.suspect(node(3), 1.0)
    assert view.page_after(node(2), 2) == ([], True)
    assert [contact.node_id for contact in view.contacts(node(1), 2, but=node(1))] == [node(3), node(2)]


def test_whom_the_table_has_no_place_for() -> None:
    """A newcomer of a full bucket is a member in passing, of whom nobody is told; it may store and be handed out."""
    view = Watched(bucket=1)
    assert view.met(info(201), at(201), 0.0)
    assert view.met(info(1), at(1), 0.0)
    view.changed.clear()
    assert view.met(info(202), at(202), 0.0)
    view.heard(node(202), at(202), 1.0)
    assert view.changed == []
    assert in_agreement(view)
    assert view.keep(node(202), at(202), said(202), 1.0) == 1
    assert view.may_hand_out(node(202), 1.0)
    view.silent(node(202), at(202))
    assert view.silent_ones == [], "only contacts are watched"
    view.moved(node(202), at(202), at(203), 2.0)
    assert view.changed == [("gone", node(202))]
    assert not view.members.news() or all(each.about != node(202) for each in view.members.news())


def test_a_newcomer_displaces_one_of_a_fuller_bucket() -> None:
    """In a full table the fullest bucket gives way; who gave way stays a member in passing."""
    view = Watched(contacts=20)
    for number in range(1, 21):
        assert view.met(info(number), at(number), 0.0)
    view.changed.clear()
    assert view.met(info(200), at(200), 0.0)
    assert view.changed == [("joined", node(200))]
    assert len(view.table) == 20
    assert in_agreement(view)
    assert len(view.members) == 21


def test_an_address_speaks_for_one_node() -> None:
    """Another id at an address ends the former; who changes too often there is not believed."""
    view = Watched()
    assert view.met(info(1), at(1), 0.0)
    assert view.met(info(2), at(1), 1.0)
    assert ("gone", node(1)) in view.changed
    assert view.met(info(3), at(1), 2.0)
    assert not view.met(info(4), at(1), 3.0), "the third in a few seconds"
    assert view.members.get(node(4)) is None
    assert view.met(info(4), at(1), 4 * FRESH_S)
    assert in_agreement(view)


def test_an_address_that_spoke_for_a_node_that_left_is_free() -> None:
    """Who takes over the address of a node that said goodbye is believed, and nobody is lost by it."""
    view = knowing(1)
    view.left(node(1), BOOT, at(1), 1.0)
    view.changed.clear()
    assert view.met(info(2), at(1), 2.0)
    assert view.changed == [("joined", node(2))]


def test_who_spoke_from_where_is_remembered_in_bounds(monkeypatch) -> None:
    """However many addresses speak, the oldest are forgotten."""
    monkeypatch.setattr(room, "SPEAKERS_MAX", 3)
    view = knowing(1, 2, 3, 4, 5)
    assert list(view._speakers) == [at(3), at(4), at(5)]
    view.members.lost(node(5), 1.0)
    assert view.met(info(5, REBOOT), at(5), 2.0)
    assert list(view._speakers) == [at(3), at(4), at(5)], "the same node there is not counted again"


def test_this_node_hears_that_it_was_taken_for_gone() -> None:
    """An accusation of this node is handed on as a change, and takes nobody out of the table."""
    view = knowing(1)
    view.told([News(view.own_id, b"b" * 8, 0, GONE)], 1.0)
    assert view.changed == [("accused", view.own_id)]
    assert view.own.incarnation == 1
    assert in_agreement(view)
