"""What is noted of a blob while it arrives, so that another agent, or this one's next start, can go on with it.

Laws: it only thinks; a note is a line of text; what is torn, garbage or of something else costs its own piece and
nothing more, since all that is read here is hashed again before it counts.

A file being written, `.incoming-<hex>-<number>`, may have one beside it of the same name with `.pieces` at its end:

    p2pmirror 1 <size of the blob> <size of a piece>
    prefix <end> <hash>         the bytes before `end` have this hash, of the digest's algorithm
    piece <offset> <sha256>     the piece that begins there has this hash
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from p2pmirror.store.files import Stat
from p2pmirror.store.newfile import INCOMING

BESIDE: Final = ".pieces"
NOTES_BYTES_MAX: Final = 32 << 20  # two lines for each of 2 ** 17 pieces, the most that a blob has

_HEADER: Final = re.compile(rb"p2pmirror 1 ([1-9][0-9]{0,17}) ([1-9][0-9]{0,17})")
_NOTE: Final = re.compile(rb"(prefix|piece) ([0-9]{1,18}) ([0-9a-f]{64}|[0-9a-f]{128})")


@dataclass(slots=True)
class Progress:
    """How far a blob of `size` bytes has come: hashes of prefixes by their ends, and of pieces by where they begin."""

    size: int
    piece_bytes: int
    prefixes: dict[int, str] = field(default_factory=dict)
    pieces: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, data: bytes | None) -> Self | None:
        """Read notes; None where there are none, or not even what they are of."""
        first, _, rest = (data or b"").partition(b"\n")
        header = _HEADER.fullmatch(first)
        if header is None:
            return None
        progress = cls(int(header[1]), int(header[2]))
        for line in rest.split(b"\n")[:-1]:  # the last one has no end
            progress._take(_NOTE.fullmatch(line))
        return progress if progress.prefixes or progress.pieces else None

    @property
    def header(self) -> bytes:
        """The first line."""
        return b"p2pmirror 1 %d %d\n" % (self.size, self.piece_bytes)

    def is_border(self, position: int) -> bool:
        """Whether a piece ends there."""
        return position == self.size or position % self.piece_bytes == 0

    def count(self, offset: int) -> int:
        """Return how many bytes a piece has."""
        return min(self.piece_bytes, self.size - offset)

    @property
    def reach(self) -> int:
        """Up to where all is noted, from the first byte on."""
        end = max(self.prefixes, default=0)
        while end in self.pieces:
            end += self.count(end)
        return end

    def _take(self, note: re.Match[bytes] | None) -> None:
        if note is None:
            return
        position, found = int(note[2]), note[3].decode()
        if note[1] == b"prefix" and 0 < position <= self.size and self.is_border(position):
            self.prefixes[position] = found
        elif note[1] == b"piece" and position < self.size and position % self.piece_bytes == 0 and len(found) == 64:
            self.pieces[position] = found


def prefix_note(end: int, found: str) -> bytes:
    """Return the line for the bytes before `end`."""
    return f"prefix {end} {found}\n".encode()


def piece_note(offset: int, found: str) -> bytes:
    """Return the line for a piece."""
    return f"piece {offset} {found}\n".encode()


def halves(names: Mapping[str, Stat], hex_digest: str | None = None) -> Iterator[str]:
    """Return the files that have notes beside them, of one digest or of all, the latest first."""
    prefix = INCOMING if hex_digest is None else f"{INCOMING}{hex_digest}-"
    noted = [name for name in names if name.startswith(prefix) and name + BESIDE in names]
    yield from sorted(noted, key=lambda name: (-names[name].mtime_ns, name))


def spared(names: Mapping[str, Stat], now_s: float, age_s_max: float) -> set[str]:
    """Return the names of what may be gone on with, and of its notes: the latest of each digest, unless it is old."""
    chosen: dict[str, str] = {}
    for name in halves(names):
        if abs(now_s - names[name].mtime_ns / 1e9) <= age_s_max:
            chosen.setdefault(name.rpartition("-")[0], name)
    return {each for name in chosen.values() for each in (name, name + BESIDE)}
