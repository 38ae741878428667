"""A CPU quota for a process, as Kubernetes sets it: cgroups, version 1 or 2."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.groups import leave_out
from tests.lab import sweep

PERIOD_US = 100_000  # Kubernetes' own
_V1 = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def cpu_quota(millicores: int, *pids: int) -> Iterator[None]:
    """Let these processes have so much of a core, each, within the block; leaves the test out where that cannot be."""
    groups = [_group(f"{sweep.mark_of(os.getpid())}-{pid}", millicores) for pid in pids]
    try:
        for group, pid in zip(groups, pids, strict=True):
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for group in groups:
            with contextlib.suppress(OSError):
                for pid in (group / "cgroup.procs").read_text().split():
                    (group.parent / "cgroup.procs").write_text(pid)
            with contextlib.suppress(OSError):
                group.rmdir()


def _group(name: str, millicores: int) -> Path:
    quota_us = PERIOD_US * millicores // 1000
    try:
        if _V1.exists():
            group = _V1 / name
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            group = _V2 / name
            group.mkdir()
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    except OSError as error:
        leave_out("cpu quota", f"needs cgroups that can be written: {error}", mendable=False)
    return group
