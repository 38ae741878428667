"""What an answer tells of when and how often a registry wants to be asked.

Laws: pure; what is not understood counts as not said; no hint is believed beyond its limit.

Follows RFC 9110, section 10.2.3 (Retry-After), draft-ietf-httpapi-ratelimit-headers-03 as Docker Hub writes it
(`100;w=21600`), and Go's time.ParseDuration, which some registries use (`1m30s`, `880.092µs`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

RETRY_AFTER_S_MAX: Final = 3600.0  # a longer one is a mistake or malice: ask once an hour all the same
BODY_CHARS_MAX: Final = 8192  # of a refusal, in which a wait may stand

_QUOTA: Final = re.compile(r"\s*([0-9]{1,12})\s*(?:[;,]|$)")
_WINDOW: Final = re.compile(r";\s*w\s*=\s*([0-9]{1,12})")
_SECONDS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_GO_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(h|ms|m|s|us|µs|μs|ns)")
_GO_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_IN_BODY: Final = re.compile(r"retry-after: ?([0-9a-zµμ.]{1,40})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hints:
    """Of one answer: its status, the quota (`limit` in `window_s`, `remaining` of it), and how long to wait."""

    status: int
    limit: int | None = None
    remaining: int | None = None
    window_s: float | None = None
    retry_after_s: float | None = None


def read_hints(status: int, headers: Mapping[str, str], body: str, wall_s: float) -> Hints:
    """Read an answer's head and, of a refusal, the begin of its body; `wall_s` is the time of day for HTTP dates."""
    limit, remaining = headers.get("ratelimit-limit", ""), headers.get("ratelimit-remaining", "")
    retry_after = headers.get("retry-after")
    wait = read_retry_after(retry_after, wall_s) if retry_after is not None else None
    if wait is None and (said := _IN_BODY.search(body[:BODY_CHARS_MAX])) is not None:
        wait = read_go_duration(said[1].rstrip("."))
    return Hints(
        status,
        limit=_number(limit),
        remaining=_number(remaining),
        window_s=_window(limit) or _window(remaining),
        retry_after_s=None if wait is None else min(wait, RETRY_AFTER_S_MAX),
    )


def read_retry_after(text: str, wall_s: float) -> float | None:
    """Return the seconds that a `Retry-After` asks for, 0 for a time that is past; None when it is not understood."""
    plain = text.strip()
    if _SECONDS.fullmatch(plain):
        return float(plain)
    if (duration := read_go_duration(plain)) is not None:
        return duration
    try:
        return max(0.0, parsedate_to_datetime(plain).timestamp() - wall_s)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def read_go_duration(text: str) -> float | None:
    """Return the seconds of a duration as Go writes them; None when it is none."""
    seconds, end = 0.0, 0
    for part in _GO_PART.finditer(text):
        if part.start() != end:
            return None
        seconds += float(part[1]) * _GO_UNITS_S[part[2]]
        end = part.end()
    return seconds if text and end == len(text) else None


def _number(text: str) -> int | None:
    match = _QUOTA.match(text)
    return None if match is None else int(match[1])


def _window(text: str) -> float | None:
    match = _WINDOW.search(text)
    return None if match is None else float(match[1])
