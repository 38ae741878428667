"""The one way to leave a test out: by the name of its group and the reason, and never silently in CI.

In CI (CI=true) whatever can be installed or freed must be there, so a test left out for the lack of it fails.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

LEFT_OUT = "left out: "


def leave_out(group: str, why: str, *, mendable: bool = True) -> NoReturn:
    """Skip the running test, or fail it in CI when what it lacks could have been had (`mendable`)."""
    reason = f"{LEFT_OUT}{group} ({why})"
    if mendable and os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
