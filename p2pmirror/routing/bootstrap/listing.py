"""Lists of members that somebody else wrote, a file or a server: entry by entry, the good ones count.

Law: a list of any size, with anything in it, costs bounded time, in steps that do not stop the loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import trio

from p2pmirror.routing.bootstrap.places import Place, read_place, shown

LIST_BYTES_MAX = 1 << 20  # ten thousand members take some 300 KB
ENTRIES_MAX = 4096  # read at a time: as many addresses as a bootstrap tells
STEP_ENTRIES = 100  # read between two turns of the loop: 1.5 ms
NAMED_MAX = 3  # broken entries that the log names; the others are counted


@dataclass(frozen=True, slots=True)
class Listing:
    """The good entries, and what is `wrong` with the others, in a few words; empty when all are good."""

    places: list[Place]
    wrong: str


async def read_entries(entries: Sequence[tuple[str, object]], random: Random) -> Listing:
    """Read entries, each given as how it is called and what it says; of a very long list a sample. Never raises."""
    chosen = entries
    if len(entries) > ENTRIES_MAX:
        chosen = [entries[index] for index in sorted(random.sample(range(len(entries)), ENTRIES_MAX))]
    places: list[Place] = []
    broken: list[str] = []
    for number, (called, said) in enumerate(chosen):
        if number % STEP_ENTRIES == 0:
            await trio.lowlevel.checkpoint()
        try:
            places.append(_read(said))
        except ValueError as error:
            broken.append(f"{called} ({error})")
    if len(entries) > ENTRIES_MAX:
        return Listing(places, f"has {len(entries)} entries, of which {ENTRIES_MAX} are read at a time")
    return Listing(places, _told(broken))


def _read(said: object) -> Place:
    if not isinstance(said, str):
        raise ValueError(f"{shown(repr(said))} is no text")
    return read_place(said)


def _told(broken: Sequence[str]) -> str:
    if not broken:
        return ""
    more = f" and {len(broken) - NAMED_MAX} more" if len(broken) > NAMED_MAX else ""
    return f"is read without {', '.join(broken[:NAMED_MAX])}{more}"
