"""New files beside others that are being written: under names that nobody reads, until they are whole.

Laws: a file being written has a name with the prefix `INCOMING`, by which it is found when its writer has died; several
may write the same at once.
"""

from pathlib import Path
from typing import Final

from p2pmirror.store.files import AlreadyThere, Files, NotWritable, Writer

INCOMING: Final = ".incoming-"
NAMES_TRIED_MAX = 1000  # writers of one name at the same time: more than these are a loop, not a load


async def begin(files: Files, directory: Path, name: str) -> Writer:
    """Create a file in `directory` under a name of its own. Raises `StoreFull`."""
    for number in range(NAMES_TRIED_MAX):
        try:
            return await files.create(directory / f"{INCOMING}{name}-{number}")
        except AlreadyThere:
            continue
    raise NotWritable(f"{directory} has {NAMES_TRIED_MAX} unfinished files of {name}")


async def replace(files: Files, path: Path, data: bytes, beside: Path) -> None:
    """Give `path` new content, written in the directory `beside` on the same file system. Raises `StoreFull`."""
    async with await begin(files, beside, path.name) as writer:
        await writer.append(data)
        await writer.commit(path)
