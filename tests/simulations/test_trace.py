"""Promises of simulations/trace.py: equal runs have equal digests, and whatever differs shows."""

from __future__ import annotations

import io

import pytest

from p2pmirror.wire.address import Address
from simulations.trace import Trace

ONE, OTHER = Address("10.0.0.1", 1), Address("10.0.0.2", 2)
EVENT = ("datagram", 1.0, ONE, OTHER, b"data")


def digest(*events: tuple[str, float, Address, Address, bytes], notes: tuple[str, ...] = ()) -> str:
    trace = Trace(lambda: 1.0)
    for event in events:
        trace.observe(*event)
    for note in notes:
        trace.note(note)
    return trace.digest


def test_equal_events_give_equal_digests():
    """The digest depends on what is given, and on nothing else."""
    assert digest(EVENT, EVENT, notes=("a",)) == digest(EVENT, EVENT, notes=("a",))


@pytest.mark.parametrize(
    "other",
    [
        ("stream", 1.0, ONE, OTHER, b"data"),
        ("datagram", 1.0000000001, ONE, OTHER, b"data"),
        ("datagram", 1.0, OTHER, OTHER, b"data"),
        ("datagram", 1.0, ONE, Address("10.0.0.2", 3), b"data"),
        ("datagram", 1.0, ONE, OTHER, b"datA"),
        ("datagram", 1.0, ONE, OTHER, b"data "),
    ],
)
def test_whatever_differs_shows(other):
    """Kind, time, source, target, length and content each change the digest."""
    assert digest(EVENT) != digest(other)


def test_order_number_and_notes_show():
    """The order of events, how many there were, and what was noted change the digest."""
    second = ("datagram", 1.0, OTHER, ONE, b"back")
    digests = {
        digest(EVENT, second),
        digest(second, EVENT),
        digest(EVENT),
        digest(EVENT, EVENT),
        digest(EVENT, notes=("killed",)),
        digest(EVENT, notes=("kil", "led")),
    }
    assert len(digests) == 6


def test_counts_and_lines_say_what_was_delivered():
    """Pieces and bytes are counted by kind; lines name time, kind, both ends, length."""
    lines = io.StringIO()
    trace = Trace(lambda: 2.5, lines)
    trace.observe(*EVENT)
    trace.note("fault: none")
    assert (trace.pieces("datagram"), trace.bytes("datagram"), trace.pieces("stream")) == (1, 4, 0)
    first, second = lines.getvalue().splitlines()
    assert first.startswith("1.000000000 datagram 10.0.0.1:1 10.0.0.2:2 4 ")
    assert second == "2.500000000 note fault: none"
