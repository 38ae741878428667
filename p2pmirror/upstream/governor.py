"""When a registry may be asked again: one governor for each registry and account.

Laws:
- pure: time and chance are arguments; it says from when on a question may be asked, and never waits itself;
- a quota is not used up: what is left at the end is kept for manifests, and asking stops before the registry says 429;
- failures in a row make the pauses longer, up to a limit; one answer ends them;
- a registry that keeps its askers waiting is tried by one question after each pause, and nobody else waits with it;
- what is asked for free (HEAD, blobs) is held back by refusals and failures alone, never by a quota.
"""

from random import Random
from typing import Final, Literal

from p2pmirror.upstream.hints import Hints

Cost = Literal["free", "document", "spare"]
"""What a question costs: nothing of the quota; one, for a pull; one, for something that can be done without."""

FAILURE_S: Final = 0.5  # the pause after the first failure: a restart of a proxy
LATE_S: Final = 4.0  # after a first answer that did not come in time: each try costs whoever asks some seconds
PROBE_S: Final = 3.0  # for the one question after that: longer than askers wait
FAILURE_S_MAX: Final = 60.0  # a registry that comes back is noticed within a minute
LIMITED_S: Final = 10.0  # after a first 429 that says nothing: limits are by the minute or longer
LIMITED_S_MAX: Final = 600.0
JITTER: Final = 0.5  # of a pause: nodes that failed together do not come back together
RESERVE_RATIO: Final = 0.1  # of the quota, kept for manifests
RESERVE_MIN: Final = 5  # of any quota: an image for two platforms, and a second one
WINDOW_S: Final = 21_600.0  # of a quota that names none: Docker Hub's six hours


class Governor:
    """Takes in what a registry answers to one account, and says when it may be asked."""

    def __init__(self, random: Random) -> None:
        """Nothing is known: everything may be asked."""
        self._random = random
        self._failures = 0
        self._refusals = 0
        self._until = float("-inf")  # nothing before
        self._limited = False  # whether that is the registry's wish
        self._is_late = False  # whether the last question was given up by who had waited for it
        self._late_until = float("-inf")  # others that were given up meanwhile are the same failure
        self._documents_until = float("-inf")
        self._spare_until = float("-inf")
        self._remaining: int | None = None
        self._limit: int | None = None
        self._reachable = True

    @property
    def is_reachable(self) -> bool:
        """Whether the last question had an answer of the registry's own; a status of 500 and above is none."""
        return self._reachable

    @property
    def is_late(self) -> bool:
        """Whether the last question was given up by whoever had waited for its answer."""
        return self._is_late

    @property
    def remaining(self) -> int | None:
        """How much of the quota was left at the last answer that said so."""
        return self._remaining

    def may_ask_at(self, cost: Cost) -> float:
        """Return from when on such a question may be asked; a time that is past means now."""
        if cost == "free" or self._remaining is None:
            return self._until
        if cost == "spare":
            return max(self._until, self._documents_until, self._spare_until)
        return max(self._until, self._documents_until)

    def is_limited(self, cost: Cost) -> bool:
        """Say whether waiting is the registry's wish or its quota's, not a failure's."""
        return self._limited or self.may_ask_at(cost) > self._until

    @property
    def reserve(self) -> int:
        """How much of the quota is kept for manifests."""
        return max(RESERVE_MIN, int((self._limit or 0) * RESERVE_RATIO))

    def answered(self, now: float, hints: Hints) -> None:
        """Take in an answer."""
        self._take_quota(now, hints)
        limited = hints.status == 429 or (hints.status == 503 and hints.retry_after_s is not None)
        self._reachable = hints.status < 500
        if limited:
            self._refusals += 1
            pause = hints.retry_after_s
            if pause is None:
                pause = self._pause(LIMITED_S, LIMITED_S_MAX, self._refusals)
            self._hold(now + pause, limited=True)
        elif hints.status >= 500:
            self._fail(now)
        else:
            if not self._limited or now >= self._until:
                self._until, self._limited = float("-inf"), False
            self._is_late = False
            self._failures = self._refusals = 0

    def failed(self, now: float) -> None:
        """Take in that there was no answer."""
        self._reachable = False
        self._fail(now)

    def late(self, now: float) -> None:
        """Take in that somebody has given up waiting for an answer."""
        self._reachable = False
        if now >= self._late_until:
            self._is_late = True
            self._failures += 1
            self._late_until = now + self._pause(LATE_S, FAILURE_S_MAX, self._failures)
            self._hold(self._late_until, limited=False)

    def asks(self, now: float) -> None:
        """Take in that a question goes out; after late ones it goes alone until it is answered, or late as well."""
        if self._is_late:
            self._hold(now + PROBE_S, limited=False)

    def _fail(self, now: float) -> None:
        self._failures += 1
        self._hold(now + self._pause(FAILURE_S, FAILURE_S_MAX, self._failures), limited=False)

    def _hold(self, until: float, *, limited: bool) -> None:
        if until >= self._until:
            self._until = until
            self._limited = limited

    def _pause(self, first: float, most: float, times: int) -> float:
        longest = min(most, first * 2.0 ** min(times - 1, 20))
        return longest * (1 - JITTER * self._random.random())

    def _take_quota(self, now: float, hints: Hints) -> None:
        if hints.remaining is None:
            return
        self._remaining = hints.remaining
        self._limit = hints.limit if hints.limit is not None else self._limit
        one = (hints.window_s or WINDOW_S) / max(1, self._limit or 1)  # s: a sliding window frees one of its own
        self._spare_until = now + one * max(0, self.reserve + 1 - hints.remaining)
        self._documents_until = now + one if hints.remaining == 0 else float("-inf")
