"""How many pieces go out to peers at once, to whom, and who else may be asked where that is too many.

Laws:
- only peers take slots, and only for what takes long enough to matter: the node's own containerd is never refused;
- nobody waits for a slot here: whoever gets none is told so at once, and by whom the content was taken before;
- one peer has at most `per_peer`, so that one that pulls ten layers leaves room for the others;
- where nobody says how many there are, one more is tried when somebody was refused; it stays while it brings at least
  half of its share, else the link is full, and more at once would only be later each;
- what is remembered is bounded.

DESIGN.md section 4, "Flights and pieces". This module only thinks.
"""

from collections import Counter, OrderedDict
from typing import Final

from p2pmirror.oci import Digest
from p2pmirror.wire.identity import NodeId

SLOTS_MIN: Final = 4  # fill a link, as a leader's gives do (`resolve.spreading`)
SLOTS_MAX: Final = 16  # neighbours of a flight: each of them asks for one piece at a time
PER_PEER: Final = 4
RATED_BYTES_MIN: Final = 256 * 1024  # less tells more about a round trip than about a rate
WEIGHT: Final = 0.3  # of the newest rate in the moving average
DIGESTS_MAX: Final = 256  # of which it is remembered who took them: some pulls' worth
TAKERS_MAX: Final = 8  # named to whoever is refused: more than he will ask


class Slots:
    """The slots of one node."""

    def __init__(self, count: int | None = None, per_peer: int = PER_PEER) -> None:
        """Have `count` in all (None: as many as are good), `per_peer` for each."""
        self.count = SLOTS_MIN if count is None else count
        self._adapts = count is None
        self._per_peer = per_peer
        self._taken: Counter[NodeId] = Counter()
        self._takers: OrderedDict[Digest, OrderedDict[NodeId, None]] = OrderedDict()
        self._rates: dict[int, float] = {}  # of one upload, bytes per second, while there were so many slots
        self._rated = 0  # uploads since their number changed
        self._is_short = False  # whether somebody was refused since, because all were taken

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self._taken.total()

    def has_room(self, peer: NodeId) -> bool:
        """Whether a peer would get one."""
        if self.taken >= self.count:
            self._is_short = True
            return False
        return self._taken[peer] < self._per_peer

    def take(self, peer: NodeId) -> bool:
        """Take one for a peer, and say whether there was one."""
        if not self.has_room(peer):
            return False
        self._taken[peer] += 1
        return True

    def give_back(self, peer: NodeId, digest: Digest | None, *, sent: int, seconds: float, whole: bool) -> None:
        """Give one back; `whole`: all that the peer asked for went out, so that others may ask him."""
        if self._adapts and self._is_short and sent >= RATED_BYTES_MIN and seconds > 0:
            self._learn(sent / seconds)
        self._taken[peer] -= 1
        if not self._taken[peer]:
            del self._taken[peer]
        if whole and digest is not None:
            self._note(digest, peer)

    def takers(self, digest: Digest | None, but: NodeId) -> tuple[NodeId, ...]:
        """Return who took a digest, or parts of it, the latest first."""
        if digest is None or digest not in self._takers:
            return ()
        return tuple(each for each in reversed(self._takers[digest]) if each != but)

    def _note(self, digest: Digest, peer: NodeId) -> None:
        takers = self._takers.setdefault(digest, OrderedDict())
        takers[peer] = None
        takers.move_to_end(peer)
        if len(takers) > TAKERS_MAX:
            takers.popitem(last=False)
        self._takers.move_to_end(digest)
        if len(self._takers) > DIGESTS_MAX:
            self._takers.popitem(last=False)

    def _learn(self, rate: float) -> None:
        """Take note of how quick an upload was; when each slot was used once, try more of them, or fewer."""
        known = self._rates.get(self.count)
        self._rates[self.count] = rate if known is None else known + WEIGHT * (rate - known)
        self._rated += 1
        if self._rated >= self.count:
            wished = self.count + 1 if self._was_worth_it() else self.count - 1
            self._rated, self._is_short = 0, False
            if wished > self.count:
                self._rates.pop(wished, None)  # it is tried anew: the others are not who they were
            self.count = min(SLOTS_MAX, max(SLOTS_MIN, wished))

    def _was_worth_it(self) -> bool:
        """Whether the last slot brought half of what each of the others does."""
        fewer = self._rates.get(self.count - 1)
        gain = 0.5 / (self.count - 1)
        return fewer is None or self.count * self._rates[self.count] >= (1 + gain) * (self.count - 1) * fewer
