"""The routing table: contacts by distance, on kademlia's Node, KBucket and RoutingTable.

Laws:
- `closest` is exact: the k known contacts with the least XOR distance, nearest first;
- a cluster of up to `CONTACTS_MAX` others is known entirely; of a larger one the table keeps as many contacts of each
  bucket as fit, all of the small ones and as many as that leaves of the others: whoever comes takes the place of
  somebody in the fullest bucket, or is turned away when his own is as full;
- a contact that is heard moves to its bucket's end, with the address that it has now; who is silent stays until the
  members say that it is gone;
- nothing is sent, no clock is read.

What is mended in kademlia 2.2.3: neighbours in the order they are met instead of the closest, ranges that overlap at
their border, a clock and pings inside the table. Follows the Kademlia paper, sections 2.2 to 2.4.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NewType

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NODE_ID_BYTES, NodeId

ID_BITS = 8 * NODE_ID_BYTES
CONTACTS_MAX = 256  # contacts: a few hundred nodes know one another entirely; 10,000 are known by 27 of each bucket
FEW_CONTACTS = 16  # contacts of a bucket below which newcomers are sought; above it those who come suffice
SPLIT_CONTACTS = 8  # contacts of our own neighbourhood that may share a bucket: far fewer than a full bucket has
SORTED_AT_ONCE = 32  # ids: to sort so many takes less time than to part them first

Distance = NewType("Distance", int)


def distance(one: bytes, other: bytes) -> Distance:
    """Return the XOR distance of two ids or keys of 20 bytes."""
    return Distance(int.from_bytes(one, "big") ^ int.from_bytes(other, "big"))


class TableContact(Node):  # type: ignore[misc]  # kademlia has no types
    """A node in the table: its id, where its router is, how often in a row it did not answer."""

    __slots__ = ("address", "failures", "id", "long_id")  # a large cluster has hundreds of them on each node

    def __init__(self, node_id: NodeId, address: Address) -> None:
        """Know it at `address`."""
        self.id = node_id
        self.long_id = int.from_bytes(node_id, "big")
        self.address = address
        self.failures = 0

    @property
    def ip(self) -> str:
        """Its router's host."""
        return self.address.host

    @property
    def port(self) -> int:
        """Its router's port."""
        return self.address.port


class Bucket(KBucket):  # type: ignore[misc]  # kademlia has no types
    """A bucket whose range is [lower, upper], aligned to a power of two, and which knows no clock."""

    nodes: dict[bytes, TableContact]
    range: tuple[int, int]
    turned_away: bool  # whether somebody of its range is not in it

    def __init__(self, lower: int, upper: int, ksize: int) -> None:
        """Hold at most `ksize` contacts."""
        super().__init__(lower, upper, ksize, replacementNodeFactor=0)
        self.nodes = {}  # an OrderedDict takes twice the memory
        self.turned_away = False

    def touch_last_updated(self) -> None:
        """Do nothing: members are watched one by one, so that nothing depends on when a bucket was used."""

    def split(self) -> tuple["Bucket", "Bucket"]:
        """Return the two halves, each with its contacts in their order."""
        lower, upper = self.range
        middle = (lower + upper) // 2
        halves = Bucket(lower, middle, self.ksize), Bucket(middle + 1, upper, self.ksize)
        for contact in self.nodes.values():
            halves[contact.long_id > middle].add_node(contact)
        for half in halves:
            half.turned_away = self.turned_away
        return halves


