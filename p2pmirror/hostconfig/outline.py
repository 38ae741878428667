"""Where the tables of a TOML text begin, and where its single statements stand, to the character.

Laws:
- The text is cut, never written anew: the parts, put together, are the text. So a change of one place keeps every other
  byte, comments and odd spacing included.
- A line is taken for a table's header when it begins with a bracket and what stands before it, from the last header on,
  is TOML by itself. Within a string or an array of several lines that is never so; so the cut is exact.

Python's own reader says what the text means; it knows no places. tomlkit knows them, but can neither put a table before
the first one nor say where it stood.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from p2pmirror.errors import BadRequest


class Broken(BadRequest):
    """The text is no TOML; the message says where."""


@dataclass(frozen=True, slots=True)
class Part:
    """Characters `start` to `end` of a text. `key`: of the table, () before the first one; of a statement, its first.

    `many` is true of a table of an array (`[[…]]`).
    """

    start: int
    end: int
    key: tuple[str, ...]
    many: bool = False


def read(text: str) -> dict[str, Any]:
    """Return what a text means. Raises `Broken`."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOML's own, and a number of thousands of digits
        raise Broken(f"no TOML: {error}") from None


def tables(text: str) -> list[Part]:
    """Return what stands before the first header, and then each table to the next header. Raises `Broken`."""
    read(text)
    found, start, key, many = [], 0, (), False  # type: list[Part], int, tuple[str, ...], bool
    for at, line in _lines(text):
        if line.lstrip(" \t").startswith("[") and is_toml(text[start:at]):
            found.append(Part(start, at, key, many))
            start, (key, many) = at, _header(line)
    return [*found, Part(start, len(text), key, many)]


def statements(text: str, table: Part) -> list[Part]:
    """Return the statements of a table, each with the lines that it takes, without the comments between them."""
    found, start = list[Part](), -1
    for place, line in _lines(text[table.start : table.end]):
        at = table.start + place
        if table.key and not place:
            continue
        if start < 0 and line.strip() and not line.lstrip().startswith("#"):
            start = at
        end = at + len(line)
        if start >= 0 and is_toml(text[start:end]):
            found.append(Part(start, end, (next(iter(tomllib.loads(text[start:end]))),)))
            start = -1
    return found


def is_toml(text: str) -> bool:
    """Tell whether a text is TOML by itself."""
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its place; only a line feed ends one (str.splitlines knows ten more that do)."""
    at = 0
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        yield at, text[at:end]
        at = end


def _header(line: str) -> tuple[tuple[str, ...], bool]:
    """Return the key in a header, and whether it is of an array."""
    key: list[str] = []
    inner: Any = tomllib.loads(line)
    while inner:
        if isinstance(inner, list):
            inner = inner[0]
            continue
        ((name, inner),) = inner.items()
        key.append(name)
    return tuple(key), line.lstrip(" \t").startswith("[[")
