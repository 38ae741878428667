"""Hands hostile input to a reader, and holds what every reader promises: its own error or none, soon, in one line.

A failing case is printed with its seed and number, and its beginning as hexadecimal; the same two make it again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest

from tests.hostile.mutation import Mutants

SEEDS = (1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long))
CASES = 1_500  # of one reader in `make test`: half a second
CASES_LONG = 15_000
CASE_S_MAX = 2.0  # of processor time: a thousand times what these inputs should take, so a busy machine does not count
SHOWN_BYTES_MAX = 500
SINGLE_BYTES_MAX = 1_000  # of input that is also given byte by byte: each costs a turn of the loop
LINE_CHARACTERS_MAX = 1_300  # of an error: it ends in a log, or on a terminal


@dataclass(frozen=True)
class Reader:
    """Something that reads what others wrote: `errors` are what it may raise; it returns anything else than a crash.

    `hold` says more of what it returned: it is given the input and the value, and asserts.
    """

    name: str
    read: Callable[[bytes], object]
    mutants: Mutants
    errors: tuple[type[Exception], ...]
    hold: Callable[[bytes, object], None] = field(default=lambda _data, _value: None)
    case_s_max: float = CASE_S_MAX

    def __str__(self) -> str:
        return self.name


def bear(reader: Reader, data: bytes, what: str) -> None:
    """Read `data`, and hold what the module promises."""
    began = time.process_time()
    try:
        value = reader.read(data)
    except reader.errors as error:
        hold_line(error, f"{what}: {shown(data)}")
    except Exception as error:
        raise AssertionError(f"{what}: {shown(data)} raised {type(error).__name__}: {str(error)[:200]}") from error
    else:
        reader.hold(data, value)
    took_s = time.process_time() - began
    assert took_s < reader.case_s_max, f"{what}: {shown(data)} took {took_s:.1f} s"


def shown(data: bytes) -> str:
    """Return bytes as hexadecimal; of many the beginning, as the seed and the number give them all."""
    return data.hex() if len(data) <= SHOWN_BYTES_MAX else f"{data[:SHOWN_BYTES_MAX].hex()}… ({len(data)} bytes)"


def hold_line(error: Exception, what: str) -> None:
    """Hold that an error is one line that can be shown."""
    line = str(error)
    assert line.isprintable(), f"{what}: {line!r} is not one line"
    assert 0 < len(line) <= LINE_CHARACTERS_MAX, f"{what}: a line of {len(line)} characters: {line[:200]!r}"


def bear_mutants(reader: Reader, seed: int, cases: int) -> None:
    """Read as many mutants of real input, all that a seed gives."""
    random = Random(f"{reader.name}/{seed}")
    for case in range(cases):
        how, data = reader.mutants(random)
        bear(reader, data, f"{reader.name}, seed {seed}, case {case} ({how})")


def pieces(data: bytes, random: Random) -> Sequence[bytes]:
    """Cut bytes anywhere: whole, in a few pieces, or byte by byte."""
    if len(data) <= SINGLE_BYTES_MAX and random.random() < 0.3:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randint(0, 6)))
    bounds = [0, *cuts, len(data)]
    return [part for start, end in pairwise(bounds) if (part := data[start:end])]
