"""Who leads which key: the leases that a holder has granted, or was told of.

Laws:
- the first asker leads, and goes on while it reports; `LEASE_S` after its last word, with its death and with its
  resignation the key is free, and the next asker leads;
- so it is when the bytes that it reports have not grown for `STANDSTILL_S`, until they do: words are no progress;
- only its leader prolongs or ends a lease; whoever else says that he leads, or of whom another holder says so, waits:
  he is the next leader if the lease ends while that word is fresh;
- a leader that only others named, a seed or the one of whom another holder tells, has `LEASE_S` to speak for itself;
  else it is passed over for a while, so that nobody can keep a key from being fetched by naming somebody who does not;
- the seed that led last is not named next: it fell silent, or failed;
- a copy of a question that comes after the resignation starts nothing: leases of one life of a node count up (`term`);
- whatever is said, what is kept has a limit; where there is no room the host with most leases gives up its oldest.

Whoever is forgotten so leads on: the next asker leads as well, which costs a copy. DESIGN.md section 4, "Leader".
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from p2pmirror.routing.protocol import LEASE_S, STANDSTILL_S, Key, Provider
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

LEASES_MAX = 16_384  # leases, some 500 bytes each: a thousand nodes that fetch 16 blobs each, all at one holder
PER_HOST_MAX = 2_048  # leases that one host took or told of: a node that brings in a registry's worth of small blobs
PASSED_OVER_S = 10.0  # a leader that did not speak, or fell silent, is not named again so soon
RESIGNED_S = 60.0  # a resignation is remembered so long: copies that it overtook have arrived by then


@dataclass(frozen=True, slots=True)
class Leader:
    """A node that leads or may lead, in one of its lives, and where it is."""

    node_id: NodeId
    boot_id: bytes
    router: Address
    registry: Address
    zone: str

    def as_provider(self) -> Provider:
        """Return it as it is handed out."""
        return Provider(self.node_id, self.registry, self.zone, complete=False, leading=True)


@dataclass(slots=True)
class Lease:
    """What is known of a key's leader, for some time also after it leads no more."""

    leader: Leader
    term: int  # of this life of the leader; the higher is the later
    host: str  # of whoever caused it to be kept
    deadline: float
    spoke: bool  # whether the leader itself has said so
    count: int = 0  # bytes, as it reported
    moved: float = math.inf  # when that grew last, or it began
    resigned: bool = False
    rival: "Lease | None" = None  # the next one, if it is live by then

    def is_live(self, now: float) -> bool:
        """Whether it binds."""
        return not self.resigned and now < self.deadline and now < self.moved + STANDSTILL_S

    def is_over(self, leader: Leader, term: int) -> bool:
        """Whether its leader has resigned from this term, or from a later one."""
        return self.resigned and term <= self.term and self.is_same(leader)

    def kept_until(self) -> float:
        """Return when it is to be forgotten."""
        return self.deadline + (RESIGNED_S if self.resigned else PASSED_OVER_S)

    def is_same(self, leader: Leader) -> bool:
        """Whether it is the lease of this node, in this life and at this place."""
        return self.leader.boot_id == leader.boot_id and self.is_from(leader.node_id, leader.router)

    def is_from(self, node_id: NodeId, router: Address) -> bool:
        """Whether it is the lease of this node, at this address."""
        return (self.leader.node_id, self.leader.router) == (node_id, router)


