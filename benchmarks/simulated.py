"""What a simulated cluster costs: whether one core still does in a minute what the scenarios are sized for."""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

from benchmarks.rows import Row
from benchmarks.stage import Stage
from tests.lab.process import run

LIMIT_S = 300.0  # it takes twenty seconds where there is nothing beside it


def join(stage: Stage) -> list[Row]:
    """Processor time of routers that start within 10 s of virtual time, join and find things."""
    count = stage.scale.simulated_nodes
    before = _children_s()
    command = [sys.executable, "-m", "simulations", "run", "join", "--nodes", str(count), "--json"]
    printed = run(command, timeout_s=LIMIT_S)
    spent = _children_s() - before
    told: dict[str, Any] = json.loads(printed.splitlines()[-1])
    note = f"processor time; {told['datagrams']:,} datagrams in {told['seconds_virtual']:.1f} s of virtual time"
    name = f"simulated, {count} routers join"
    return [
        Row(name, "s", spent, note=note),
        Row(f"{name}, a datagram", "us", spent / told["datagrams"] * 1e6),
    ]


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
