"""Prometheus itself reads the chart's alerts: each fires where it should, and is silent where all is well.

`make e2e-kubernetes`. Series are given, time is Prometheus' own (`promtool test rules`): nothing is started.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.deploy.helm import HELM, NAMESPACE, RELEASE, one, render
from tests.groups import leave_out

pytestmark = [pytest.mark.kubernetes]

OURS: Final = f'namespace="{NAMESPACE}",service="{RELEASE}-metrics"'
GIB: Final = 1 << 30

WELL: Final = {
    'p2pmirror_routing_members{state="alive",node="a"}': "2x180",
    'p2pmirror_routing_members{state="alive",node="b"}': "2x180",
    'p2pmirror_build_info{node="a"}': "1x180",
    'p2pmirror_build_info{node="b"}': "1x180",
    'p2pmirror_upstream_requests_total{registry="docker.io",outcome="ok"}': "0+60x180",
    'p2pmirror_upstream_requests_total{registry="docker.io",outcome="limited"}': "0+10x180",
    'p2pmirror_upstream_quota_left_requests{registry="docker.io"}': "90x180",
    'p2pmirror_cache_free_bytes{node="a"}': f"{100 * GIB}x180",
    'p2pmirror_cache_max_bytes{node="a"}': f"{20 * GIB}x180",
    'p2pmirror_cache_troubles{node="a"}': "0x180",
    'p2pmirror_front_saved_bytes_total{node="a"}': f"0+{GIB}x180",
    'p2pmirror_upstream_bytes_total{node="a",registry="docker.io"}': f"0+{GIB}x180",
    'process_start_time_seconds{node="a"}': "1000x180",
}
"""What a healthy cluster of two nodes tells each minute for three hours."""

TROUBLES: Final = {
    "P2PMirrorNoPeers": {'p2pmirror_routing_members{state="alive",node="a"}': "2x90 0x90"},
    "P2PMirrorUpstreamFailing": {
        'p2pmirror_upstream_requests_total{registry="docker.io",outcome="limited"}': "0+90x180"
    },
    "P2PMirrorQuotaLow": {'p2pmirror_upstream_quota_left_requests{registry="docker.io"}': "90-1x90 0x90"},
    "P2PMirrorDiskNearlyFull": {'p2pmirror_cache_free_bytes{node="a"}': f"{GIB // 2}x180"},
    "P2PMirrorDiskNearlyFull of a cache that cannot be written": {'p2pmirror_cache_troubles{node="a"}': "1x180"},
    "P2PMirrorHitRatioFallen": {'p2pmirror_front_saved_bytes_total{node="a"}': f"0+{GIB // 10}x180"},
    "P2PMirrorAgentRestarting": {'process_start_time_seconds{node="a"}': "1000x130 2000x10 3000x10 4000x10 5000x20"},
}
"""What one trouble makes of it, by the alert that is to tell."""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the chart's alerts as a file of Prometheus'."""
    if not HELM.at_hand or shutil.which("promtool") is None:
        leave_out("kubernetes", "needs Go (for helm) and promtool", mendable=False)
    directory = tmp_path_factory.mktemp("alerts")
    chosen = {"metrics": {"prometheusRule": {"enabled": True}}}
    path = directory / "rules.yaml"
    path.write_text(yaml.safe_dump(one(render(chosen, directory=directory), "PrometheusRule", RELEASE)["spec"]))
    return path


def test_prometheus_takes_them(rules: Path) -> None:
    """They are rules, and as many as there are troubles to tell of."""
    told = promtool("check", "rules", "--lint-fatal", str(rules))

    assert "6 rules found" in told


def test_none_fires_while_all_is_well(rules: Path, tmp_path: Path) -> None:
    """A healthy cluster, a seventh of whose questions are limited, is told of by nobody."""
    assert_fires(rules, tmp_path, {}, None)


@pytest.mark.parametrize("alert", TROUBLES)
def test_each_tells_of_its_trouble_alone(rules: Path, tmp_path: Path, alert: str) -> None:
    """What goes wrong is told by the alert that is named for it, and by no other."""
    assert_fires(rules, tmp_path, TROUBLES[alert], alert.partition(" ")[0])


def assert_fires(rules: Path, directory: Path, changed: Mapping[str, str], alert: str | None) -> None:
    """Have Prometheus run its time through series, and say which alerts fire in the end."""
    told = (WELL | changed).items()
    series = [{"series": name.replace("{", f"{{{OURS},"), "values": values} for name, values in told]
    fires = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "170m",
        "exp_samples": [] if alert is None else [{"labels": f'{{alertname="{alert}"}}', "value": 1}],
    }
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [fires]}
    path = directory / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [test]}))

    promtool("test", "rules", str(path))


def promtool(*arguments: str) -> str:
    """Run promtool and return what it says; fails with it."""
    ran = subprocess.run(["promtool", *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
