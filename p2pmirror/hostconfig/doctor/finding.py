"""One thing that was looked at: how it stands, and what to do.

Laws: `bad` is what keeps images from going from node to node, or pulls from working; `warn` is what costs something;
what could not be looked at is `skip`, with the reason; what is bad or a warning has something to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "bad", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What `check` found. `todo`: what to do about it, empty for nothing."""

    check: str
    level: Level
    said: str
    todo: str = ""


def is_healthy(findings: Sequence[Finding]) -> bool:
    """Tell whether nothing is bad."""
    return all(each.level != "bad" for each in findings)