class Table(RoutingTable):  # type: ignore[misc]  # kademlia has no types
    """Contacts around one node, which is itself never in the table."""

    buckets: list[Bucket]
    node: TableContact

    def __init__(
        self, own_id: NodeId, *, contacts_max: int = CONTACTS_MAX, bucket_contacts_max: int | None = None
    ) -> None:
        """Begin empty. `bucket_contacts_max` limits each bucket by itself, as the paper's k does."""
        self.contacts_max = contacts_max
        self._by_id: dict[int, TableContact] = {}
        self._ids: list[int] = []  # sorted
        self._uppers: list[int] = []  # the upper end of each bucket's range
        self._most: int | None = None  # contacts of the fullest bucket; None: to be counted anew
        super().__init__(None, bucket_contacts_max or contacts_max, Node(own_id))

    def flush(self) -> None:
        """Forget everybody."""
        self.buckets = [Bucket(0, 2**ID_BITS - 1, self.ksize)]
        self._uppers[:] = [2**ID_BITS - 1]
        self._by_id.clear()
        self._ids.clear()
        self._most = None

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, node_id: bytes) -> bool:
        return int.from_bytes(node_id, "big") in self._by_id

    def get(self, node_id: NodeId) -> TableContact | None:
        """Return the contact with this id."""
        return self._by_id.get(int.from_bytes(node_id, "big"))

    def heard(self, node_id: NodeId, address: Address) -> TableContact | None:
        """Note that a contact was heard at `address`; return it, or None for whoever is not in the table."""
        contact = self.get(node_id)
        if contact is None:
            return None
        contact.failures = 0
        if contact.address != address:
            contact.address = address
        nodes = self._bucket(contact.long_id).nodes
        del nodes[node_id]  # to the end of its bucket
        nodes[node_id] = contact
        return contact

    def wants(self, node_id: NodeId) -> bool:
        """Whether there is a place for this node, its own or that of somebody in a fuller bucket."""
        long_id = int.from_bytes(node_id, "big")
        if long_id in self._by_id or long_id == self.node.long_id:
            return False
        bucket = self._bucket(long_id)
        size = len(bucket.nodes)
        if self.ksize < self.contacts_max and size >= self.ksize and not bucket.has_in_range(self.node):
            return False
        if len(self._ids) < self.contacts_max:
            return True
        if self._most is None:
            self._most = len(self._fullest())
        return size + 1 < self._most

    def turn_away(self, node_id: NodeId) -> None:
        """Note that a node is there which the table does not want."""
        if node_id not in self and node_id != self.node.id:
            self._bucket(int.from_bytes(node_id, "big")).turned_away = True

    def lacks(self, node_id: NodeId) -> bool:
        """Whether the table is not itself without this node: everybody is known, or few of its bucket are."""
        return self.knows_all or len(self._bucket(int.from_bytes(node_id, "big"))) < FEW_CONTACTS

    def add(self, node_id: NodeId, address: Address) -> NodeId | None:
        """Take in a node that the table `wants`; return who had to give way, the least recently heard of the fullest.

        ValueError for a node that it does not want.
        """
        if not self.wants(node_id):
            raise ValueError("there is no place for it")
        displaced = None
        if len(self) >= self.contacts_max:
            fullest = self._fullest()
            displaced = NodeId(next(iter(fullest.nodes)))
            fullest.turned_away = True
            self._remove(displaced)
        contact = TableContact(node_id, address)
        self._split_around(contact.long_id)
        self._bucket(contact.long_id).nodes[node_id] = contact
        self._by_id[contact.long_id] = contact
        self._most = None
        insort(self._ids, contact.long_id)
        return displaced

    def would_keep(self, node_ids: Iterable[NodeId], count_max: int) -> list[NodeId]:
        """Return those of these nodes, met in this order, that would be contacts in the end; nobody is taken in."""
        trial = Table(self.node.id, contacts_max=max(count_max, 1))
        nowhere = Address("::", 0)
        strangers = [each for each in node_ids if each not in self]
        for node_id in strangers:
            if trial.wants(node_id):
                trial.add(node_id, nowhere)
        return [each for each in strangers if each in trial]

    def failed(self, node_id: NodeId) -> None:
        """Count a question without an answer; who has one is not named to others until it is heard."""
        contact = self.get(node_id)
        if contact is not None:
            contact.failures += 1

    def forget(self, node_id: NodeId) -> None:
        """Drop a contact."""
        if node_id in self:
            self._remove(node_id)

    def closest(self, target: bytes, count: int) -> list[TableContact]:
        """Return the `count` contacts closest to `target`, nearest first."""
        wanted = int.from_bytes(target, "big")
        ids = self._nearest(wanted, count, 0, len(self._ids), ID_BITS - 1)
        return [self._by_id[each] for each in ids]

    @property
    def is_sparse(self) -> bool:
        """Whether somebody was turned away once, and there are places for many by now: the cluster has shrunk."""
        return len(self) <= self.contacts_max // 2 and not self.knows_all

    def trust(self) -> None:
        """Take it that everybody who is there is known: others were asked, and named nobody else."""
        for bucket in self.buckets:
            bucket.turned_away = False

    @property
    def knows_all(self) -> bool:
        """Whether nobody was turned away."""
        return not any(bucket.turned_away for bucket in self.buckets)

    def knows_all_near(self, target: bytes, count: int) -> bool:
        """Whether the closest `count` nodes of the cluster are in the table: nobody was turned away where they are."""
        found = self.closest(target, count)
        if len(found) < count:
            return self.knows_all
        if self._bucket(int.from_bytes(target, "big")).turned_away:
            return False
        return not any(self._bucket(contact.long_id).turned_away for contact in found)

    def page_after(self, node_id: bytes, count: int) -> list[TableContact]:
        """Return the next `count` contacts after an id, in the order of ids."""
        begin = bisect_left(self._ids, int.from_bytes(node_id, "big") + 1)
        return [self._by_id[each] for each in self._ids[begin : begin + count]]

    def contacts(self) -> list[TableContact]:
        """Return everybody, in the order of ids."""
        return [self._by_id[each] for each in self._ids]

    def _bucket(self, long_id: int) -> Bucket:
        """Return the bucket whose range has this id."""
        return self.buckets[bisect_left(self._uppers, long_id)]

    def _fullest(self) -> Bucket:
        return max(self.buckets, key=len)

    def _split_around(self, long_id: int) -> None:
        """Split the bucket of our own id until a newcomer finds his among at most `SPLIT_CONTACTS`."""
        bucket = self._bucket(long_id)
        split_at = min(SPLIT_CONTACTS, self.ksize)
        while len(bucket) >= split_at and bucket.has_in_range(self.node) and bucket.range[0] < bucket.range[1]:
            self.split_bucket(self.buckets.index(bucket))
            self._uppers[:] = [each.range[1] for each in self.buckets]
            bucket = self._bucket(long_id)

    def _remove(self, node_id: NodeId) -> None:
        long_id = int.from_bytes(node_id, "big")
        bucket = self._bucket(long_id)
        del bucket.nodes[node_id]
        del self._by_id[long_id]
        del self._ids[bisect_left(self._ids, long_id)]
        self._most = None

    def _nearest(self, wanted: int, count: int, begin: int, end: int, bit: int) -> list[int]:
        """Return the ids in [begin, end) of the sorted ids, which agree above `bit`, that are nearest to `wanted`."""
        if end - begin <= max(count, SORTED_AT_ONCE) or bit < 0:
            return sorted(self._ids[begin:end], key=wanted.__xor__)[:count]
        pivot = (self._ids[begin] >> (bit + 1) << (bit + 1)) | (1 << bit)
        middle = bisect_left(self._ids, pivot, begin, end)
        near, far = ((middle, end), (begin, middle)) if wanted >> bit & 1 else ((begin, middle), (middle, end))
        found = self._nearest(wanted, count, *near, bit - 1) if near[0] < near[1] else []
        if len(found) < count and far[0] < far[1]:
            found += self._nearest(wanted, count - len(found), *far, bit - 1)
        return found
