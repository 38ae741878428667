"""What of a cache has to go, and what may.

Laws:
- it only thinks: facts in, a list of victims out, in the order in which they go; the same facts, the same list;
- what is pinned or open never goes, nor what came a moment ago, whatever is asked for;
- when all that may go would not make the room, nothing goes: it would have gone in vain;
- nothing expires while a registry that it came from cannot be asked for it again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from p2pmirror.oci import Digest

HIGH_SHARE: Final = 0.95  # of the room: from here on room is made, so that a pull seldom waits for it
LOW_SHARE: Final = 0.85  # down to here: a tenth at a time is some layers, not a sweep for each blob


class Kept(Protocol):
    """What eviction looks at of one blob. Times are seconds of one clock."""

    @property
    def digest(self) -> Digest:
        """What it is."""
        ...

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """The `registry/repository` names that it was fetched for."""
        ...

    @property
    def kept_s(self) -> float:
        """When it came."""
        ...

    @property
    def used_s(self) -> float:
        """When it was asked for last."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether somebody reads it now."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What may go. `ttl_of` gives the seconds for which content of these names is kept unused."""

    ttl_of: Callable[[frozenset[str]], float]
    is_reachable: Callable[[str], bool]  # a registry, by its name
    is_pinned: Callable[[Kept], bool]
    age_s_min: float


def expired(kept: Iterable[Kept], rules: Rules, now: float) -> list[Digest]:
    """Name what nobody has asked for longer than its time."""
    return [
        each.digest
        for each in kept
        if now - each.used_s > rules.ttl_of(each.names)
        and _may_go(each, rules, now)
        and all(rules.is_reachable(name.partition("/")[0]) for name in each.names)
    ]


def surplus(held_bytes: int, coming_bytes: int, bytes_max: int) -> tuple[int, int]:
    """Say how many bytes must go for `coming_bytes` to have room, and how many should when any go.

    Below the high mark both are 0.
    """
    total = held_bytes + coming_bytes
    if total <= HIGH_SHARE * bytes_max:
        return 0, 0
    return max(0, total - bytes_max), max(0, total - int(LOW_SHARE * bytes_max))


def victims(kept: Iterable[Kept], rules: Rules, now: float, *, must: int, should: int) -> list[Digest] | None:
    """Name the longest unused that free `should` bytes, or as many as there are; None where not even `must` may go."""
    chosen, freed = [], 0
    for each in _longest_unused(kept, rules, now):
        if freed >= should:
            break
        chosen.append(each.digest)
        freed += each.size
    return chosen if freed >= must else None


def _longest_unused(kept: Iterable[Kept], rules: Rules, now: float) -> Sequence[Kept]:
    """Order what may go; what frees nothing stays, since it would have gone in vain."""
    return sorted(
        (each for each in kept if each.size and _may_go(each, rules, now)), key=lambda each: (each.used_s, each.digest)
    )


def _may_go(each: Kept, rules: Rules, now: float) -> bool:
    return not each.is_open and now - each.kept_s >= rules.age_s_min and not rules.is_pinned(each)
