"""What can be made of real input: bytes changed anywhere, parts of a message replaced, long things made longer.

Laws: one `Random` is one sequence of mutants; each says how it came to be, so that a failing case names its parent; a
mutant is never longer than its parents by more than `GROWTH_BYTES_MAX`, so that what grows is the subject's own doing.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

GROWTH_BYTES_MAX = 64 << 10
NOISE_BYTES = (0, 1, 2, 34, 200, 1200, 1201, 9000)

LENGTHS = (b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xc6\xff\xff\xff\xff")  # msgpack's, of what never comes
NUMBERS: tuple[Any, ...] = (None, True, -1, 0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5)
NOT_FINITE: tuple[Any, ...] = (float("nan"), float("inf"))
TEXTS: tuple[Any, ...] = ("", "\u0000", "\r\n", "\u2028", "\ud800", "é\u0301", "z" * 64, "9" * 5000, "[" * 3000)
EDGES: tuple[Any, ...] = (*NUMBERS, *NOT_FINITE, *TEXTS, [], [[]], {}, {"": None})
"""Values of JSON at which something begins or ends; each may come in place of any part of a message."""


def bytes_changed(data: bytes, other: bytes, random: Random, inserts: Sequence[bytes]) -> tuple[str, bytes]:
    """Change bytes without knowing what they mean; `inserts` are what this kind of input makes most of."""
    how = random.choice(("as it was", "flip", "cut", "double", "splice", "length", "noise", "repeat"))
    at = random.randrange(len(data) + 1)
    match how:
        case "flip" if data:
            changed = bytearray(data)
            for _ in range(random.randint(1, 4)):
                changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
            return how, bytes(changed)
        case "cut":
            return how, data[:at]
        case "double":
            return how, data[:at] + data[random.randrange(at + 1) :]
        case "splice":
            return how, data[:at] + other[random.randrange(len(other) + 1) :]
        case "length":
            return how, data[:at] + random.choice(inserts) + data[at:]
        case "noise":
            return how, random.randbytes(random.choice(NOISE_BYTES))
        case "repeat":
            part = data[at : at + random.randint(1, 32)]
            count = min(random.choice((2, 20, 5000)), GROWTH_BYTES_MAX // (len(part) or 1))
            return how, data[:at] + part * count + data[at:]
    return how, data


def part_changed(message: Any, others: Sequence[Any], random: Random, edges: Sequence[Any] = EDGES) -> Any:
    """Put something else in place of one part of a message, however deep it lies; the message itself is changed.

    A message is a list or a dict of what JSON or msgpack has. `others` are what its parts may be replaced with.
    """
    place, at = _somewhere(message, random)
    match random.randrange(6):
        case 0:
            place[at] = deepcopy(random.choice(edges))
        case 1:
            place[at] = random.choice(list(parts(random.choice(others))))
        case 2:
            place[at] = [place[at]] * random.choice((0, 1, 2, 64, 65))
        case 3 if isinstance(place[at], int):
            place[at] += random.choice((-1, 1, 1000))
        case 4 if isinstance(place[at], bytes) and place[at]:
            place[at] = random.randbytes(len(place[at]))
        case 4 if isinstance(place, dict):
            place[random.choice((at.upper(), at + " ", "", at.title()))] = place.pop(at)
        case _ if isinstance(place, list):
            place.insert(at, place[at])
        case _:
            del place[at]
    return message


def _somewhere(message: Any, random: Random) -> tuple[Any, Any]:
    place = message
    while True:
        at = random.choice(list(place)) if isinstance(place, dict) else random.randrange(len(place))
        if isinstance(place[at], list | dict) and place[at] and random.random() < 0.7:
            place = place[at]
            continue
        return place, at


def parts(message: Any) -> Iterator[Any]:
    """Yield a message and all that is in it."""
    yield message
    if isinstance(message, list | dict):
        for each in message.values() if isinstance(message, dict) else message:
            yield from parts(each)


Mutants = Callable[[Random], tuple[str, bytes]]
"""Makes one mutant: how, and its bytes."""


def of_bytes(samples: Sequence[bytes], inserts: Sequence[bytes]) -> Mutants:
    """Change real input of any kind, up to three times."""

    def make(random: Random) -> tuple[str, bytes]:
        data, hows = random.choice(samples), []
        for _ in range(random.choice((1, 1, 2, 3))):
            how, data = bytes_changed(data, random.choice(samples), random, inserts)
            hows.append(how)
        return ", ".join(hows), data

    return make


def of_json(samples: Sequence[bytes]) -> Mutants:
    """Change real JSON, as text or part by part."""
    inserts = (
        b"{",
        b"[",
        b"[" * 3000,
        b"null",
        b'"',
        b"\\ud800",
        b"1e999",
        b"9" * 5000,
        b"\xff",
        b"NaN",
        b'{"":' * 300,
    )
    as_bytes = of_bytes(samples, inserts)

    def make(random: Random) -> tuple[str, bytes]:
        if random.random() < 0.3:
            return as_bytes(random)
        message = json.loads(random.choice(samples))
        for _ in range(random.choice((1, 1, 2, 3))):
            if not message:
                break
            part_changed(message, [json.loads(random.choice(samples))], random)
        return "part", json.dumps(message).encode()

    return make
