"""Durations, sizes and switches as people write them: `30ms`, `512Mi`, `true`.

Laws: a unit is part of the value (only 0 needs none); what is not understood is a ValueError that says what is.
"""

import re

_DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    **{prefix + "B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T"), 1)},
    "KB": 1000,
    **{
        prefix + suffix: 1024**power for power, prefix in enumerate(("Ki", "Mi", "Gi", "Ti"), 1) for suffix in ("", "B")
    },
}
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([A-Za-z]*)")
DURATION_S_MAX = 10 * 365 * 86400.0  # ten years: beyond it, somebody mistook a unit
SIZE_BYTES_MAX = 1 << 60  # an exbibyte


def parse_duration(text: str) -> float:
    """Return seconds: one or more of `ms s m h d` in a row, as `30ms`, `1.5s`, `1h30m`; `0` is none. ValueError."""
    if text == "0":
        return 0.0
    seconds, end = 0.0, 0
    for match in _NUMBER_AND_UNIT.finditer(text):
        number, unit = match.groups()
        if match.start() != end or unit not in _DURATION_UNITS_S:
            break
        seconds += float(number) * _DURATION_UNITS_S[unit]
        end = match.end()
    if not text or end != len(text) or seconds > DURATION_S_MAX:
        raise ValueError("a duration such as 30ms, 5s, 10m or 168h")
    return seconds


def parse_size(text: str) -> int:
    """Return bytes: a number with `Ki Mi Gi Ti` (1024) or `kB MB GB TB` (1000), or plain bytes. ValueError."""
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is not None and match[2] in _SIZE_UNITS:
        size = float(match[1]) * _SIZE_UNITS[match[2]]
        if size <= SIZE_BYTES_MAX and size == int(size):
            return int(size)
    raise ValueError("a size such as 512Mi, 100Gi or 20GB")


def parse_switch(text: str) -> bool:
    """Return what `true` and `false` say. ValueError."""
    if text not in {"true", "false"}:
        raise ValueError("true or false")
    return text == "true"
