"""The routing table: contacts by distance, on kademlia's Node, KBucket and RoutingTable.

Laws:
- `closest` is exact: the k known contacts with the least XOR distance, nearest first;
- a contact that is heard moves to its bucket's end, with the address that it has now; one loss evicts nobody;
- nothing is sent, no clock is read: a full bucket gives back the contact that should be pinged.

What is mended in kademlia 2.2.3: neighbours in the order they are met instead of the closest, ranges that overlap at
their border, a clock and pings inside the table. Follows the Kademlia paper, sections 2.2 to 2.4 and 4.2.
"""

from itertools import chain
from typing import NewType, cast

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NODE_ID_BYTES, NodeId

ID_BITS = 8 * NODE_ID_BYTES
BUCKET_CONTACTS_MAX = 256  # contacts: a cluster of a few hundred nodes fits whole, so a lookup needs no second hop
REPLACEMENTS_FACTOR = 1  # replacements wait for at most as many places as there are
SPLIT_BITS = 5  # b of section 4.2: buckets far away split too, so that each hop gains several bits
FAILURES_MAX = 3  # questions without an answer, one after the other: one or two may be lost datagrams

Distance = NewType("Distance", int)


def distance(one: bytes, other: bytes) -> Distance:
    """Return the XOR distance of two ids or keys of 20 bytes."""
    return Distance(int.from_bytes(one, "big") ^ int.from_bytes(other, "big"))


class TableContact(Node):  # type: ignore[misc]  # kademlia has no types
    """A node in the table: its id, where its router is, how often in a row it did not answer."""

    id: NodeId
    long_id: int

    def __init__(self, node_id: NodeId, address: Address) -> None:
        """Know it at `address`."""
        super().__init__(node_id, address.host, address.port)
        self.address = address
        self.failures = 0


class Bucket(KBucket):  # type: ignore[misc]  # kademlia has no types
    """A bucket whose range is [lower, upper], aligned to a power of two, and which knows no clock."""

    nodes: dict[bytes, TableContact]
    replacement_nodes: dict[bytes, TableContact]
    range: tuple[int, int]
    last_updated: float

    def __init__(self, lower: int, upper: int, ksize: int) -> None:
        """Hold at most `ksize` contacts."""
        super().__init__(lower, upper, ksize, REPLACEMENTS_FACTOR)

    def touch_last_updated(self) -> None:
        """Begin as never looked up; the table says when it was."""
        self.last_updated = 0.0

    def split(self) -> tuple["Bucket", "Bucket"]:
        """Return the two halves, each with its contacts in their order."""
        lower, upper = self.range
        middle = (lower + upper) // 2
        halves = Bucket(lower, middle, self.ksize), Bucket(middle + 1, upper, self.ksize)
        for contact in chain(self.nodes.values(), self.replacement_nodes.values()):
            halves[contact.long_id > middle].add_node(contact)
        for half in halves:
            half.last_updated = self.last_updated
        return halves

    def depth(self) -> int:
        """Return how many leading bits the range fixes."""
        return ID_BITS - (self.range[1] - self.range[0]).bit_length()


class Table(RoutingTable):  # type: ignore[misc]  # kademlia has no types
    """Contacts around one node, which is itself never in the table."""

    buckets: list[Bucket]
    node: TableContact

    def __init__(self, own_id: NodeId, *, bucket_contacts_max: int = BUCKET_CONTACTS_MAX) -> None:
        """Begin empty."""
        super().__init__(None, bucket_contacts_max, Node(own_id))

    def flush(self) -> None:
        """Forget everybody."""
        self.buckets = [Bucket(0, 2**ID_BITS - 1, self.ksize)]

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self.buckets)

    def __contains__(self, node_id: bytes) -> bool:
        return self.get(NodeId(node_id)) is not None

    def get(self, node_id: NodeId) -> TableContact | None:
        """Return the contact with this id."""
        return self._bucket(node_id).nodes.get(node_id)

    def heard(self, node_id: NodeId, address: Address) -> TableContact | None:
        """Take in a node that was heard at `address`, or move it to the end of its bucket.

        Returns the least recently heard contact of its bucket when that is full: ping it, and report what happens.
        """
        if node_id == self.node.id:
            return None
        known = self.get(node_id)
        if known is not None and known.address == address:
            known.failures = 0
            self._bucket(node_id).add_node(known)
            return None
        contact = TableContact(node_id, address)
        while True:
            bucket = self._bucket(node_id)
            if bucket.add_node(contact):
                return None
            if not self._may_split(bucket):
                return cast("TableContact", bucket.head())
            self.split_bucket(self.buckets.index(bucket))

    def failed(self, node_id: NodeId) -> bool:
        """Count a question without an answer; return whether the contact was evicted for it."""
        contact = self.get(node_id)
        if contact is None:
            return False
        contact.failures += 1
        if contact.failures < FAILURES_MAX:
            return False
        self.forget(node_id)
        return True

    def forget(self, node_id: NodeId) -> None:
        """Drop a contact; the last heard of its bucket's replacements takes the place."""
        self._bucket(node_id).remove_node(TableContact(node_id, Address("::", 0)))

    def closest(self, target: bytes, count: int) -> list[TableContact]:
        """Return the `count` contacts closest to `target`, nearest first."""
        wanted = int.from_bytes(target, "big")
        found: list[TableContact] = []
        for bucket in sorted(self.buckets, key=lambda bucket: _nearest(bucket, wanted)):
            found += sorted(bucket.nodes.values(), key=lambda node: node.long_id ^ wanted)  # faster than a heap here
            if len(found) >= count:
                break
        return found[:count]

    def contacts(self) -> list[TableContact]:
        """Return everybody, in no order."""
        return [contact for bucket in self.buckets for contact in bucket.nodes.values()]

    def looked_up(self, target: bytes, now: float) -> None:
        """Note that the neighbourhood of `target` was looked up."""
        self._bucket(target).last_updated = now

    def unvisited(self, since: float) -> list[tuple[int, int]]:
        """Return the ranges of ids in which nothing was looked up since a moment."""
        return [bucket.range for bucket in self.buckets if bucket.last_updated < since]

    def _bucket(self, node_id: bytes) -> Bucket:
        """Return the bucket whose range has this id."""
        if len(self.buckets) == 1:
            return self.buckets[0]
        wanted = int.from_bytes(node_id, "big")
        return next(bucket for bucket in self.buckets if wanted <= bucket.range[1])

    def _may_split(self, bucket: Bucket) -> bool:
        """Whether section 4.2 splits it: it covers our own id, or splitting it shortens later lookups."""
        return bool(bucket.has_in_range(self.node)) or bucket.depth() % SPLIT_BITS != 0


def _nearest(bucket: Bucket, target: int) -> int:
    """Return the least distance to `target` that an id of the bucket can have; ranges never overlap in distance."""
    width = bucket.range[1] - bucket.range[0]
    return (bucket.range[0] ^ target) & ~width
