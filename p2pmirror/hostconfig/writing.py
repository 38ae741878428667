"""Keys and values as TOML writes them: tomlkit's work, so that no quote of a header's value ends it."""

from collections.abc import Iterable
from typing import Any

import tomlkit


def value(said: Any) -> str:
    """Return a value as it stands behind a key."""
    return str(tomlkit.item(said).as_string())


def pair(key: str, said: Any) -> str:
    """Return a line, without its end."""
    return f"{key} = {value(said)}"


def header(parts: Iterable[str]) -> str:
    """Return the header of a table."""
    return f"[{'.'.join(name(part) for part in parts)}]"


def name(part: str) -> str:
    """Return one part of a key, in quotes where it needs some."""
    return part if part.isascii() and part.isidentifier() else value(part)
