"""The fixture of the web's tests."""

import pytest

from tests.web.setting import Bench


@pytest.fixture
def bench() -> Bench:
    """Build a web room of a node that is ready."""
    return Bench()
