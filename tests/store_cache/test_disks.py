"""A cache on a disk of its own that is really full, and really read-only."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pmirror.errors import StoreFull
from p2pmirror.oci import Digest
from p2pmirror.store.hostfiles import HostFiles
from tests.groups import leave_out
from tests.store_cache.setting import content, keep, listed, looked

pytestmark = pytest.mark.lab
MIB = 1024 * 1024


@contextmanager
def small_disk(path: Path) -> Iterator[Callable[[str], object]]:
    """Mount 4 MiB; yield what mounts it again with another option."""
    if os.geteuid() != 0:
        leave_out("lab", "needs root to mount a disk")
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "p2pmirror-test", str(path)], check=True)
    try:
        yield lambda option: subprocess.run(["mount", "-o", f"remount,{option}", str(path)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


async def test_full_and_read_only(tmp_path: Path) -> None:
    """Full: StoreFull before the first byte. Read-only: the same, and what is held is served; then all is well."""
    with small_disk(tmp_path / "disk") as again:
        store = await looked(HostFiles(), directory=tmp_path / "disk" / "cache", age_s_min=60.0)
        first = await keep(store, b"1" * (2 * MIB))
        with pytest.raises(StoreFull):
            await store.receive(Digest.of(b"2"), 3 * MIB, None, "")
        assert store._room.reserved_bytes == 0
        again("ro")
        with pytest.raises(StoreFull):
            await store.receive(Digest.of(b"3"), 10, None, "")
        assert "ead-only" in (store.trouble or "")
        await store.look()
        assert await content(store, first) == b"1" * (2 * MIB)
        again("rw")
        second = await keep(store, b"4")
        assert listed(store) == {first, second}
        assert store.waiting_for is None
