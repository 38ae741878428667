"""What a registry demands before it answers: the challenges of a 401, read from `WWW-Authenticate`.

Laws: pure; any text gives a list of challenges, at worst an empty one, and never an error; a parameter that is there
twice counts as it first stood.

Follows RFC 9110, sections 11.2 to 11.6, and the distribution project's token specification for `scope`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FIELD_CHARS_MAX: Final = 8192  # of the field: real ones have 200; what stands behind is not read
CHALLENGES_MAX: Final = 8  # real registries send one or two

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_EQUALS: Final = re.compile(r"[ \t]*=[ \t]*")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BETWEEN: Final = re.compile(r"[ \t,]*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to be let in: `scheme` and the names of `parameters` are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(field: str) -> list[Challenge]:
    """Return the challenges of a field, in its order; reading ends where the field is broken."""
    text = field[:FIELD_CHARS_MAX]
    found: list[tuple[str, dict[str, str]]] = []
    at = _end(_BETWEEN.match(text), 0)
    while at < len(text) and (word := _TOKEN.match(text, at)) is not None:
        equals = _EQUALS.match(text, word.end())
        if equals is not None and found:
            value, at = _value(text, equals.end())
            if value is None:
                break
            found[-1][1].setdefault(word[0].lower(), value)
        elif len(found) == CHALLENGES_MAX or equals is not None:
            break
        else:
            found.append((word[0].lower(), {}))
            at = _end(_TOKEN68.match(text, _after_spaces(text, word.end())), word.end())
        at = _end(_BETWEEN.match(text, at), at)
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _value(text: str, at: int) -> tuple[str | None, int]:
    """Return a parameter's value and where it ends; None when there is none."""
    if (quoted := _QUOTED.match(text, at)) is not None:
        return re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    if (plain := _TOKEN68_VALUE.match(text, at)) is not None:
        return plain[0], plain.end()
    return None, at


_TOKEN68_VALUE: Final = re.compile(r'[^\s",]+')  # more than a token: registries write URLs without quotes


def _after_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at


def _end(match: re.Match[str] | None, otherwise: int) -> int:
    return otherwise if match is None else match.end()
