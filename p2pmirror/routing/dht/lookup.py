"""One lookup: whom to ask next, what was answered, and when no more can come.

Laws:
- one writer: the shell tells what happened, everything else is computed from the candidates;
- at most `ALPHA` questions wait for an answer; one that waits past its soft timeout frees its place, and its answer
  still counts;
- it ends when the closest candidates have answered: with records, until `QUORUM` of them gave some; without, all
  holders. Records that farther ones gave end nothing: those held the key while nearer nodes were away.
  Silent ones are passed over after their soft timeout as long as no more are silent than answered.

Follows the Kademlia paper, section 2.3, as a sliding window instead of rounds. Deadlines are compared, never computed
twice. DESIGN.md section 4, "Lookup".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile

from p2pmirror.wire.identity import NodeId

ALPHA = 3  # questions at a time: the paper's value
HOLDERS = 8  # nodes that keep a key's records: all gone at once has probability 6.6e-5 when 30 % of the nodes die
QUORUM = 3  # holders that gave their records: a fourth adds a provider only if three missed its announcement
SOFT_S_MIN = 0.005  # below this a busy loop looks like a dead node
SOFT_S_MAX = 0.025  # above this a dead node costs most of the 30 ms that a pull waits
SOFT_S_UNKNOWN = 0.015  # for a node whose round trip was never measured
NO_QUORUM = 1 << 30  # records end no lookup: for one that asks every holder
PENDING_S = 0.300  # a holder that pings its providers first has 250 ms for it, and its answer needs to arrive
CANDIDATES_MAX = 400  # a lookup meets some tens; more is a flood of invented nodes


def soft_timeout_s(smoothed_round_trip_s: float | None) -> float:
    """Return after what time a question frees its place: clamp(3 srtt, 5 ms, 25 ms)."""
    if smoothed_round_trip_s is None:
        return SOFT_S_UNKNOWN
    return min(max(3 * smoothed_round_trip_s, SOFT_S_MIN), SOFT_S_MAX)


class _State(Enum):
    NEW = 0
    ASKED = 1
    ANSWERED = 2
    FAILED = 3


@dataclass(slots=True)
class _Candidate:
    node_id: NodeId
    distance: int
    state: _State = _State.NEW
    soft_deadline: float = 0.0
    pending: bool = False  # whether it answered in part, and pings its providers before it says the rest
    found: bool = False  # whether it gave records


class Lookup:
    """A lookup of `target` that begins with the nodes `known`; this node itself is asked without a datagram."""

    def __init__(
        self, target: bytes, own_id: NodeId, known: Iterable[NodeId], *, holders: int = HOLDERS, quorum: int = QUORUM
    ) -> None:
        """Begin with the closest contacts of the table.

        `holders` is how many nodes keep a record, `quorum` how many of them must have given theirs for it to end.
        """
        self._quorum = quorum
        self._target = int.from_bytes(target, "big")
        self._holders = holders
        self._candidates: dict[NodeId, _Candidate] = {}
        self._ordered: list[_Candidate] = []
        self._meet(own_id)
        self._own = self._candidates[own_id]
        self._own.state = _State.ANSWERED
        for node_id in known:
            self._meet(node_id)
        self._sort()

    def answered_here(self, *, found: bool) -> None:
        """Say whether this node's own records had the key."""
        self._own.found = found

    def next_asks(self, now: float) -> list[NodeId]:
        """Return whom to ask now; each is then to be reported as `asked`. Empty once `ended`."""
        window = self._window(now)
        if self._is_over(window):
            return []
        busy = sum(_takes_a_place(each, now) for each in self._ordered)
        found = any(each.found for each in self._ordered)
        missing = self._enough(len(window)) - _found_nearer_than(_State.NEW, window)
        places = (min(ALPHA, missing) if found else ALPHA) - busy  # records found: ask no more than are missing
        return [each.node_id for each in window if each.state is _State.NEW][: max(0, places)]

    def asked(self, node_id: NodeId, soft_deadline: float) -> None:
        """Note that the question went out, and until when it keeps its place."""
        candidate = self._candidates[node_id]
        candidate.state = _State.ASKED
        candidate.soft_deadline = soft_deadline

    def answered(
        self, node_id: NodeId, closer: Iterable[NodeId], *, found: bool = False, pending_until: float | None = None
    ) -> list[NodeId]:
        """Take in an answer; return those of `closer` that are new.

        `found`: it came with records. `pending_until`: more comes from it, until then at the latest.
        """
        candidate = self._candidates[node_id]
        candidate.found = candidate.found or found
        if pending_until is None:
            candidate.state = _State.ANSWERED
        elif candidate.state is _State.ASKED:
            candidate.pending = True
            candidate.soft_deadline = max(candidate.soft_deadline, pending_until)
        new = [each for each in closer if self._meet(each)]
        if new:
            self._sort()
        return new

    def failed(self, node_id: NodeId) -> None:
        """Note that no answer will come."""
        if self._candidates[node_id].state is not _State.ANSWERED:
            self._candidates[node_id].state = _State.FAILED

    def ended(self, now: float) -> bool:
        """Whether nothing more is worth waiting for."""
        return self._is_over(self._window(now))

    def next_deadline(self, now: float) -> float | None:
        """Return when to look again although nothing happened, or None when only answers and failures matter."""
        waiting = [each.soft_deadline for each in self._ordered if each.state is _State.ASKED]
        return min((deadline for deadline in waiting if deadline > now), default=None)

    def closest(self) -> list[NodeId]:
        """Return the nodes that answered, closest first, this node included: the holders, once it has ended."""
        return [each.node_id for each in self._ordered if each.state is _State.ANSWERED][: self._holders]

    def _window(self, now: float) -> list[_Candidate]:
        """Return the closest candidates that did not fail and are not silent, as many as there are holders."""
        window = []
        for each in self._ordered:
            if each.state is _State.FAILED or (each.state is _State.ASKED and each.soft_deadline <= now):
                continue
            window.append(each)
            if len(window) == self._holders:
                break
        return window

    def _is_over(self, window: Sequence[_Candidate]) -> bool:
        if _found_before_unanswered(window) >= self._enough(len(window)) > 0:
            return True
        if any(each.state is not _State.ANSWERED for each in window):
            return False
        silent = sum(each.state is _State.ASKED for each in self._ordered)
        return silent == 0 or (len(window) > 1 and silent <= len(window))

    def _enough(self, holders: int) -> int:
        """Return how many of the holders that are there must have given records."""
        return self._quorum if self._quorum == NO_QUORUM else min(self._quorum, holders)

    def _meet(self, node_id: NodeId) -> bool:
        if node_id in self._candidates or len(self._candidates) >= CANDIDATES_MAX:
            return False
        candidate = _Candidate(node_id, int.from_bytes(node_id, "big") ^ self._target)
        self._candidates[node_id] = candidate
        self._ordered.append(candidate)
        return True

    def _sort(self) -> None:
        self._ordered.sort(key=lambda each: each.distance)


def _found_nearer_than(state: _State, window: Iterable[_Candidate]) -> int:
    """Return how many gave records of those that are nearer than the first one in a state."""
    return sum(each.found for each in takewhile(lambda each: each.state is not state, window))


def _found_before_unanswered(window: Iterable[_Candidate]) -> int:
    """Return how many gave records of those that are nearer than the first one that has said nothing."""
    said = takewhile(lambda each: each.found or each.state is _State.ANSWERED, window)
    return sum(each.found for each in said)


def _takes_a_place(candidate: _Candidate, now: float) -> bool:
    return candidate.state is _State.ASKED and not candidate.pending and now < candidate.soft_deadline
