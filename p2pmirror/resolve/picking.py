"""Which piece of a flight to ask a peer for.

Laws: only what is not here, and what nobody else was asked for, unless he is late; the rarest first among those in the
window, ties by chance, so that peers do not all ask for the same ones. This module only thinks.

Follows A. Legout et al., Rarest First and Choke Algorithms Are Enough (2006); the window keeps readers fed in order.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from random import Random
from typing import Final, Protocol

WINDOW_PIECES: Final = 32  # ahead of the frontier: 32 to 128 MiB; with 64 or 128 no layer comes sooner
ASKS_MAX: Final = 2  # of one piece: when it is late somebody else is asked too, and the first one counts


class Has(Protocol):
    """Which pieces somebody has."""

    def __contains__(self, index: int, /) -> bool: ...


class Held(Has, Protocol):
    """Which of `count` pieces are here."""

    count: int


def window(have: Held, first: int, without: AbstractSet[int] = frozenset(), *, most: int = WINDOW_PIECES) -> list[int]:
    """Return the pieces that may be asked for, in order: the next `most` from `first` on that are missing.

    `without`: pieces of an earlier try that are being hashed again; they are here unless they turn out wrong.
    """
    found = []
    for index in range(first, have.count):
        if index not in have and index not in without:
            found.append(index)
            if len(found) == most:
                break
    return found


def wanted(missing: Sequence[int], asked: Mapping[int, Sequence[float]], late_before: float) -> list[int]:
    """Return which pieces of the window to ask for: those that nobody was asked for, else those that are late.

    `asked` are the moments at which peers were asked; a piece is late when that was before `late_before`, once.
    """
    free = [index for index in missing if index not in asked]
    return free or [i for i in missing if len(asked[i]) < ASKS_MAX and asked[i][-1] < late_before]


def rarest(candidates: Iterable[int], maps: Sequence[Has], random: Random) -> int | None:
    """Return a piece that the fewest of these have, by chance among several; None when there is no candidate."""
    counted = [(sum(index in each for each in maps), index) for index in candidates]
    if not counted:
        return None
    fewest = min(counted)[0]
    return random.choice([index for count, index in counted if count == fewest])
