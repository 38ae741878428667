"""`python -m benchmarks`: measure, print the table, write it as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from benchmarks import answers, bulk, crowd, footprint, lookups, proxy, restart, simulated
from benchmarks.facts import facts
from benchmarks.places import kept_clean, namespaces
from benchmarks.rows import Row, table
from benchmarks.stage import QUICK, Scale, Stage

LATEST = Path(__file__).parent / "latest.json"

# In this order: what is sensitive to other load first.
GROUPS: dict[str, Callable[[Stage], list[Row]]] = {
    "blob": bulk.blob,
    "relay": bulk.relay,
    "flight": bulk.flight,
    "manifest": answers.manifest,
    "peer-manifest": answers.manifest_from_peer,
    "first-byte": answers.first_byte,
    "miss": answers.miss,
    "proxy": proxy.proxy,
    "lookup": lookups.lookup,
    "memory": footprint.memory,
    "idle": footprint.idle,
    "crowd": crowd.idle,
    "simulated": simulated.join,
    "start": footprint.start,
    "restart": restart.restart,
}


def main() -> int:
    """Measure what is asked for; 0: all of it was measured, whether the budgets are met or not."""
    arguments = _arguments()
    machine = facts()
    signal.signal(signal.SIGINT, _interrupt)  # also where a shell had it ignored
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    _say(" · ".join(f"{name} {value}" for name, value in machine.items()))
    where = "network namespaces" if namespaces() else "loopback (namespaces need root, ip, nsenter, setpriv)"
    _say(f"hosts are {where}")
    began = time.monotonic()
    try:
        with kept_clean(), Stage(QUICK if arguments.quick else Scale()) as stage:
            rows, failed = _measure(stage, arguments.only or list(GROUPS))
    except KeyboardInterrupt:
        _say("interrupted; nothing is left behind")
        return 130
    _say(f"\n{table(rows)}\n\n{time.monotonic() - began:.0f} s in all")
    if arguments.json is not None:
        document = {"machine": machine, "hosts": where, "rows": [row.json() for row in rows]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failed else 0


def _measure(stage: Stage, groups: list[str]) -> tuple[list[Row], bool]:
    rows: list[Row] = []
    failed = False
    for name in groups:
        began = time.monotonic()
        try:
            rows += GROUPS[name](stage)
        except Exception as error:  # noqa: BLE001 - one group that cannot be measured must not cost the others
            failed = True
            _say(f"{name}: not measured: {error}")
            rows.append(Row(name, "", note=f"not measured: {str(error).partition(chr(10))[0]}"))
        _say(f"{name}: {time.monotonic() - began:.1f} s")
    return rows, failed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=GROUPS, metavar="NAME", help=", ".join(GROUPS))
    parser.add_argument("--json", type=Path, help=f"where to write it (a run of all groups: {LATEST.name})")
    parser.add_argument("--quick", action="store_true", help="little of everything: whether it works, not how fast")
    arguments = parser.parse_args()
    if arguments.json is None and not arguments.quick and not arguments.only:
        arguments.json = LATEST
    return arguments


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
