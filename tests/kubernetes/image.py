"""The image of the agent, built without a Docker engine and without a registry: the bases are made on the spot.

The bases are Debian 12 with Python, as those of the Dockerfile are; they are kept outside the checkout, beside the
programs in Go.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.lab.goprograms import kept

ROOT: Final = Path(__file__).parents[2]
NAME: Final = "ghcr.io/p2pmirror/p2pmirror"
SUITE: Final = "bookworm"
PACKAGES: Final = {"build": "python3,python3-pip,ca-certificates", "run": "python3-minimal,python3,ca-certificates"}
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
BUILD_S: Final = 900
LACKING: Final = [command for command in ("buildah", "mmdebstrap") if shutil.which(command) is None]


def build(tag: str, archive: Path) -> Path:
    """Build the image and write it as an archive that containerd imports. Raises CalledProcessError."""
    bases = {f"{which.upper()}_BASE": _base(which) for which in PACKAGES}
    arguments = [f"--build-arg={name}={value}" for name, value in {**bases, **_pip()}.items()]
    image = f"{NAME}:{tag}"
    _buildah("bud", *arguments, f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", "--tag", image, str(ROOT))
    archive.unlink(missing_ok=True)
    _buildah("push", image, f"docker-archive:{archive}:{image}")
    return archive


def _base(which: str) -> str:
    """Return the name of a base, made now if it has to be."""
    name = f"localhost/p2pmirror-{which}-base:{SUITE}"
    archive = kept(f"base-{which}-{SUITE}.tar")
    if not archive.exists():
        sys.stderr.write(f"making {archive} (once, a minute)\n")
        partial = archive.with_suffix(".partial")
        variant = ["--variant=minbase", f"--include={PACKAGES[which]}", "--format=tar"]
        subprocess.run(["mmdebstrap", "--quiet", *variant, SUITE, str(partial)], check=True, timeout=BUILD_S)
        partial.rename(archive)
    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary)
        shutil.copy(archive, context / "base.tar")
        (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        _buildah("bud", "--tag", name, str(context))
    return name


def _pip() -> dict[str, str]:
    """Return where this machine's pip looks, as arguments of the build."""
    told = {name: os.environ[name] for name in ("PIP_INDEX_URL",) if name in os.environ}
    return {**told, "PIP_CERT": CERTIFICATES}


def _buildah(*arguments: str) -> None:
    isolation = ["--isolation=chroot"] if arguments[0] == "bud" else []
    subprocess.run(
        ["buildah", arguments[0], "--quiet", *isolation, *arguments[1:]],
        check=True,
        timeout=BUILD_S,
        stdout=subprocess.DEVNULL,
    )
