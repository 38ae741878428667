"""Which groups of tests run here, and a word about those that are left out.

Laws: a group is left out with a reason that names it, never silently; in CI (CI=true) nothing that can be installed may
be missing, so the lab then fails instead.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from tests.groups import LEFT_OUT, leave_out
from tests.lab.needs import missing

pytest_plugins = ("tests.lab.plugin",)

settings.register_profile("p2pmirror", parent=settings.default, deadline=None)  # a machine may be busy: not a failure
settings.load_profile("p2pmirror")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="run the tests marked long too (P2PMIRROR_LONG=1 does the same)"
    )
    parser.addoption("--kubernetes", action="store_true", help="run the tests that make a real Kubernetes too")


def pytest_configure() -> None:
    """Have Ctrl-C count, here and in what tests start, also where a shell that began them in the background had not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test out before any of its fixtures is made."""
    if item.get_closest_marker("long") and not _long(item.config):
        leave_out("long", "needs --long or P2PMIRROR_LONG=1", mendable=False)
    if item.get_closest_marker("kubernetes") and not item.config.getoption("--kubernetes"):
        leave_out("kubernetes", "make e2e-kubernetes runs them", mendable=False)
    if item.get_closest_marker("lab") and (lacking := missing()):
        leave_out("lab", f"needs root, containerd, docker-registry, skopeo, ip; here is no {lacking}")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether this is a long run: more rounds of what is the same each time."""
    return _long(request.config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once a group what was left out, and how many tests that were."""
    counts: dict[str, int] = {}
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
        if reason.startswith(LEFT_OUT):
            counts[reason] = counts.get(reason, 0) + 1
    for reason, count in counts.items():
        terminalreporter.write_line(f"{reason}; tests: {count}", yellow=True)


def _long(config: pytest.Config) -> bool:
    return bool(config.getoption("--long")) or os.environ.get("P2PMIRROR_LONG") == "1"
