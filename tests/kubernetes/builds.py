"""Builds what a Kubernetes is made of, from the modules that Go's proxy has: `python -m tests.kubernetes.builds`.

Kubernetes' own module replaces some thirty modules by directories of its repository, which the proxy does not have;
each of them is published by itself, so a module of ours requires Kubernetes and replaces them by what was published.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.deploy.helm import HELM
from tests.lab.builds import CONTAINERD_2
from tests.lab.goprograms import GoProgram, go

COMMANDS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
STAMPED: Final = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
COREDNS: Final = GoProgram("coredns", "1.12.4", ("github.com/coredns/coredns",))

_REQUIRED: Final = re.compile(r"^\s+(\S+) (v\S+)", re.MULTILINE)


class KubernetesProgram(GoProgram):
    """Kubernetes' commands."""

    def compile(self, target: Path) -> None:
        """Build all commands into a directory, in a module that stands in for Kubernetes' own."""
        with tempfile.TemporaryDirectory() as temporary:
            module = Path(temporary)
            (module / "go.mod").write_text("module p2pmirror.test/kubernetes\n\ngo 1.24\n")
            (module / "go.mod").write_text(stand_in(self._own_module(module), self.version))
            stamps = [f"-X {package}.gitVersion=v{self.version}" for package in STAMPED]  # else it says 0.0.0
            flags = ["-mod=mod", f"-ldflags={' '.join(['-s', '-w', *stamps])}", "-o", str(target)]
            go("build", *flags, *self.packages, directory=module)

    def _own_module(self, directory: Path) -> str:
        download = ["go", "mod", "download", "-json", f"k8s.io/kubernetes@v{self.version}"]
        told = subprocess.run(download, cwd=directory, check=True, capture_output=True, text=True)
        return Path(json.loads(told.stdout)["GoMod"]).read_text()


KUBERNETES: Final = KubernetesProgram(
    "kubernetes", "1.34.4", tuple(f"k8s.io/kubernetes/cmd/{command}" for command in COMMANDS)
)
PROGRAMS: Final = (CONTAINERD_2, HELM, COREDNS, KUBERNETES)


def stand_in(own: str, version: str) -> str:
    """Return the text of a go.mod that requires Kubernetes and what its own go.mod does.

    What has version 0.0.0 there is a directory of Kubernetes' repository, published as 0.MINOR.PATCH.
    """
    required = _REQUIRED.findall(own)
    published = f"v0.{version.partition('.')[2]}"
    staged = sorted({name for name, number in required if number == "v0.0.0"})
    lines = [f"\t{name} {published if name in staged else number}" for name, number in required]
    return "\n".join(
        [
            "module p2pmirror.test/kubernetes",
            "",
            "go 1.24",
            "",
            "require (",
            f"\tk8s.io/kubernetes v{version}",
            *lines,
            ")",
            "",
            "replace (",
            *(f"\t{name} => {name} {published}" for name in staged),
            ")",
            "",
        ]
    )


def main() -> None:
    """Build what is missing."""
    for program in PROGRAMS:
        sys.stdout.write(f"{program.name} {program.version}: {program.built()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
