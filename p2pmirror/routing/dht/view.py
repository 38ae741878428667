"""What this node knows of the cluster: members, routing table, records and leases, kept in agreement.

Laws:
- the table's contacts are the members that are present, and the records and leases of whoever is gone are dropped in
  the same step;
- whom the table has no place for is a member in passing: it may store, ask and be handed out, and nobody is told;
- only a node that was heard itself becomes a member; introductions by others are addresses to ping;
- a node id speaks from one address: another address is believed once the known one does not answer;
- an address speaks for one node id: when it speaks for another one the former is gone, and it may not do so often;
- a silence at an address counts only when it is the one at which the node is known.
"""

from collections.abc import Callable, Iterable
from random import Random

from p2pmirror.routing.dht.lookup import HOLDERS
from p2pmirror.routing.dht.members import FRESH_S, MEMBERS_MAX, Change, Known, Membership
from p2pmirror.routing.dht.messages import (
    ALIVE,
    SUSPECT,
    Contact,
    News,
    NodeInfo,
    Store,
    found_at,
    pack_address,
    unpack_address,
)
from p2pmirror.routing.dht.records import Records
from p2pmirror.routing.dht.table import Table
from p2pmirror.routing.leases import Leases
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

IDS_AT_ONCE = 2  # nodes that may follow one another at an address at once; then one in `FRESH_S`
SPEAKERS_MAX = 2 * MEMBERS_MAX  # addresses of which it is remembered for whom they spoke last
SILENT_PASSED_OVER = 4  # contacts near a key that may be silent without an answer getting shorter


