"""The fixture of the front's tests."""

import pytest

from tests.front.setting import Bench


@pytest.fixture
def bench() -> Bench:
    """Build a front with no filters and the default options."""
    return Bench().build()
