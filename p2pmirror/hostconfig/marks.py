"""What is put into somebody's file, marked, so that it can be taken out again whatever was changed around it.

Laws:
- Two kinds of change, no others: a block between two marks is put in, and lines that have to give way are set aside,
  as comments with a mark in front of them.
- `without(put_in(text, …)) == text` for every text that has no mark of ours in it.
"""

import re
from collections.abc import Iterable
from typing import Final

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig.outline import Part

BEGIN: Final = "# >>> p2pmirror: written by `p2pmirror configure`, taken away by `p2pmirror unconfigure`"
END: Final = "# <<< p2pmirror"
ASIDE: Final = "#p2pmirror# "

_HALF: Final = f"one of p2pmirror's two marks is missing ({BEGIN[:15]} … {END})"


class Damaged(BadRequest):
    """One of two marks is missing: nobody can say where what is ours ends."""


def is_marked(text: str) -> bool:
    """Tell whether anything in a text is ours."""
    return any(line.startswith((BEGIN, END, ASIDE)) for line in text.split("\n"))


def put_in(text: str, at: int, block: str, aside: Iterable[Part] = ()) -> str:
    """Return `text` with `block` (whole lines) at the beginning of a line, or at the end, and parts set aside."""
    block = f"{BEGIN}\n{block}{END}\n"
    if at == len(text) and text and not text.endswith("\n"):
        block = "\n" + block.removesuffix("\n")  # no line feed at the end: that is how `without` knows the added one
    pieces, done = [], 0
    for start, end, new in sorted([(at, at, block), *((part.start, part.end, None) for part in aside)], key=_place):
        pieces += [text[done:start], _set_aside(text[start:end]) if new is None else new]
        done = end
    return "".join([*pieces, text[done:]])


def without(text: str) -> str:
    """Return a text without what is ours. Raises `Damaged`."""
    kept: list[str] = []
    is_ours = False
    for line in text.split("\n"):
        if line.startswith(END if is_ours else BEGIN):
            is_ours = not is_ours
        elif line.startswith((BEGIN, END)):
            raise Damaged(_HALF)
        elif not is_ours:
            kept.append(line.removeprefix(ASIDE))
    if is_ours:
        raise Damaged(_HALF)
    return "\n".join(kept)


def _place(change: tuple[int, int, str | None]) -> tuple[int, bool]:
    return change[0], change[2] is None


def _set_aside(lines: str) -> str:
    return "".join(ASIDE + line for line in re.findall(r"[^\n]*\n|[^\n]+", lines))
