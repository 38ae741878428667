"""The real helm, and what it makes of the chart."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.lab.goprograms import GoProgram

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "p2pmirror"
EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
HELM = GoProgram("helm", "3.19.5", ("helm.sh/helm/v3/cmd/helm",))
RELEASE, NAMESPACE = "p2pmirror", "mirror"
RENDER_S = 60
KUBERNETES = "1.34"  # a helm built by `go install` takes clusters for very old ones unless it is told

Resource = dict[str, Any]


class Refused(Exception):
    """Helm does not take these values; says what helm said."""


def helm(*arguments: str) -> str:
    """Run helm. Raises `Refused` with what it wrote."""
    program = HELM.built() / "helm"
    ran = subprocess.run([program, *arguments], check=False, capture_output=True, text=True, timeout=RENDER_S)
    if ran.returncode:
        raise Refused(ran.stderr or ran.stdout)
    return ran.stdout


def template(release: str, *arguments: str) -> str:
    """Return what helm renders for a release. Raises `Refused`."""
    return helm("template", release, str(CHART), "--kube-version", KUBERNETES, *arguments)


def render(
    values: Mapping[str, object] | None = None, *, files: Sequence[Path] = (), directory: Path
) -> list[Resource]:
    """Return the resources that the chart makes of values, as the release `p2pmirror`; writes into `directory`."""
    given = directory / "values.yaml"
    given.write_text(yaml.safe_dump(dict(values or {})))
    chosen = [argument for path in (*files, given) for argument in ("-f", str(path))]
    text = template(RELEASE, "--namespace", NAMESPACE, *chosen)
    return [document for document in yaml.safe_load_all(text) if document]


def one(resources: Sequence[Resource], kind: str, name: str) -> Resource:
    """Return the one resource of that kind and name."""
    (found,) = [each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found
