"""Which files of `certs.d` are to name our hosts: found in the directories as they are now.

Laws:
- `_default` goes into the last of several directories, because containerd stops at the first one that has an answer,
  and a `_default` is one for everybody.
- With `_default`, each registry's own directory in any of them is a target too: it shadows `_default`.
- A directory that two names lead to is written once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import files
from p2pmirror.hostconfig.hosts import Certificates
from p2pmirror.hostconfig.marks import without
from p2pmirror.hostconfig.names import DEFAULT, HOSTS_FILE, directory_of, registry_of, server_of


class Shadowing(BadRequest):
    """A new directory would hide from containerd what somebody wrote for all registries."""


@dataclass(frozen=True, slots=True)
class Target:
    """A hosts.toml that is to name our hosts. `server`: what it falls back to where nothing is said of that."""

    path: Path
    server: str | None


def targets(roots: Sequence[Path], registries: Sequence[str]) -> list[Target]:
    """Return the files for these registries, `_default` among them or not. Raises OSError."""
    found: dict[tuple[int, int] | Path, Target] = {}
    if DEFAULT in registries:
        for each in own_directories(roots):
            server = None if each.is_symlink() else server_of(registry_of(each.name) or DEFAULT)
            found.setdefault(_identity(each), Target(each / HOSTS_FILE, server))
    for registry in registries:
        directory = _directory(roots, registry)
        found.setdefault(_identity(directory), Target(directory / HOSTS_FILE, server_of(registry)))
    return list(found.values())


def own_directories(roots: Sequence[Path], *, with_default: bool = False) -> Iterator[Path]:
    """Yield the directories of single registries, and that of all others where it is wanted. Raises OSError."""
    for root in roots:
        for each in sorted(root.iterdir()) if root.is_dir() else ():
            if (registry_of(each.name) or (with_default and each.name == DEFAULT)) and each.is_dir():
                yield each


def certificates_in(directory: Path) -> Certificates:
    """Return the certificates that containerd finds in a directory without hosts.toml, as it pairs them."""
    names = sorted(each.name for each in directory.iterdir() if not each.is_dir()) if directory.is_dir() else []
    clients = [name for name in names if name.endswith(".cert")]
    keys = [f"{name.removesuffix('.cert')}.key" for name in clients]
    pairs = tuple((cert, key if key in names else cert) for cert, key in zip(clients, keys, strict=True))
    return Certificates(tuple(name for name in names if name.endswith(".crt")), pairs)


def refuse_shadowing(target: Path, roots: Sequence[Path]) -> None:
    """Refuse to make a registry's directory where a `_default` of the user's is what counts for it now.

    Raises `Shadowing`, `BadRequest`.
    """
    if target.parent.name == DEFAULT or target.parent.exists():
        return
    for root in roots:
        default = root / DEFAULT / HOSTS_FILE
        text = files.text_of(default)
        if text is not None and without(text).strip():
            raise Shadowing(
                f"{default} counts for it now, and a directory of its own would hide that: use --registry _default"
            )


def _directory(roots: Sequence[Path], registry: str) -> Path:
    if registry == DEFAULT:
        return roots[-1] / DEFAULT
    directories = [directory_of(root, registry) for root in roots]
    return next((each for each in directories if each.is_dir()), directories[0])


def _identity(directory: Path) -> tuple[int, int] | Path:
    try:
        found = directory.stat()
    except OSError:
        return directory
    return found.st_dev, found.st_ino
