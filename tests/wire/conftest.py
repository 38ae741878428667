"""Lets the fixture `autojump_clock` count wherever it is asked for.

pytest-trio itself takes a clock only from the arguments of a test function, not from `usefixtures` or another fixture.
"""

from collections.abc import Sequence

import pytest
import trio
import trio.testing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "autojump_clock" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=_run), append=False)


def _run(main, *, clock: trio.abc.Clock | None = None, instruments: Sequence[trio.abc.Instrument] = ()) -> object:
    return trio.run(main, clock=clock or trio.testing.MockClock(autojump_threshold=0), instruments=instruments)
