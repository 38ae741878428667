"""What the chart says of itself, without helm: its schema and its README follow its values and the agent's settings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from p2pmirror.config.settings import SETTINGS
from p2pmirror.version import VERSION
from tests.deploy.helm import CHART
from tools import chart

EKS = CHART.parents[1] / "eks"


def missing(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Name the values that a schema does not know."""
    for key, value in values.items():
        known = schema["properties"].get(key)
        if known is None:
            yield f"{prefix}{key}"
        elif isinstance(value, dict) and "properties" in known:
            yield from missing(value, known, f"{prefix}{key}.")


def test_the_schema_knows_every_value_and_every_setting() -> None:
    """No value lacks a type, and `settings` takes exactly what the agent does."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert list(missing(values, schema)) == []
    keys = {setting.key for setting in SETTINGS}
    assert set(schema["properties"]["settings"]["propertyNames"]["enum"]) == keys
    shared = schema["properties"]["sharedCache"]["properties"]["settings"]
    assert set(shared["propertyNames"]["enum"]) == keys


def test_what_is_written_by_a_tool_is_up_to_date() -> None:
    """Every value is described in the README, and the schema takes the agent's settings."""
    assert chart.main(["--check"]) == 0


def test_the_chart_has_the_version_of_the_agent() -> None:
    """An image of the agent's version is what the chart installs."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == VERSION


def counted() -> set[str]:
    """Return the names of all metrics, from the modules that register them."""
    names = {"p2pmirror_build_info", "process_start_time_seconds"}
    for path in (CHART.parents[2] / "p2pmirror").rglob("*.py"):
        source = path.read_text()
        names |= set(re.findall(r'"(p2pmirror_[a-z_]+)"', source))
        for room in re.findall(r'Room\(\w+, "(\w+)"\)', source):
            names |= {f"p2pmirror_{room}_{name}" for name in re.findall(r'"([a-z_]+)"', source)}
    return names


@pytest.mark.parametrize("told", ["templates/monitoring.yaml", "dashboards/p2pmirror.json"])
def test_alerts_and_panels_ask_for_what_the_agent_counts(told: str) -> None:
    """Names of metrics in alerts and in the dashboard are names that the agent has."""
    asked = set(re.findall(r"\b(?:p2pmirror_[a-z_]+_[a-z_]+|p2pmirror_build_info)\b", (CHART / told).read_text()))

    assert len(asked) > 5
    known = counted()
    assert [name for name in asked if not {name, re.sub("_total$|_bucket$", "", name)} & known] == []


def test_nodes_of_eks_write_the_same_configuration() -> None:
    """Both kinds of user data hold the script that stands beside them."""
    script = (EKS / "hosts.sh").read_text()

    assert script in (EKS / "user-data-al2.sh").read_text()
    assert script in (EKS / "user-data-al2023.mime").read_text()


def test_the_script_of_eks_writes_what_containerd_reads(tmp_path: Path) -> None:
    """The agent comes first, then the shared cache; what is there already is left as it is."""
    script = (EKS / "hosts.sh").read_text().replace("/etc/containerd/certs.d", str(tmp_path))
    file = tmp_path / "_default" / "hosts.toml"

    subprocess.run(["bash", "-c", script], check=True, env={**os.environ, "SHARED_CACHE": "http://10.0.0.1:30500"})

    assert list(tomllib.loads(file.read_text())["host"]) == ["http://127.0.0.1:29999", "http://10.0.0.1:30500"]
    file.write_text("# somebody else's\n")
    subprocess.run(["bash", "-c", script], check=True)
    assert file.read_text() == "# somebody else's\n"


def test_what_is_given_to_platforms_is_what_the_commands_print(tmp_path: Path) -> None:
    """The files for Talos, k3s and kind were printed by `p2pmirror configure` as it is."""
    root = CHART.parents[2]

    subprocess.run(
        ["sh", root / "tools" / "platforms.sh", Path(sys.executable).parent / "p2pmirror", tmp_path], check=True
    )

    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(made) == 4
    for path, text in made.items():
        assert (root / "deploy" / path).read_text() == text, path
