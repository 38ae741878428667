"""What this node knows of the cluster: members, routing table and records, kept in agreement.

Laws:
- the table holds members that are not gone, and the records of whoever is gone are dropped in the same step;
- only a node that was heard itself becomes a member; introductions by others are addresses to ping;
- a node id speaks from one address: another address is believed once the known one does not answer.
"""

from collections.abc import Callable, Iterable
from random import Random

import msgspec

from p2pmirror.routing.dht.members import Change, Membership
from p2pmirror.routing.dht.messages import Contact, News, NodeInfo, Store, pack_address, unpack_address
from p2pmirror.routing.dht.records import Records
from p2pmirror.routing.dht.table import Table
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

TO_PING_MAX = 1024  # addresses that wait to be pinged: a page of strangers for each member of a large cluster


class View:
    """Members, table and records of one node; `on_change` is told who joined, came back or is gone."""

    def __init__(self, own: NodeInfo, random: Random) -> None:
        """Know nobody."""
        self.members = Membership(own, random)
        self.table = Table(NodeId(own.node_id))
        self.records = Records()
        self.random = random
        self.on_change: Callable[[Change], None] = lambda _: None
        self.on_to_ping: Callable[[], None] = lambda: None
        self._to_ping: dict[Address, None] = {}
        self._being_pinged: set[Address] = set()

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
            self._settle()
        elif node_id != self.own_id and self.members.get(node_id) is None:
            self.ping_soon(source)

    def met(self, info: NodeInfo, source: Address, now: float) -> bool:
        """Take in what a node that answered says of itself; return whether it is a member now."""
        node_id = NodeId(info.node_id)
        info = msgspec.structs.replace(info, router=pack_address(source))
        known = self.members.get(node_id)
        if known is not None and known.router != source and self.members.is_fresh(node_id, now):
            self.members.doubt(node_id)
            self.ping_soon(known.router)
            self.ping_soon(source)
            return False
        if not self.members.met(info, now):
            return False
        self._into_table(node_id, source)
        self._settle()
        return True

    def told(self, news: Iterable[News], now: float) -> None:
        """Take in news that rode on a datagram."""
        for info in self.members.apply(news, now):
            self.ping_soon(unpack_address(info.router))
        self._settle()

    def silent(self, node_id: NodeId) -> None:
        """Note that a question to it had no answer."""
        self.table.failed(node_id)

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

    def contacts(self, target: bytes, count: int, *, but: NodeId) -> tuple[Contact, ...]:
        """Return the contacts closest to `target`, as they are handed out to the node `but`."""
        found = self.table.closest(target, count + 1)
        return tuple(Contact(c.id, pack_address(c.address)) for c in found if c.id != but)[:count]

    def ping_soon(self, address: Address) -> None:
        """Have an address pinged, once; what is too much is forgotten, and comes again when it matters.

        An address that is being pinged is not pinged again: news of a newcomer comes with every datagram.
        """
        if len(self._to_ping) + len(self._being_pinged) < TO_PING_MAX and address not in self._being_pinged:
            self._to_ping[address] = None
            self.on_to_ping()

    def take_to_ping(self) -> list[Address]:
        """Hand out, once, what is to be pinged; each is then to be reported as `pinged`."""
        waiting, self._to_ping = self._to_ping, {}
        self._being_pinged.update(waiting)
        return list(waiting)

    def pinged(self, address: Address) -> None:
        """Note that the ping of an address that was handed out has ended."""
        self._being_pinged.discard(address)

    def _keep(self, node_id: NodeId, router: Address, store: Store, now: float) -> int:
        addresses = router, unpack_address(store.registry)
        entries, ttl_s = store.entries, store.ttl_s
        return self.records.store(node_id, store.boot_id, addresses, store.zone, entries, ttl_s=ttl_s, now=now)

    def _into_table(self, node_id: NodeId, source: Address) -> None:
        head = self.table.heard(node_id, source)
        if head is not None:
            self.ping_soon(head.address)

    def _settle(self) -> None:
        for change in self.members.changes():
            if change.kind == "gone":
                self.table.forget(change.node_id)
                self.records.drop(change.node_id)
            self.on_change(change)
