"""Where the records of this node's offers belong, and which holders have yet to be told.

Laws:
- each change of an offer has a higher sequence number than all before; renewing keeps it;
- a key is due when it changed, when its holders changed, when a holder did not answer, and at 40 % of its time to live;
- what was withdrawn is told to whoever may hold it, and then forgotten.

DESIGN.md section 4, "Membership and DHT" (records).
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from p2pmirror.routing.dht.messages import COMPLETE, LEADING, PARTIAL, WITHDRAWN, Claim, Entry
from p2pmirror.routing.protocol import Key, Offer
from p2pmirror.wire.identity import NodeId

TTL_S = 600.0  # a record's time to live; a provider that dies is found out long before
RENEW_FRACTION = 0.4  # of the time to live: two renewals may be lost before a record ends
JITTER = 0.1  # renewals of nodes that started together drift apart by up to this part
RETRY_S = 1.0  # pause before a holder that did not answer is told again; by then it may be known as gone
WITHDRAW_TRIES_MAX = 5  # rounds in which a withdrawal is told; a holder that is away longer drops it by its TTL


@dataclass(slots=True)
class _Placed:
    """One key: what is said of it, who was told this very state of it, and who may have been told any."""

    offer: Offer | None  # None: withdrawn
    sequence: int
    told: set[NodeId] = field(default_factory=set)
    holders: set[NodeId] = field(default_factory=set)
    radius: int = -1  # distance of the farthest holder; -1: everybody is a holder
    due: float = 0.0  # when to look at it next; the heap's other entries for it are outdated
    renew_at: float = 0.0
    tries: int = 0


class Placement:
    """This node's offers and their holders."""

    def __init__(self, random: Random) -> None:
        """Offer nothing."""
        self._random = random
        self._keys: dict[Key, _Placed] = {}
        self._sequence = 0
        self._withdrawn = 0
        self._due: list[tuple[float, Key]] = []

    def __len__(self) -> int:
        return len(self._keys) - self._withdrawn

    def offer(self, key: Key) -> Offer | None:
        """Return what is said of a key."""
        placed = self._keys.get(key)
        return None if placed is None else placed.offer

    def advertise(self, offers: Mapping[Key, Offer], now: float) -> None:
        """Say these; what is said already in the same words is not said again."""
        for key, offer in offers.items():
            placed = self._keys.get(key)
            if placed is None or placed.offer != offer:
                self._say(key, offer, now)

    def withdraw(self, keys: Iterable[Key], now: float) -> None:
        """Take these back; what was never said needs no withdrawing."""
        for key in keys:
            placed = self._keys.get(key)
            if placed is not None and placed.offer is not None:
                self._say(key, None, now)

    def withdraw_all(self, now: float) -> None:
        """Take everything back."""
        self.withdraw(list(self._keys), now)

    def joined(self, node_id: NodeId, now: float) -> None:
        """Have the keys placed anew for which this node is among the closest."""
        position = int.from_bytes(node_id, "big")
        for key, placed in self._keys.items():
            if placed.radius < 0 or int.from_bytes(key, "big") ^ position < placed.radius:
                placed.told.discard(node_id)
                self._set_due(key, placed, now)

    def gone(self, node_id: NodeId, now: float) -> None:
        """Have the keys placed anew that this node held."""
        for key, placed in self._keys.items():
            if node_id in placed.holders:
                placed.holders.discard(node_id)
                placed.told.discard(node_id)
                self._set_due(key, placed, now)

    def say_again(self, now: float) -> None:
        """Have everything told to everybody again: somebody took this node for gone and dropped it."""
        for key, placed in self._keys.items():
            placed.told.clear()
            self._set_due(key, placed, now)

    def next_due(self) -> float | None:
        """Return when something is to be told next."""
        while self._due and self._is_outdated(*self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def take(self, now: float) -> list[Key]:
        """Hand out the keys that are due; each is then to be given to `place`."""
        keys = []
        while (due := self.next_due()) is not None and due <= now:
            _, key = heapq.heappop(self._due)
            keys.append(key)
            self._begin_round(self._keys[key], now)
            self._set_due(key, self._keys[key], self._keys[key].renew_at)
        return keys

    def place(self, key: Key, closest: Sequence[NodeId], radius: int) -> list[NodeId]:
        """Take in who is closest to a key, and the distance of the farthest of them; return whom to tell.

        `radius` is -1 when fewer nodes are known than a key has holders.
        """
        placed = self._keys.get(key)
        if placed is None:
            return []
        placed.radius = radius
        wanted = set(closest) if placed.offer is not None else placed.holders | set(closest)
        new = [node_id for node_id in sorted(wanted) if node_id not in placed.told]
        placed.holders.update(closest)
        return new

    def entry(self, key: Key, now: float) -> Entry | None:
        """Return what is to be told of a key now."""
        placed = self._keys.get(key)
        if placed is None:
            return None
        if placed.offer is None:
            return Entry(key, placed.sequence, WITHDRAWN)
        tag = placed.offer.tag
        if tag is not None:
            tag = replace(tag, age_s=tag.age_s + max(0.0, now - placed.offer.since))
        state = LEADING if placed.offer.leading else COMPLETE if placed.offer.complete else PARTIAL
        return Entry(key, placed.sequence, state, None if tag is None else Claim.of(tag))

    def told(self, node_id: NodeId, entries: Iterable[Entry]) -> None:
        """Note that a holder has these."""
        for entry in entries:
            placed = self._keys.get(Key(entry.key))
            if placed is None or placed.sequence != entry.sequence:
                continue
            placed.told.add(node_id)
            if placed.offer is None and placed.told >= placed.holders:
                self._forget(Key(entry.key))

    def not_told(self, entries: Iterable[Entry], now: float) -> None:
        """Note that a holder did not answer: the keys are placed again in a while."""
        for entry in entries:
            placed = self._keys.get(Key(entry.key))
            if placed is None:
                continue
            if placed.offer is None and placed.tries >= WITHDRAW_TRIES_MAX:
                self._forget(Key(entry.key))
            else:
                self._set_due(Key(entry.key), placed, now + RETRY_S)

    def holders(self) -> set[NodeId]:
        """Return everybody who may hold something of this node."""
        return {node_id for placed in self._keys.values() for node_id in placed.holders}

    def _say(self, key: Key, offer: Offer | None, now: float) -> None:
        self._sequence += 1
        placed = self._keys.get(key)
        if placed is None:
            placed = self._keys[key] = _Placed(offer, self._sequence)
        else:
            self._withdrawn += (offer is None) - (placed.offer is None)
        placed.offer, placed.sequence, placed.tries, placed.renew_at = offer, self._sequence, 0, 0.0
        self._set_due(key, placed, now)

    def _begin_round(self, placed: _Placed, now: float) -> None:
        placed.tries += 1
        if now >= placed.renew_at:
            placed.told.clear()
            placed.renew_at = now + TTL_S * RENEW_FRACTION * self._random.uniform(1 - JITTER, 1 + JITTER)

    def _set_due(self, key: Key, placed: _Placed, at: float) -> None:
        placed.due = at
        heapq.heappush(self._due, (at, key))
        if len(self._due) > 4 * len(self._keys) + 64:  # most of it outdated by now
            self._due = [(each.due, key) for key, each in self._keys.items()]
            heapq.heapify(self._due)

    def _is_outdated(self, at: float, key: Key) -> bool:
        placed = self._keys.get(key)
        return placed is None or placed.due != at

    def _forget(self, key: Key) -> None:
        placed = self._keys.pop(key)
        self._withdrawn -= placed.offer is None
