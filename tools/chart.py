"""Writes what follows from elsewhere into the chart: `python tools/chart.py [--check]`.

The table of the README comes from values.yaml: a value is described by the line `# -- …` above it; whatever stands
below a described value belongs to it. The settings that values.schema.json takes come from the agent's. With `--check`
nothing is written, and the exit code says whether all is up to date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from p2pmirror.config.settings import SETTINGS

CHART = Path(__file__).parents[1] / "deploy" / "helm" / "p2pmirror"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"

_LINE = re.compile(r"(?P<indent> *)(?:# -- (?P<text>.*)|(?P<key>[A-Za-z0-9]+):.*)")


def described(text: str) -> dict[str, str]:
    """Return the descriptions of a values file by dotted key, in its order."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    said = ""
    for line in text.splitlines():
        if (match := _LINE.fullmatch(line)) is None:
            continue
        if match["text"] is not None:
            said = match["text"]
            continue
        path = [each for each in path if each[0] < len(match["indent"])] + [(len(match["indent"]), match["key"])]
        if said:
            found[".".join(key for _, key in path)] = said
        said = ""
    return found


def undescribed(values: dict[str, Any], keys: set[str], prefix: str = "") -> list[str]:
    """Return the values that no description is for, neither their own nor that of what they are in."""
    missing = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in keys:
            continue
        if isinstance(value, dict) and value:
            missing += undescribed(value, keys, f"{name}.")
        else:
            missing.append(name)
    return missing


def table(text: str) -> str:
    """Return the table. Raises SystemExit for a value that is not described."""
    values, texts = yaml.safe_load(text), described(text)
    if missing := undescribed(values, set(texts)):
        sys.exit(f"values.yaml: no description of {', '.join(missing)}")
    rows = [f"| `{key}` | `{_shown(_at(values, key))}` | {said} |" for key, said in texts.items()]
    return "\n".join(["| value | default | what for |", "| --- | --- | --- |", *rows])


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def readme(before: str) -> str:
    """Return the README with the table as it is to be."""
    head, _, rest = before.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n{table((CHART / 'values.yaml').read_text())}\n{END}{tail}"


def schema(before: str) -> str:
    """Return the schema with the settings that there are."""
    document = json.loads(before)
    keys = sorted(setting.key for setting in SETTINGS)
    properties = document["properties"]
    for settings in (properties["settings"], properties["sharedCache"]["properties"]["settings"]):
        settings["propertyNames"]["enum"] = keys
    return json.dumps(document, indent=2) + "\n"


def main(arguments: list[str]) -> int:
    """Write both, or compare them."""
    stale = 0
    for path, made in ((CHART / "README.md", readme), (CHART / "values.schema.json", schema)):
        before = path.read_text()
        after = made(before)
        if "--check" not in arguments:
            path.write_text(after)
        elif after != before:
            sys.stderr.write(f"{path.name} of the chart is not up to date: python tools/chart.py\n")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
