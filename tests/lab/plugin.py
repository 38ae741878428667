"""The lab as pytest sees it: what it needs, its fixtures, and the logs of its processes when a test fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.groups import leave_out
from tests.lab import builds, sweep
from tests.lab.containerd import Build
from tests.lab.lab import running


@pytest.fixture(scope="session")
def lab_run() -> Iterator[Path]:
    """Give the directory of this run. Removes what dead runs left before, and what this one leaves after."""
    sweep.sweep()
    mark = sweep.mark_of(os.getpid())
    keeper = sweep.Keeper(mark)
    directory = sweep.directory_of(mark)
    directory.mkdir()
    yield directory
    keeper.close()


def build_params() -> list[object]:
    """Return the versions of containerd to test with, as parameters of a fixture."""
    return [
        pytest.param("distribution", id="containerd"),
        pytest.param("2.x", id=f"containerd-{builds.VERSION}"),
    ]


def find_build(which: str) -> Build:
    """Return the build that a parameter of `build_params` stands for; skips the test when it is not to be had."""
    if which == "distribution":
        build = builds.distribution_build()
        assert build is not None, "the lab was left in although containerd is missing"
        return build
    if not builds.containerd_2_at_hand():
        leave_out(f"containerd {builds.VERSION}", "needs Go to build it", mendable=False)
    return builds.containerd_2()


@pytest.fixture(scope="module", params=build_params())
def build(request: pytest.FixtureRequest, lab_run: Path) -> Build:
    """Each version of containerd at hand in turn."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # a build takes minutes: let it say so
        return find_build(request.param)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave what any containerd shows to the first of them, and to the others in the long run only."""
    if item.get_closest_marker("any_containerd") and isinstance(item, pytest.Function):
        indices = item.callspec.indices if hasattr(item, "callspec") else {}
        if any(indices.get(name, 0) for name in ("build", "daemon")):
            item.add_marker("long")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the processes of the lab said when a test fails."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        report.sections += [(name, tail) for lab in running for name, tail in lab.logs()]
