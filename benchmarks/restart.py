"""How an agent starts again that has fetched much: its cache is walked before it is ready."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.footprint import POLL_S
from benchmarks.places import Place
from benchmarks.processes import rss_mib
from benchmarks.rows import Budget, Row
from benchmarks.stage import Stage
from p2pmirror.oci import Digest
from p2pmirror.store.cache.records import Facts, Places, encode
from tests.lab.process import wait_until

BLOB_BYTES = 4096
NAME = "registry.example/bench/cached"


def restart(stage: Stage) -> list[Row]:
    """From the start of the process to ready, with many blobs in the cache, and the memory that they take."""
    with Place() as place:
        host = place.host("node")
        cache = place.directory / "cache"
        _fill(cache, stage.scale.cached_blobs)
        agent = place.agent(host, [host], store="none", cache_dir=str(cache))
        ready: list[float] = []
        for number in range(stage.scale.starts + 1):
            began = time.perf_counter()
            agent.launch()
            wait_until(lambda: agent.readiness() == "", "the agent is ready", every_s=POLL_S)
            assert agent.process is not None
            if number:  # the first start compiles the code
                ready.append(time.perf_counter() - began)
            held = agent.status()["held"]["blobs"]
            time.sleep(stage.scale.settle_s)
            resident = rss_mib(agent.process.pid)
            agent.kill()
    note = f"{held} blobs of {BLOB_BYTES} bytes, killed and started again; {min(ready):.2f} to {max(ready):.2f} s"
    return [
        Row("start, to ready, with a cache", "s", median(ready), budget=Budget("<=", 2), note=note),
        Row("memory, idle, with that cache", "MiB", resident, note="each blob is an entry, a key and a record"),
    ]


def _fill(root: Path, count: int) -> None:
    """Write a cache's content and records, as it does but for waiting for the disk."""
    places, random = Places(root), Random(0)
    for directory in places.watched:
        directory.mkdir(parents=True)
    for number in range(count):
        data = random.randbytes(BLOB_BYTES)
        digest = Digest.of(data)
        facts = Facts(
            BLOB_BYTES, time.time(), "application/vnd.oci.image.layer.v1.tar+gzip", (f"{NAME}-{number % 200}",)
        )
        places.blob(digest).write_bytes(data)
        places.facts(digest).write_bytes(encode(facts))
