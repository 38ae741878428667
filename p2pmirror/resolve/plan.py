"""Whom to ask next, and until when: the thinking behind every race for a source.

Laws: the first provider learnt is asked at once; another one every `dial_gap_s`, or at once when one failed; at most
`asks_max` in all. Without any provider by `first_deadline` the race is lost, unless one is known and still being
checked; at `deadline` it is lost anyhow. Who is busy is asked again until then, `BUSY_S` later each time. A miss must
be cheap, because containerd goes upstream after it.
"""

from collections.abc import Callable, Sequence
from math import inf

from p2pmirror.routing.protocol import Provider
from p2pmirror.wire.identity import NodeId

BUSY_S = 0.2  # until a busy provider is asked again: a slot is free when a piece has gone out, some tenths of a second

Pick = Callable[[Sequence[Provider]], int]
"""Chooses among candidates, of which there is at least one; returns an index."""


class Plan:
    """One race: fed with what is learnt, asked what to do."""

    def __init__(
        self,
        *,
        now: float,
        asks_max: int,
        dial_gap_s: float,
        first_provider_s: float,
        head_s: float,
        pick: Pick,
    ) -> None:
        """Begin at `now`; see the module for what the limits mean."""
        self._asks_left = asks_max
        self._dial_gap_s = dial_gap_s
        self._first_deadline = now + first_provider_s
        self._deadline = now + head_s
        self._pick = pick
        self._known: set[NodeId] = set()
        self._waiting: list[Provider] = []
        self._asked: set[NodeId] = set()  # and not yet answered
        self._busy: list[tuple[float, Provider]] = []  # and when to ask them again
        self._next_dial = now
        self._lookup_ended = False
        self._hoped = False

    def learnt(self, provider: Provider) -> None:
        """Take note of a provider; the same one counts once."""
        if provider.node_id not in self._known:
            self._known.add(provider.node_id)
            self._waiting.append(provider)

    def hoped(self) -> None:
        """Take note that somebody is named and still being checked: the end of the lookup is waited for."""
        self._hoped = True

    def lookup_ended(self) -> None:
        """Take note that no provider more will come."""
        self._lookup_ended = True

    def failed(self, provider: Provider) -> None:
        """Take note that this one will not answer: the next may be asked at once."""
        self._asked.discard(provider.node_id)
        self._next_dial = -inf

    def busy(self, provider: Provider, now: float) -> None:
        """Take note that this one has too much to do: it is asked again later, another one at once."""
        self.failed(provider)
        self._busy.append((now + BUSY_S, provider))

    def next_ask(self, now: float) -> Provider | None:
        """Return the provider to ask now, which then counts as asked; None when it is not time or nobody is left."""
        if now >= self._deadline:
            return None
        if not self._waiting or self._asks_left <= 0 or now < self._next_dial:
            return self._next_busy(now)
        provider = self._waiting.pop(self._pick(self._waiting))
        self._asked.add(provider.node_id)
        self._asks_left -= 1
        self._next_dial = now + self._dial_gap_s
        return provider

    def _next_busy(self, now: float) -> Provider | None:
        """Return a provider whom it is time to ask again; the first one to have said that it is busy comes first."""
        if not self._busy or now < self._busy[0][0]:
            return None
        provider = self._busy.pop(0)[1]
        self._asked.add(provider.node_id)
        return provider

    def lost(self, now: float) -> bool:
        """Return whether nobody will answer any more."""
        if now >= self._deadline:
            return True
        if self._asked or self._busy:
            return False
        if self._waiting and self._asks_left > 0:
            return False
        if self._asks_left <= 0 or self._lookup_ended:
            return True
        return not self._known and not self._hoped and now >= self._first_deadline

    def wakes_at(self) -> float:
        """Return the moment at which, if nothing else happens, something is to be done or given up."""
        moments = [self._deadline]
        if self._waiting and self._asks_left > 0:
            moments.append(self._next_dial)
        if self._busy:
            moments.append(self._busy[0][0])
        if not self._known and not self._hoped:
            moments.append(self._first_deadline)
        return min(moments, default=inf)
