import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 300.0  # all groups take about a minute on two idle cores
SOME = ("--only", "manifest", "--only", "miss", "--only", "restart")
FIELDS = {"name", "unit", "ours", "peer", "ratio", "budget", "met", "note"}


@pytest.mark.lab
@pytest.mark.parametrize(
    ("groups", "rows_min"), [(SOME, 5), pytest.param((), 20, marks=pytest.mark.long)], ids=["some", "all"]
)
def test_a_quick_run_measures_every_row_and_leaves_nothing_behind(tmp_path, groups, rows_min):
    """Every group of `make bench` gives figures, no answer is wrong, and no namespace or directory stays."""
    report = tmp_path / "report.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", str(report), *groups],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
    rows = json.loads(report.read_text())["rows"]
    assert all(row.keys() == FIELDS and row["ours"] is not None for row in rows), output
    assert len({row["name"] for row in rows}) == len(rows) > rows_min
    assert sum(row["ours"] for row in rows if "wrong" in row["name"]) == 0
    assert not list(Path("/run/netns").glob(f"p2pm-{process.pid}-*"))
    assert [path.name for path in tmp_path.iterdir()] == [report.name]