class Leases:
    """The leases that one holder knows of."""

    def __init__(self) -> None:
        """Know of none."""
        self._leases: dict[Key, Lease] = {}
        self._hosts: dict[str, dict[Key, None]] = {}  # the one that spoke longest ago first

    def __len__(self) -> int:
        return len(self._leases)

    def live(self, now: float) -> int:
        """Return how many keys are led."""
        return sum(lease.is_live(now) for lease in self._leases.values())

    def leader(self, key: Key, now: float) -> Leader | None:
        """Return who leads a key."""
        lease = self._current(key, now)
        return lease.leader if lease is not None and lease.is_live(now) else None

    def named(self, key: Key, now: float) -> list[Leader]:
        """Return who leads a key, and who would lead it next."""
        lease = self._current(key, now)
        lived = [each for each in (lease, lease and lease.rival) if each is not None and each.is_live(now)]
        return [each.leader for each in lived]

    def wants(self, key: Key, asker: Leader, term: int, now: float, *, seeds: Iterable[Leader] = ()) -> Leader:
        """Return who leads a key that a node wants to be fetched: the asker itself unless another does already.

        `seeds` are those that are to lead in its place; none for an asker that is a seed itself.
        """
        lease = self._current(key, now)
        if lease is not None and lease.is_live(now):
            if lease.leader.node_id != asker.node_id:
                return lease.leader
        elif lease is not None and lease.is_over(asker, term):
            return asker
        elif lease is None or lease.spoke:
            last = None if lease is None else lease.leader.node_id
            seed = seed_of(key, (each for each in seeds if each.node_id != last))
            if seed is not None:
                self._put(key, Lease(seed, 0, asker.router.host, now + LEASE_S, spoke=False))
                return seed
        self._spoke(key, asker, term, 0, now)
        return asker

    def told(self, key: Key, leader: Leader, term: int, host: str, now: float) -> None:
        """Take in what another holder, on `host`, says of a key's leader: it counts where nobody is known to lead."""
        lease = self._current(key, now)
        told = Lease(leader, term, host, now + LEASE_S, spoke=False)
        if lease is None:
            self._put(key, told)
        elif lease.is_live(now):
            self._wait(lease, told, now)
        elif not lease.is_over(leader, term) and (lease.spoke or now >= lease.kept_until()):
            self._put(key, told)

    def reports(self, key: Key, leader: Leader, term: int, count: int, now: float) -> bool:
        """Take in that a leader has so many bytes; return whether it leads, as far as is known here.

        A holder that knows of no lease takes a report for one.
        """
        lease = self._current(key, now)
        if lease is not None and lease.is_over(leader, term):
            return False
        if lease is not None and lease.is_live(now) and not lease.is_same(leader):
            self._wait(lease, self._word_of(lease.rival, leader, term, count, now), now)
            return False
        self._spoke(key, leader, term, count, now)
        return True

    def resigns(self, key: Key, node_id: NodeId, router: Address, term: int) -> bool:
        """Take in that a node, at this address, leads no more; return whether the lease was its own."""
        lease = self._leases.get(key)
        if lease is not None and lease.rival is not None and lease.rival.is_from(node_id, router):
            lease.rival = None
        if lease is None or not lease.is_from(node_id, router) or term < lease.term:
            return False
        lease.resigned, lease.term = True, term
        return True

    def end(self, key: Key, leader: Leader) -> None:
        """Let a lease end because its leader is not there."""
        lease = self._leases.get(key)
        if lease is not None and lease.is_same(leader):
            self._end(key)

    def gone(self, node_id: NodeId) -> None:
        """Let all leases of a node end: it died, left, or began anew."""
        for lease in self._leases.values():
            if lease.rival is not None and lease.rival.leader.node_id == node_id:
                lease.rival = None
        for key in [key for key, lease in self._leases.items() if lease.leader.node_id == node_id]:
            self._end(key)

    def expire(self, now: float) -> None:
        """Forget what has ended."""
        for key in [key for key, lease in self._leases.items() if lease.kept_until() <= now]:
            self._remove(key)

    def _current(self, key: Key, now: float) -> Lease | None:
        """Return what is known of a key: when its lease has ended, the one that waited for that, if it is live."""
        lease = self._leases.get(key)
        if lease is not None and lease.rival is not None and lease.rival.is_live(now) and not lease.is_live(now):
            following, lease.rival = lease.rival, None
            following.rival = lease  # two that stand still do not take turns
            self._put(key, following)
        return self._leases.get(key)

    @staticmethod
    def _wait(lease: Lease, rival: Lease, now: float) -> None:
        """Have somebody who says that he leads wait for the end of a lease; the first one, as long as he says so."""
        known = lease.rival
        if lease.leader.node_id == rival.leader.node_id:
            return
        is_renewed = known is not None and known.is_same(rival.leader) and rival.spoke
        if known is None or is_renewed or not known.is_live(now) or rival.spoke > known.spoke:
            lease.rival = rival

    def _end(self, key: Key) -> None:
        rival = self._leases[key].rival
        self._remove(key)
        if rival is not None:
            self._put(key, rival)

    def _spoke(self, key: Key, leader: Leader, term: int, count: int, now: float) -> None:
        """Begin or prolong a leader's lease, by its own word; a copy of an earlier term's word does not set it back."""
        known, other = self._leases.get(key), None
        if known is not None and known.is_same(leader):
            other = known.rival
        elif known is not None and known.rival is not None and known.rival.is_same(leader):
            known, other = known.rival, known  # as in `_current`
        spoken = self._word_of(known, leader, term, count, now)
        spoken.rival = other
        if other is not None:
            other.rival = None
        self._put(key, spoken)

    @staticmethod
    def _word_of(lease: Lease | None, leader: Leader, term: int, count: int, now: float) -> Lease:
        """Return the lease that a leader's own word makes of what is known of him; after a silence he begins anew."""
        moved = now
        if lease is not None and lease.is_same(leader):
            term = max(term, lease.term)
            if lease.spoke and not lease.resigned and now < lease.deadline and count <= lease.count:
                count, moved = lease.count, lease.moved
        return Lease(leader, term, leader.router.host, now + LEASE_S, spoke=True, count=count, moved=moved)

    def _put(self, key: Key, lease: Lease) -> None:
        """Keep a lease in place of what is kept of the key, as the newest of its host."""
        if key in self._leases:
            self._remove(key)
        own = self._hosts.get(lease.host, {})
        if len(own) >= PER_HOST_MAX:
            self._remove(next(iter(own)))
        elif len(self._leases) >= LEASES_MAX:
            largest = max(self._hosts.values(), key=len)
            self._remove(next(iter(largest)))
        self._leases[key] = lease
        self._hosts.setdefault(lease.host, {})[key] = None

    def _remove(self, key: Key) -> None:
        host = self._leases.pop(key).host
        del self._hosts[host][key]
        if not self._hosts[host]:
            del self._hosts[host]


def seed_of(key: Key, seeds: Iterable[Leader]) -> Leader | None:
    """Return the seed that is to lead a key, the same one wherever the same seeds are known (rendezvous hashing)."""
    return max(seeds, key=lambda seed: hashlib.blake2b(seed.node_id + key, digest_size=8).digest(), default=None)
