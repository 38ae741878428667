"""Promises of durations, sizes and switches."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.config.quantities import parse_duration, parse_size, parse_switch


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("30ms", 0.03),
        ("5s", 5),
        ("1.5s", 1.5),
        ("10m", 600),
        ("168h", 604800),
        ("1h30m", 5400),
        ("2d", 172800),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    """What people write for a duration is understood."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "5 s", "5x", "s5", "1e3s", "99999999d", "5s,", "٣s"])
def test_other_durations_are_refused(text: str) -> None:
    """A number without a unit, and whatever else is none, is an error that shows the form."""
    with pytest.raises(ValueError, match="30ms"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("512Mi", 512 << 20),
        ("100Gi", 100 << 30),
        ("20GB", 20 * 10**9),
        ("1.5Ki", 1536),
        ("1kB", 1000),
    ],
)
def test_sizes_are_bytes(text: str, size: int) -> None:
    """What people write for a size is understood."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "Mi", "-1", "1Xi", "1 Mi", "1.0001", "99999999999Ti", "0x10"])
def test_other_sizes_are_refused(text: str) -> None:
    """Parts of a byte, unknown units and absurd numbers are errors that show the form."""
    with pytest.raises(ValueError, match="512Mi"):
        parse_size(text)


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    """No text raises anything else."""
    for parse in (parse_duration, parse_size, parse_switch):
        with suppress(ValueError):
            assert parse(text) >= 0


def test_a_switch_is_true_or_false() -> None:
    """Nothing else is understood, however much it looks like it."""
    assert (parse_switch("true"), parse_switch("false")) == (True, False)
    for text in ("", "True", "yes", "1", "true "):
        with pytest.raises(ValueError, match="true or false"):
            parse_switch(text)
