"""What a simulated cluster costs: whether one core still does in a minute what the scenarios are sized for."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.rows import Row
from benchmarks.stage import Stage

ROOT = Path(__file__).parents[1]
LIMIT_S = 300.0


def join(stage: Stage) -> list[Row]:
    """Processor time of routers that start within 10 s of virtual time, join and find things."""
    count = stage.scale.simulated_nodes
    before = _children_s()
    run = [sys.executable, "-m", "simulations", "run", "join", "--nodes", str(count), "--json"]
    done = subprocess.run(run, cwd=ROOT, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    spent = _children_s() - before
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    note = f"processor time; {told['datagrams']:,} datagrams in {told['seconds_virtual']:.1f} s of virtual time"
    name = f"simulated, {count} routers join"
    return [
        Row(name, "s", spent, note=note),
        Row(f"{name}, a datagram", "us", spent / told["datagrams"] * 1e6),
    ]


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
