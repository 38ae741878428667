"""The web's tests: their fixture, and whether there is a browser for those that need one."""

import pytest

from tests.groups import leave_out
from tests.web.chromium import executable
from tests.web.setting import Bench


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave the group `browser` out by name where there is no browser; in CI it fails instead."""
    if item.get_closest_marker("browser") and executable() is None:
        leave_out("browser", "needs chromium")


@pytest.fixture
def bench() -> Bench:
    """Build a web room of a node that is ready."""
    return Bench()
