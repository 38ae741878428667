"""How each peer behaved: who is banned for which digest, and which of several is likely to be the quickest.

Laws: time and chance are arguments; everything is bounded; a ban ends by itself; what is not known counts as average,
so that a new peer is tried. The choice is the best of two drawn at random (M. Mitzenmacher, The Power of Two Choices
in Randomized Load Balancing, 2001): as good as knowing all of them, without everybody choosing the same one.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median

from p2pmirror.oci import Digest
from p2pmirror.wire.identity import NodeId

BAN_S = (
    600.0  # long enough that one pull, its retries and the kubelet's back-off do not meet the same wrong bytes again
)
BANS_MAX = 10_000  # a whole cluster of liars for some dozens of layers; the oldest bans go first
PEERS_MAX = 10_000  # nodes that are remembered; the one that was not used for the longest time goes first
FAILURE_S = 5.0  # a peer that failed is the last choice this long: a restart takes about as much
RATE_WEIGHT = 0.3  # of the newest measurement in the moving average: three transfers make most of it
RATES_MAX = 100  # transfers whose median is the usual rate: a few pulls, so that it follows the hour of the day
RATED_BYTES_MIN = 256 * 1024  # less tells more about a round trip than about a rate


def _tell_nobody(_node_id: NodeId, _digest: Digest, _seconds: float, _why: str) -> None:
    """Keep a ban to itself."""


@dataclass(slots=True)
class _Peer:
    in_flight: int = 0
    rate: float | None = None  # bytes per second, moving average
    avoid_until: float = 0.0


class Scores:
    """What one node remembers of the others."""

    def __init__(self, random: Random, banned: Callable[[NodeId, Digest, float, str], None] = _tell_nobody) -> None:
        """Draw with `random`; `banned` is told of each ban: of whom, for what, for how many seconds, and why."""
        self._random = random
        self._tell = banned
        self._peers: OrderedDict[NodeId, _Peer] = OrderedDict()
        self._bans: OrderedDict[tuple[NodeId, Digest], float] = OrderedDict()
        self._rates: deque[float] = deque(maxlen=RATES_MAX)

    def ban(self, node_id: NodeId, digest: Digest, now: float, why: str, seconds: float = BAN_S) -> None:
        """Do not ask this node for this digest for some seconds; a longer ban is not made shorter."""
        if not self.banned(node_id, digest, now):
            self._tell(node_id, digest, seconds, why)
        self._bans[node_id, digest] = max(now + seconds, self._bans.get((node_id, digest), 0.0))
        self._bans.move_to_end((node_id, digest))
        while len(self._bans) > BANS_MAX:
            self._bans.popitem(last=False)

    def banned(self, node_id: NodeId, digest: Digest, now: float) -> bool:
        """Return whether this node may not be asked for this digest now."""
        until = self._bans.get((node_id, digest))
        if until is not None and until <= now:
            del self._bans[node_id, digest]
            return False
        return until is not None

    def began(self, node_id: NodeId) -> None:
        """Count a request that goes to this node."""
        self._peer(node_id).in_flight += 1

    def ended(self, node_id: NodeId, count: int = 0, seconds: float = 0.0) -> None:
        """Count its end; with `count` bytes in `seconds`, also learn how quick the node is."""
        peer = self._peer(node_id)
        peer.in_flight = max(0, peer.in_flight - 1)
        if count > 0 and seconds > 0:
            rate = count / seconds
            peer.rate = rate if peer.rate is None else (1 - RATE_WEIGHT) * peer.rate + RATE_WEIGHT * rate
            if count >= RATED_BYTES_MIN:
                self._rates.append(rate)

    def usual_rate(self) -> float | None:
        """Return the median rate of the last transfers of some size, bytes per second; None before there was one."""
        return median(self._rates) if self._rates else None

    def failed(self, node_id: NodeId, now: float) -> None:
        """Make this node the last choice for `FAILURE_S` seconds."""
        self._peer(node_id).avoid_until = now + FAILURE_S

    def pick(self, candidates: Sequence[tuple[NodeId, bool]], now: float) -> int:
        """Return the index of the one to ask among `(node id, whether it is in our zone)`; there is at least one.

        Those of our zone come first, those that failed lately last; among the rest two are drawn and compared.
        """
        if len(candidates) == 1:
            return 0
        ranks = [(self._avoided(node_id, now), not near) for node_id, near in candidates]
        best = [index for index, rank in enumerate(ranks) if rank == min(ranks)]
        drawn = self._random.sample(best, min(2, len(best)))
        return min(drawn, key=lambda index: self._expected_seconds(candidates[index][0]))

    def _avoided(self, node_id: NodeId, now: float) -> bool:
        peer = self._peers.get(node_id)
        return peer is not None and peer.avoid_until > now

    def _expected_seconds(self, node_id: NodeId) -> float:
        """Return what a byte is expected to take, relative to other peers."""
        peer = self._peers.get(node_id)
        rates = [each.rate for each in self._peers.values() if each.rate is not None]
        average = sum(rates) / len(rates) if rates else 1.0
        if peer is None:
            return 1 / average
        return (peer.in_flight + 1) / (peer.rate or average)

    def _peer(self, node_id: NodeId) -> _Peer:
        peer = self._peers.setdefault(node_id, _Peer())
        self._peers.move_to_end(node_id)
        while len(self._peers) > PEERS_MAX:
            self._peers.popitem(last=False)
        return peer
