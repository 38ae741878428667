"""A cache whose agent is killed at any moment is found again whole, with everything that was kept."""

import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from p2pmirror.oci import Digest
from p2pmirror.store.cache import CacheStore
from p2pmirror.store.hostfiles import HostFiles
from tests.store_cache.setting import content, listed

PROGRAM = Path(__file__).with_name("receiving.py")


def receive_and_kill(directory: Path, seed: int) -> set[Digest]:
    """Run the program for a moment, kill it, and return what it said it had kept."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), str(directory), str(seed)],
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        said = [program.stdout.readline()]
        time.sleep(Random(seed).uniform(0, 0.15))
        program.kill()
        said += program.stdout.read().splitlines()
    return {Digest.parse(line.strip()) for line in said if len(line.strip()) == 71}


@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 110), marks=pytest.mark.long)], ids=len)
async def test_killed_while_receiving(seeds: range, tmp_path: Path) -> None:
    """After each kill: all that was kept is there, all that is listed is right, no rest, no record without its blob."""
    directory, kept = tmp_path / "cache", set[Digest]()
    for seed in seeds:
        kept |= receive_and_kill(directory, seed)
        store = CacheStore(directory, HostFiles())
        await store.look()
        assert not store.strange
        assert kept <= listed(store)
        assert len(listed(store)) <= len(kept) + 3 * (seed + 1)
        for digest in listed(store):
            assert Digest.of(await content(store, digest)) == digest
        await store._directory.remove_abandoned()
        assert sorted(path.name for path in directory.iterdir()) == [
            "blobs",
            "facts",
            "lock",
            "pins",
            "tags",
        ] or sorted(path.name for path in directory.iterdir()) == ["blobs", "facts", "pins", "tags"]
        for tag in store.inventory.tags():
            assert tag.digest in listed(store)
    assert len(kept) >= len(seeds)
