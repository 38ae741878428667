"""The containerds at hand, each started in a directory of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.groups import leave_out
from tests.store_containerd.daemon import Build, Daemon, builds

BUILDS = builds()


@pytest.fixture(params=BUILDS or [None], ids=[build.name for build in BUILDS] or ["none"])
def build(request: pytest.FixtureRequest) -> Build:
    """Each containerd at hand in turn."""
    if request.param is None:
        leave_out("containerd", "none is at hand")
    return request.param


@pytest.fixture
def stopped_daemon(build: Build, tmp_path: Path) -> Iterator[Daemon]:
    """Give a containerd that has not been started."""
    daemon = Daemon(build, tmp_path)
    yield daemon
    daemon.kill()


@pytest.fixture
async def daemon(stopped_daemon: Daemon) -> Daemon:
    """Give a running containerd."""
    await stopped_daemon.start()
    return stopped_daemon
