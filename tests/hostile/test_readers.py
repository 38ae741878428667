"""Whatever is read, the reader returns or raises its own error, in one line and in time; many cases in `make e2e`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.bearing import CASES, CASES_LONG, SEEDS, Reader, bear, bear_mutants
from tests.hostile.readers import READERS


@pytest.mark.parametrize("reader", READERS, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_changed_input(reader: Reader, seed: int, long: bool) -> None:
    """Real input with anything changed in it is read, or refused as the reader refuses."""
    bear_mutants(reader, seed, CASES_LONG if long else CASES)


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_any_input(reader: Reader, long: bool) -> None:
    """Whatever hypothesis thinks of is read, or refused as the reader refuses."""
    anything = st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))

    @settings(max_examples=2_000 if long else 100, deadline=None)
    @given(anything)
    def check(data: bytes) -> None:
        bear(reader, data, reader.name)

    check()
