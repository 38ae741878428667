"""A program that receives blobs into a cache until it is killed; it prints the digest of each one that it has kept."""

import sys
from pathlib import Path
from random import Random

import trio

from p2pmirror.oci import Digest, TagName, mediatype
from p2pmirror.store.cache import CacheOptions, CacheStore
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.protocol import TagInfo


async def receive_for_ever(directory: Path, seed: int) -> None:
    store = CacheStore(directory, HostFiles(), CacheOptions(free_bytes_min=0))
    chance = Random(seed)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for _ in range(3):
            nursery.start_soon(receive_some, store, chance)


async def receive_some(store: CacheStore, chance: Random) -> None:
    while True:
        data = chance.randbytes(chance.choice((10, 5000, 300_000)))
        digest = Digest.of(data)
        async with await store.receive(digest, len(data), mediatype.OCI_LAYER, "registry.example/app") as incoming:
            for start in range(0, len(data), 50_000):
                await incoming.write(data[start : start + 50_000])
            await incoming.keep()
        print(digest, flush=True)  # noqa: T201
        tag = TagName("registry.example", "app", f"v{chance.randrange(5)}")
        await store.remember_tag(TagInfo(tag, digest, mediatype.OCI_LAYER, len(data), trio.current_time()))


if __name__ == "__main__":
    trio.run(receive_for_ever, Path(sys.argv[1]), int(sys.argv[2]))