class View:
    """Members, table and records of one node.

    `on_change` is told who joined, came back or is gone; `meet` has an address pinged, `introduced` has it pinged in a
    while, `on_silent` has a member looked at that did not answer, `on_claimed` has a node looked at, where it was, that
    has spoken from another address.
    """

    def __init__(
        self, own: NodeInfo, random: Random, *, holders: int = HOLDERS, bucket_contacts_max: int | None = None
    ) -> None:
        """Know nobody. `holders` nodes keep a key's records; `bucket_contacts_max` is as the table takes it."""
        self.holders = holders
        self.members = Membership(own, random)
        self.table = Table(NodeId(own.node_id), bucket_contacts_max=bucket_contacts_max)
        self.records = Records()
        self.leases = Leases()
        self.random = random
        self.on_change: Callable[[Change], None] = lambda _: None
        self.meet: Callable[[Address], None] = lambda _: None
        self.introduced: Callable[[NodeId, Address], None] = lambda _id, _address: None
        self.on_silent: Callable[[Known], None] = lambda _: None
        self.on_claimed: Callable[[NodeId, Address, Address], None] = lambda _node_id, _old, _new: None
        self._speakers: dict[Address, tuple[NodeId, float]] = {}  # the oldest first: for whom, and forgiven when

    @property
    def own(self) -> NodeInfo:
        """What this node says of itself."""
        return self.members.own

    @property
    def own_id(self) -> NodeId:
        """This node's id."""
        return NodeId(self.members.own.node_id)

    def heard(self, node_id: NodeId, source: Address, now: float) -> None:
        """Note that a node was heard from `source`; a stranger is to be pinged."""
        if self.members.heard(node_id, source, now):
            if self.table.heard(node_id, source) is None:
                self._into_table(node_id, source)
        elif self.members.get(node_id) is None and self.table.wants(node_id):
            self.meet(source)

    def met(self, info: NodeInfo, source: Address, now: float) -> bool:
        """Take in what a node that answered says of itself; return whether it is a member now."""
        node_id = NodeId(info.node_id)
        known = self.members.get(node_id)
        if known is not None and known.state == ALIVE and known.router == source and _says_the_same(known.info, info):
            self.heard(node_id, source, now)  # nearly always
            return True
        info = found_at(info, source)
        if known is not None and known.router != source and not self.members.may_move(node_id):
            self.on_claimed(node_id, known.router, source)
            return False
        if self._speaks_for_another(node_id, source, now) or not self.members.met(info, now):
            return False
        self._speaks(node_id, source, now)
        held = self.records.source(node_id)
        if held is not None and held.router != source:
            self.records.drop(node_id)  # it came by, was forgotten, and moved: it says again what it has
        self._into_table(node_id, source)
        return True

    def told(self, news: Iterable[News], now: float) -> None:
        """Take in news that rode on a datagram."""
        for info in self.members.apply(news, now):
            if self.table.wants(NodeId(info.node_id)) and self.table.lacks(NodeId(info.node_id)):
                self.introduced(NodeId(info.node_id), unpack_address(info.router))
        for address in self.members.doubtful():
            self.meet(address)
        self._settle()

    def address(self, node_id: NodeId) -> Address | None:
        """Return where the router of a node is: as a member that is there, else as the source of records."""
        known = self.members.get(node_id)
        if known is not None and known.state <= SUSPECT:
            return known.router
        source = self.records.source(node_id)
        return None if source is None else source.router

    def silent(self, node_id: NodeId, address: Address) -> None:
        """Note that a question to it there had no answer: a contact is looked at, others' records are not kept long."""
        if address != self.address(node_id):
            return  # whoever named that address was wrong, or lied
        known = self.members.get(node_id)
        if known is not None and known.is_present:
            self.table.failed(node_id)
            self.on_silent(known)
        else:
            self.records.failed(node_id)

    def suspect(self, node_id: NodeId, now: float) -> None:
        """Note that nobody reached it."""
        self.members.suspect(node_id, now)
        self._settle()

    def moved(self, node_id: NodeId, old: Address, new: Address, now: float) -> None:
        """Note that nobody answers for a node where it was; the address from which it spoke is asked again."""
        known, held = self.members.get(node_id), self.records.source(node_id)
        if known is not None and known.router == old:
            self.members.lost(node_id, now)
        if held is not None and held.router == old:
            self.records.drop(node_id)
        self._settle()
        self.meet(new)

    def left(self, node_id: NodeId, boot_id: bytes, source: Address, now: float) -> None:
        """Note its goodbye; one that is no member may have left records here."""
        known, held = self.members.get(node_id), self.records.source(node_id)
        if known is not None and known.router == source:
            self.members.left(node_id, boot_id, now)
        elif known is None and held is not None and (held.router, held.boot_id) == (source, boot_id):
            self.records.drop(node_id)
        self._settle()

    def keep(self, node_id: NodeId, source: Address, store: Store, now: float) -> int:
        """Keep what a node says that it has; return how many entries were taken."""
        known, held = self.members.get(node_id), self.records.source(node_id)
        former = held if known is None else known
        if former is not None and former.router != source and not (known and self.members.may_move(node_id)):
            self.on_claimed(node_id, former.router, source)
            return 0
        if node_id == self.own_id or not self.members.accepts(node_id, store.boot_id, source):
            return 0
        return self._keep(node_id, source, store, now)

    def keep_own(self, store: Store, now: float) -> int:
        """Keep what this node has: it is among the closest to the keys itself.

        Where its router is others know better, who ask it there; its registry stands in for it.
        """
        return self._keep(self.own_id, unpack_address(store.registry), store, now)

    def may_hand_out(self, node_id: NodeId, now: float) -> bool:
        """Whether a provider may be handed out without a ping: it was heard lately, or is this node."""
        if node_id == self.own_id:
            return True
        known, held = self.members.get(node_id), self.records.source(node_id)
        is_there = known is not None and (held is None or held.router == known.router)
        return is_there and self.members.is_fresh(node_id, now)

    def tick(self, now: float) -> None:
        """Let suspicions and records end."""
        self.members.tick(now)
        self.records.expire(now)
        self.leases.expire(now)
        self._settle()

    def closest(self, target: bytes, count: int) -> list[NodeId]:
        """Return the closest nodes, nearest first, this one among them when it is."""
        wanted = int.from_bytes(target, "big")
        own = self.table.node
        found = [*self.table.closest(target, count), own]
        found.sort(key=lambda contact: contact.long_id ^ wanted)
        return [NodeId(contact.id) for contact in found[:count]]

    def page_after(self, node_id: bytes, count: int) -> tuple[list[NodeInfo], bool]:
        """Return the contacts that are alive with ids after this one, in order, and whether none follow."""
        page = self.table.page_after(node_id, count + 1)
        known = (self.members.get(contact.id) for contact in page[:count])
        return [each.info for each in known if each is not None and each.state == ALIVE], len(page) <= count

    def contacts(self, target: bytes, count: int, *, but: NodeId) -> tuple[Contact, ...]:
        """Return the contacts closest to `target`, as they are handed out to the node `but`."""
        found = self.table.closest(target, count + 1 + SILENT_PASSED_OVER)
        sound = [contact for contact in found if not contact.failures and contact.id != but]
        return tuple(Contact(contact.id, pack_address(contact.address)) for contact in sound[:count])

    def _keep(self, node_id: NodeId, router: Address, store: Store, now: float) -> int:
        addresses = router, unpack_address(store.registry)
        entries, ttl_s = store.entries, store.ttl_s
        return self.records.store(node_id, store.boot_id, addresses, store.zone, entries, ttl_s=ttl_s, now=now)

    def _into_table(self, node_id: NodeId, source: Address) -> None:
        """Take a member that was heard into the table, if there is a place, and let others react to what changed."""
        self._settle()  # who began anew leaves the table before he enters it again
        if self.table.heard(node_id, source) is None:
            if self.table.wants(node_id):
                displaced = self.table.add(node_id, source)
                self.members.admitted(node_id)
                if displaced is not None:
                    self.members.displaced(displaced)
            else:
                self.table.turn_away(node_id)
        self._settle()

    def _speaks_for_another(self, node_id: NodeId, source: Address, now: float) -> bool:
        """Whether an address has changed its node too often; the node for which it spoke before is gone otherwise."""
        other, due = self._speakers.get(source, (node_id, now))
        known = self.members.get(other)
        if other == node_id or known is None or known.router != source or known.state > SUSPECT:
            return False
        if due > now + IDS_AT_ONCE * FRESH_S:
            return True
        self.members.lost(other, now)
        self._settle()
        return False

    def _speaks(self, node_id: NodeId, source: Address, now: float) -> None:
        other, due = self._speakers.get(source, (None, now))
        if other != node_id:
            self._speakers.pop(source, None)
            self._speakers[source] = node_id, max(due, now) + FRESH_S
            if len(self._speakers) > SPEAKERS_MAX:
                del self._speakers[next(iter(self._speakers))]

    def _settle(self) -> None:
        if not self.members.has_changed:
            return  # as after most datagrams
        for change in self.members.changes():
            if change.kind == "gone":
                self.table.forget(change.node_id)
                self.records.drop(change.node_id)
                self.leases.gone(change.node_id)
            self.on_change(change)


def _says_the_same(one: NodeInfo, other: NodeInfo) -> bool:
    """Whether two introductions of a node differ in nothing but where it was heard."""
    return (
        one.boot_id == other.boot_id
        and one.incarnation == other.incarnation
        and one.registry == other.registry
        and one.zone == other.zone
        and one.seed == other.seed
    )
