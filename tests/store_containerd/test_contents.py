"""Where content is read from while that is being looked at."""

from pathlib import Path

import trio
from trio.testing import MockClock

from p2pmirror.store.containerd.client import ContainerdClient
from p2pmirror.store.containerd.contents import Contents
from p2pmirror.store.containerd.grpc import Channel
from p2pmirror.store.memoryfiles import MemoryFiles

ROOT = Path("/content")


class SlowFiles(MemoryFiles):
    """Files whose directories take a second to be listed, as on a disk that is busy."""

    async def names(self, directory: Path) -> list[str]:
        await trio.sleep(1)
        return await super().names(directory)


async def test_a_directory_in_use_stays_in_use_while_it_is_looked_at_again(autojump_clock: MockClock) -> None:
    """A containerd that comes back is asked for nothing that lies on the disk, not even for a moment."""
    files = SlowFiles()
    await files.make_directory(ROOT / "blobs")
    contents = Contents(ContainerdClient(Channel(trio.sleep_forever, []), "k8s.io"), files)
    await contents.use_directory(ROOT)
    assert contents.directory == ROOT
    async with trio.open_nursery() as nursery:
        nursery.start_soon(contents.use_directory, ROOT)
        await trio.sleep(0.5)
        assert contents.directory == ROOT
    assert contents.directory == ROOT
    await contents.use_directory(None)
    assert contents.directory is None
