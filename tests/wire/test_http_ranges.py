"""Range and Content-Range against a model that knows one byte at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.wire.ranges import Span, Unsatisfiable, content_range, parse_content_range, parse_range

sizes = st.integers(0, 40)
numbers = st.integers(0, 50)


def asked(value, size):
    """Return the positions that are answered, "whole" or 416."""
    try:
        span = parse_range(value, size)
    except Unsatisfiable as error:
        return 416 if error.content_range == f"bytes */{size}" else error
    return "whole" if span is None else list(range(span.offset, span.offset + span.count))


@given(numbers, numbers, sizes)
def test_first_to_last(first, last, size):
    """`a-b` is every byte that exists from a to b; 416 when there is none; ignored when b comes before a."""
    held = [position for position in range(size) if first <= position <= last]
    assert asked(f"bytes={first}-{last}", size) == ("whole" if last < first else held or 416)


@given(numbers, sizes)
def test_first_to_end(first, size):
    """`a-` is every byte from a on, or 416."""
    assert asked(f"bytes={first}-", size) == ([p for p in range(size) if p >= first] or 416)


@given(numbers, sizes)
def test_suffix(count, size):
    """`-n` is the last n bytes; 416 for none asked, the whole where there is nothing to take from."""
    held = list(range(size))[-count:] if count else 416
    assert asked(f"bytes=-{count}", size) == (held or "whole")


NO_RANGES = "bytes bytes= bytes=- bytes=, bytes=a-b bytes=1 bytes=+1-2 bytes=--1 bytes=0x1-2 bytes=2-1 items=0-1 =0-1"


@pytest.mark.parametrize(
    "value", [None, "", *NO_RANGES.split(), "bytes=1 - 2", "bytes=0-1,3-4", "bytes=0-0,-1", "bytes=\u0661-2"]
)
def test_what_is_no_single_byte_range_is_the_whole(value):
    """Invalid, other units and several ranges are ignored."""
    assert asked(value, 10) == "whole"


@pytest.mark.parametrize("value", ["bytes=2-3", "Bytes=2-3", "bytes = 2-3", "bytes=, 2-3 ,", "bytes=0002-03"])
def test_spellings(value):
    """The unit has no case, a list may have empty elements, numbers may have leading zeros."""
    assert asked(value, 10) == [2, 3]


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 5000, "0" * 5000 + "9" * 20])
def test_numbers_of_absurd_length(digits):
    """They lie beyond every file, and cost nothing."""
    assert asked(f"bytes={digits}-", 10) == 416
    assert asked(f"bytes=8-{digits}", 10) == [8, 9]
    assert asked(f"bytes=-{digits}", 10) == list(range(10))


@given(st.text(max_size=30), sizes)
def test_any_text_is_safe(text, size):
    """Nothing but `Unsatisfiable` is raised, and a span lies within the content."""
    for value in (text, f"bytes={text}"):
        positions = asked(value, size)
        assert positions in ("whole", 416) or set(positions) <= set(range(size))


@given(st.integers(0, 10**18), st.integers(1, 10**9), st.integers(0, 10**9))
def test_content_ranges_come_back(offset, count, beyond):
    """What is written is read again."""
    span, size = Span(offset, count), offset + count + beyond
    assert parse_content_range(content_range(span, size)) == (span, size)
    assert parse_content_range(f"bytes {span.offset}-{span.last}/*") == (span, None)


@pytest.mark.parametrize(
    "text", ["", "bytes */5", "bytes 0-4", "bytes 4-0/9", "bytes 0-5/5", "items 0-1/5", "bytes 0-1/" + "9" * 5000]
)
def test_content_ranges_that_are_none(text):
    """ValueError for what does not belong to a 206, or contradicts itself."""
    with pytest.raises(ValueError):
        parse_content_range(text)
