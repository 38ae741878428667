"""What providers have said: many records per key, each with a sequence number and a deadline.

Laws:
- of two statements of one provider about one key the higher sequence wins, withdrawals included;
- a record ends at its deadline, with its provider's goodbye or death, or when the provider begins anew (boot id);
- whatever is said, the number of records stays within the limits below, and who says nothing is not remembered;
- where there is no room a host with many records gives way to one with few: one host cannot keep the others out,
  neither of this node, nor of a key, nor of a sample.

DESIGN.md section 4, "Membership and DHT" (records).
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from random import Random

from p2pmirror.routing.dht.messages import RECORDS_MAX, WITHDRAWN, Entry
from p2pmirror.routing.protocol import Key, TagClaim
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

RECORDS_HELD_MAX = 200_000  # records: 100 nodes with 16,000 keys each put 128,000 on a node; some 400 bytes each
PER_KEY_MAX = 512  # records of one key: an answer is a sample of 16, so more providers than this add nothing
PER_PROVIDER_MAX = 50_000  # records of one provider: a node with 50,000 blobs in a cluster of up to 8 nodes
TOMBSTONE_S_MIN = 60.0  # a withdrawal is remembered so long: any datagram that it overtook has arrived by then
FAILURES_MAX = 3  # one or two may be lost datagrams; a provider that is there says all of it again in some minutes
STALE_ENDS_MAX = 1024  # entries of the heap whose records were dropped, beyond as many as there are records


@dataclass(slots=True)
class Record:
    """What one provider says of one key."""

    node_id: NodeId
    key: Key
    sequence: int
    state: int  # one of codec's WITHDRAWN, PARTIAL, COMPLETE, LEADING
    deadline: float
    tag: TagClaim | None
    said_at: float  # the tag's age counts from here


@dataclass(slots=True)
class Source:
    """A provider as its last batch described it: where its router and its registry are."""

    node_id: NodeId
    boot_id: bytes
    router: Address
    registry: Address
    zone: str
    failures: int = 0  # pings without an answer, one after the other
    records: dict[Key, Record] = field(default_factory=dict)


@dataclass(slots=True)
class _Host:
    """The providers of one host, of which something is held."""

    count: int = 0  # records
    sources: dict[NodeId, Source] = field(default_factory=dict)


class Records:
    """The records that this node holds for others and for itself."""

    def __init__(self) -> None:
        """Begin empty."""
        self._sources: dict[NodeId, Source] = {}
        self._by_key: dict[Key, dict[NodeId, Record]] = {}
        self._ends: list[tuple[float, NodeId, Key]] = []  # a heap with an entry for each record; late ones are mended
        self._count = 0
        self._hosts: dict[str, _Host] = {}  # by the host of the router
        self._largest: _Host | None = None  # looked for once a batch

    def __len__(self) -> int:
        return self._count

    def source(self, node_id: NodeId) -> Source | None:
        """Return a provider of which something is held."""
        return self._sources.get(node_id)

    def store(
        self,
        node_id: NodeId,
        boot_id: bytes,
        addresses: tuple[Address, Address],
        zone: str,
        entries: Iterable[Entry],
        *,
        ttl_s: float,
        now: float,
    ) -> int:
        """Take in a provider's batch; `addresses` of its router and its registry. Return how many entries were taken.

        An entry that is older than what is held counts as taken: the provider need not say it again.
        """
        source = self._source_of(node_id, boot_id, addresses, zone)
        self._largest = None
        taken = sum(self._put(source, entry, ttl_s, now) for entry in entries)
        if not source.records:
            self._forget(source)
        return taken

    def find(
        self, key: Key, zone: str, now: float, random: Random, *, but: NodeId, state: int | None = None
    ) -> list[Record]:
        """Return at most 16 living records of a key, those of providers in `zone` first, none of `but`.

        `state`: only those that say this.
        """
        held = self._by_key.get(key)
        if not held:
            return []
        living = [
            record
            for record in held.values()
            if record.state != WITHDRAWN
            and state in {None, record.state}
            and now < record.deadline
            and record.node_id != but
        ]
        if len(living) > 1:
            random.shuffle(living)
            if len(living) > RECORDS_MAX:
                living = self._hosts_first(living, zone)
            living.sort(key=lambda record: self._sources[record.node_id].zone != zone)
        return living[:RECORDS_MAX]

    def drop(self, node_id: NodeId) -> int:
        """Forget all that a provider said; return how many records that was."""
        source = self._sources.get(node_id)
        if source is None:
            return 0
        self._forget(source)
        self._hosts_count(source, -len(source.records))
        for key in source.records:
            self._unlink(node_id, key)
        self._compact()
        return len(source.records)

    def failed(self, node_id: NodeId) -> None:
        """Note that a provider did not answer; what it said is forgotten after `FAILURES_MAX` of them in a row."""
        source = self._sources.get(node_id)
        if source is not None:
            source.failures += 1
            if source.failures >= FAILURES_MAX:
                self.drop(node_id)

    def expire(self, now: float) -> int:
        """Forget what has ended; return how much that was."""
        ended = 0
        while self._ends and self._ends[0][0] <= now:
            _, node_id, key = heapq.heappop(self._ends)
            record = self._by_key.get(key, {}).get(node_id)
            if record is None:
                continue
            if now < record.deadline:
                heapq.heappush(self._ends, (record.deadline, node_id, key))
            else:
                self._remove(record)
                ended += 1
        return ended

    def _source_of(self, node_id: NodeId, boot_id: bytes, addresses: tuple[Address, Address], zone: str) -> Source:
        """Return the provider as it describes itself now; what it said in an earlier life is forgotten."""
        known = self._sources.get(node_id)
        if known is not None and (known.boot_id != boot_id or known.router != addresses[0]):
            self.drop(node_id)
            known = None
        if known is None:
            known = self._sources[node_id] = Source(node_id, boot_id, *addresses, zone)
        known.registry, known.zone = addresses[1], zone
        known.failures = 0
        return known

    def _put(self, source: Source, entry: Entry, ttl_s: float, now: float) -> bool:
        key = Key(entry.key)
        old = source.records.get(key)
        if old is not None and entry.sequence < old.sequence:
            return True
        kept_s = max(ttl_s, TOMBSTONE_S_MIN) if entry.state == WITHDRAWN else ttl_s
        if old is None:
            if not self._make_room(source, key):
                return False
            old = source.records[key] = Record(source.node_id, key, 0, 0, now + kept_s, None, now)
            self._by_key.setdefault(key, {})[source.node_id] = old
            self._count += 1
            self._hosts_count(source, 1)
            self._push_end(now + kept_s, source.node_id, key)
        old.sequence, old.state, old.deadline, old.said_at = entry.sequence, entry.state, now + kept_s, now
        old.tag = None if entry.tag is None else entry.tag.as_tag()
        return True

    def _make_room(self, source: Source, key: Key) -> bool:
        """Return whether there is room for one more record of a provider, if need be in place of another's."""
        if len(source.records) >= PER_PROVIDER_MAX:
            return False
        held = self._by_key.get(key, {})
        if len(held) >= PER_KEY_MAX:
            crowding = self._crowding(held.values(), source.router.host)
            if crowding is None:
                return False
            self._remove(crowding)
        if self._count >= RECORDS_HELD_MAX:
            largest = self._largest or max(self._hosts.values(), key=lambda host: host.count)
            own = self._hosts.get(source.router.host)
            self._largest = largest
            if largest.count < 2 + (0 if own is None else own.count):
                return False
            self._remove(next(iter(next(iter(largest.sources.values())).records.values())))
        return True

    def _crowding(self, held: Iterable[Record], newcomer: str) -> Record | None:
        """Return a record of a host that has more than one of a key; None when the newcomer has one itself."""
        seen: set[str] = {newcomer}
        for record in held:
            host = self._sources[record.node_id].router.host
            if host in seen:
                return None if host == newcomer else record
            seen.add(host)
        return None

    def _hosts_first(self, living: Iterable[Record], zone: str) -> list[Record]:
        """Return a sample with one record of each host, those of `zone` first, before a second of any."""
        seen: dict[str, int] = {}
        ranked = []
        for record in living:
            source = self._sources[record.node_id]
            rank = seen[source.router.host] = seen.get(source.router.host, -1) + 1
            ranked.append((rank, source.zone != zone, record))
        ranked.sort(key=itemgetter(0, 1))
        return [record for _, _, record in ranked[:RECORDS_MAX]]

    def _hosts_count(self, source: Source, change: int) -> None:
        """Note that a provider has so many records more."""
        name = source.router.host
        host = self._hosts.setdefault(name, _Host())
        host.count += change
        if change > 0:
            host.sources[source.node_id] = source
        if not host.count:
            del self._hosts[name]

    def _forget(self, source: Source) -> None:
        del self._sources[source.node_id]
        host = self._hosts.get(source.router.host)
        if host is not None:
            host.sources.pop(source.node_id, None)

    def _push_end(self, deadline: float, node_id: NodeId, key: Key) -> None:
        """Note when to look at a record; a lengthened deadline is seen then, a shortened one is kept by `find`."""
        if not self._compact():
            heapq.heappush(self._ends, (deadline, node_id, key))

    def _compact(self) -> bool:
        """Look through the queue of ends when most of it is of records that were dropped; return whether it was so."""
        if len(self._ends) <= 2 * self._count + STALE_ENDS_MAX:
            return False
        self._ends = [(each.deadline, *at) for at, each in self._all()]
        heapq.heapify(self._ends)
        return True

    def _all(self) -> Iterable[tuple[tuple[NodeId, Key], Record]]:
        return (((n, key), record) for key, held in self._by_key.items() for n, record in held.items())

    def _remove(self, record: Record) -> None:
        source = self._sources[record.node_id]
        del source.records[record.key]
        self._unlink(record.node_id, record.key)
        if not source.records:
            self._forget(source)
        self._hosts_count(source, -1)

    def _unlink(self, node_id: NodeId, key: Key) -> None:
        held = self._by_key[key]
        del held[node_id]
        if not held:
            del self._by_key[key]
        self._count -= 1
