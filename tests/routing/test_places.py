"""Where a router may be, as people and other agents write it."""

import pytest

from p2pmirror.routing.bootstrap.places import HOST_CHARS_MAX, Name, read_place, shown
from p2pmirror.wire.address import Address


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.1", Address("10.0.0.1", 29998)),
        ("[FD00::1]:7", Address("fd00::1", 7)),
        ("node-3", Name("node-3", 29998)),
        ("node-3.example:7", Name("node-3.example", 7)),
    ],
)
def test_places(text: str, place: object) -> None:
    """A numeric host is an address in its one spelling, any other a name; the port is the router's unless given."""
    assert read_place(text) == place


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no host"),
        ("a b", "no host"),
        ("user@host", "no host"),
        ("x" * (HOST_CHARS_MAX + 1), "no host"),
        ("10.0.0.1:0", "port 0 cannot be sent to"),
        ("0.0.0.0", "listened on"),
        ("[::]:1", "listened on"),
        ("host:port", "port"),
        ("host:70000", "port"),
    ],
)
def test_what_is_no_place(text: str, says: str) -> None:
    """What cannot be sent to is refused in one short line."""
    with pytest.raises(ValueError, match=says) as caught:
        read_place(text)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_what_is_shown_of_foreign_text() -> None:
    """A log line gets neither control characters nor a novel."""
    assert shown("a\nb\x1b") == "a?b?"
    assert shown("abcd", 3) == "abc…"
