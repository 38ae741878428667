"""Registries and the directories of `certs.d` that containerd looks for them in.

Law, which is containerd's: of `h_p_`, `h:p` and `_default` the first that exists is taken, and nothing of the others
is looked at; so a directory of a registry's own shadows `_default`, whatever is in it.
"""

import re
from pathlib import Path
from typing import Final

from p2pmirror.oci import Invalid, canonical_registry, check_registry

DEFAULT: Final = "_default"  # for every registry that has no directory of its own
HOSTS_FILE: Final = "hosts.toml"

_WITH_PORT: Final = re.compile(r"(.+)_(\d{1,5})_")
_LOCAL: Final = re.compile(r"localhost|127\.\d+\.\d+\.\d+|\[::1\]")


def registry_of(directory: str) -> str | None:
    """Return the registry that a directory's name stands for; None: the name is none that containerd looks for."""
    match = _WITH_PORT.fullmatch(directory)
    name = f"{match[1]}:{match[2]}" if match else directory
    try:
        return check_registry(name)
    except Invalid:
        return None


def directory_of(root: Path, registry: str) -> Path:
    """Return the directory in which containerd finds a registry: one that exists, else the one to make."""
    name, colon, port = registry.rpartition(":")
    if registry == DEFAULT or not colon:
        return root / registry
    safe, plain = root / f"{name}_{port}_", root / registry
    return plain if plain.exists() and not safe.exists() else safe


def server_of(registry: str) -> str | None:
    """Return the URL of a registry; None where containerd must find it out (`_default`, this host's registries)."""
    if registry == DEFAULT or _LOCAL.fullmatch(registry.rpartition(":")[0] or registry):
        return None
    return "https://registry-1.docker.io" if registry == "docker.io" else f"https://{registry}"


def read_registry(text: str) -> str:
    """Return a registry's name as people write it, or `_default`. ValueError."""
    if text == DEFAULT:
        return text
    try:
        return canonical_registry(check_registry(text))
    except Invalid as error:
        raise ValueError(str(error)) from None
