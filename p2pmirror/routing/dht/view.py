"""What this node knows of the cluster: members, routing table and records, kept in agreement.

Laws:
- the table's contacts are the members that are present, and the records of whoever is gone are dropped in the same
  step;
- whom the table has no place for is a member in passing: it may store, ask and be handed out, and nobody is told;
- only a node that was heard itself becomes a member; introductions by others are addresses to ping;
- a node id speaks from one address: another address is believed once the known one does not answer.
"""

from collections.abc import Callable, Iterable
from random import Random

import msgspec

from p2pmirror.routing.dht.members import Change, Known, Membership
from p2pmirror.routing.dht.messages import ALIVE, Contact, News, NodeInfo, Store, pack_address, unpack_address
from p2pmirror.routing.dht.records import Records
from p2pmirror.routing.dht.table import Table
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

SILENT_PASSED_OVER = 4  # contacts near a key that may be silent without an answer getting shorter


class View:
    """Members, table and records of one node.

    `on_change` is told who joined, came back or is gone; `meet` has an address pinged, `on_silent` has a member looked
    at that did not answer.
    """

    def __init__(self, own: NodeInfo, random: Random) -> None:
        """Know nobody."""
        self.members = Membership(own, random)
        self.table = Table(NodeId(own.node_id))
        self.records = Records()
        self.random = random
        self.on_change: Callable[[Change], None] = lambda _: None
        self.meet: Callable[[Address], None] = lambda _: None
        self.on_silent: Callable[[Known], None] = lambda _: None

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
            self._into_table(node_id, source)
        elif self.members.get(node_id) is None and self.table.wants(node_id):
            self.meet(source)

    def met(self, info: NodeInfo, source: Address, now: float) -> bool:
        """Take in what a node that answered says of itself; return whether it is a member now."""
        node_id = NodeId(info.node_id)
        info = msgspec.structs.replace(info, router=pack_address(source))
        known = self.members.get(node_id)
        if known is not None and known.router != source and self.members.is_fresh(node_id, now):
            self.members.doubt(node_id)
            self.meet(known.router)
            self.meet(source)
            return False
        if not self.members.met(info, now):
            return False
        self._into_table(node_id, source)
        return True

    def told(self, news: Iterable[News], now: float) -> None:
        """Take in news that rode on a datagram."""
        for info in self.members.apply(news, now):
            if self.table.wants(NodeId(info.node_id)):
                self.meet(unpack_address(info.router))
        self._settle()

    def silent(self, node_id: NodeId) -> None:
        """Note that a question to it had no answer: a contact is looked at, and nobody else's records are kept long."""
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

    def left(self, node_id: NodeId, boot_id: bytes, now: float) -> None:
        """Note its goodbye."""
        self.members.left(node_id, boot_id, now)
        self._settle()

    def keep(self, node_id: NodeId, source: Address, store: Store, now: float) -> int:
        """Keep what a node says that it has; return how many entries were taken."""
        if not self.members.accepts(node_id, store.boot_id, source) or node_id == self.own_id:
            return 0
        return self._keep(node_id, source, store, now)

    def keep_own(self, store: Store, now: float) -> int:
        """Keep what this node has: it is among the closest to the keys itself."""
        return self._keep(self.own_id, unpack_address(store.registry), store, now)

    def may_hand_out(self, node_id: NodeId, now: float) -> bool:
        """Whether a provider may be handed out without a ping: it was heard lately, or is this node."""
        return node_id == self.own_id or self.members.is_fresh(node_id, now)

    def tick(self, now: float) -> None:
        """Let suspicions and records end."""
        self.members.tick(now)
        self.records.expire(now)
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
        if self.table.heard(node_id, source) is None:
            self._settle()  # who began anew leaves the table before he enters it again
            if self.table.wants(node_id):
                displaced = self.table.add(node_id, source)
                self.members.admitted(node_id)
                if displaced is not None:
                    self.members.displaced(displaced)
            else:
                self.table.turn_away(node_id)
        self._settle()

    def _settle(self) -> None:
        for change in self.members.changes():
            if change.kind == "gone":
                self.table.forget(change.node_id)
                self.records.drop(change.node_id)
            self.on_change(change)
