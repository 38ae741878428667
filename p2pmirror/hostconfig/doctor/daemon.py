"""Does containerd read hosts.toml, and from where? Its configuration says so, with what that imports.

Law: a later file wins, as with containerd; but a table counts only in the form of the main file's version, whatever
file it stands in.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import files
from p2pmirror.hostconfig.daemon import CRI_2, CRI_3, at, plugin_of, roots_of
from p2pmirror.hostconfig.doctor.finding import Finding
from p2pmirror.hostconfig.outline import read

BUILT_IN: Final = ("/etc/containerd/certs.d", "/etc/docker/certs.d")  # where none is set, from containerd 2.2 on
BUILT_IN_SINCE: Final = (2, 2)
NS_SINCE: Final = (1, 5)  # earlier ones do not say which registry they ask for
DIAL_TIMEOUT_SINCE: Final = (2, 1)
IMPORTS_MAX: Final = 100  # files; more than these are a loop

_RESTART: Final = "then restart containerd (systemctl restart containerd)"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file of the configuration: what it says, or why it cannot be read."""

    path: Path
    document: Mapping[str, Any]
    error: str = ""


def config_files(path: Path) -> list[ConfigFile]:
    """Return the main file and what it imports, in containerd's order; nothing where there is no main file."""
    found: dict[Path, ConfigFile] = {}
    waiting = [path]
    while waiting and len(found) < IMPORTS_MAX:
        each = waiting.pop(0)
        if each not in found and (file := _config_file(each)) is not None:
            found[each] = file
            waiting += _imports(file)
    return list(found.values())


def version_of(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version such as `1.6.20~ds1` or `v2.2.9`; (0, 0) for none."""
    parts = text.removeprefix("v").split(".")
    numbers = [int(part) for part in parts[:2] if part.isascii() and part.isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def version_finding(said: str | None, socket: Path, reason: str) -> Finding:
    """Judge what containerd calls itself; `said` is None when it did not answer, for `reason`."""
    if said is None:
        todo = "start containerd, or name its socket: --containerd-sock (k3s: /run/k3s/containerd/containerd.sock)"
        return Finding("containerd", "bad", f"does not answer at {socket}: {reason}", todo)
    if (0, 0) < version_of(said) < NS_SINCE:
        return Finding("containerd", "bad", f"{said} does not say which registry it asks for", "use 1.6 or newer")
    late = "" if version_of(said) >= DIAL_TIMEOUT_SINCE else "; it ignores dial_timeout, as all do before 2.1"
    return Finding("containerd", "ok", f"{said} answers at {socket}{late}")


def config_findings(
    parts: Sequence[ConfigFile],
    main: Path,
    roots: Sequence[Path],
    version: str | None,
    *,
    has_cache: bool = False,
    in_pod: bool = False,
) -> Iterator[Finding]:
    """Judge the configuration. `roots`: where our hosts.toml files are; `version`: what containerd says it is.

    `in_pod`: what is not there may only not be mounted.
    """
    if not parts and in_pod:
        yield Finding("config", "skip", f"{main} is not mounted here: run this on the node to have it looked at")
        return
    for part in parts:
        if part.error:
            yield Finding("config", "bad", f"{part.path}: {part.error}", "mend it: containerd will not start with it")
    yield from _disabled(parts)
    document = parts[0].document if parts else {}
    plugin = plugin_of(document) if document else CRI_2
    if plugin is None:
        todo = f"write one of version 2 or 3 (containerd config default > {main}), {_RESTART}"
        yield Finding("config", "bad", f"{main} is of version 1, where config_path stands elsewhere", todo)
        return
    yield _config_path(_last(parts, plugin, "registry", "config_path"), main, roots, version)
    yield from _conflicts(parts, plugin)
    yield from _misplaced(parts, plugin)
    yield _layers(parts, plugin, has_cache=has_cache)


def _config_path(said: object, main: Path, roots: Sequence[Path], version: str | None) -> Finding:
    wanted = ":".join(map(str, roots))
    if not said and version is not None and version_of(version) >= BUILT_IN_SINCE:
        said = ":".join(BUILT_IN)
        if set(map(str, roots)) <= set(BUILT_IN):
            return Finding("config_path", "ok", f"is not set, so containerd {version} reads {said}")
    if not said:
        todo = f"p2pmirror configure containerd --config-path {wanted} --daemon-config {main}, {_RESTART}"
        return Finding("config_path", "bad", f"is not set in {main}: no hosts.toml is read", todo)
    if not set(map(str, roots)) <= set(roots_of(said)):
        todo = f"p2pmirror unconfigure --config-path {wanted} && p2pmirror configure containerd --config-path {said}"
        return Finding("config_path", "bad", f"containerd reads {said}, and not {wanted}", todo)
    return Finding("config_path", "ok", f"is {said}")


def _conflicts(parts: Sequence[ConfigFile], plugin: str) -> Iterator[Finding]:
    for part in parts:
        if at(part.document, "plugins", plugin, "registry", "mirrors"):
            todo = f"move them into hosts.toml files and remove the table from {part.path}, {_RESTART}"
            said = f"registry.mirrors in {part.path}: beside config_path containerd starts without its image service"
            yield Finding("mirrors", "bad", said, todo)


def _disabled(parts: Sequence[ConfigFile]) -> Iterator[Finding]:
    for part in parts:
        off = part.document.get("disabled_plugins")
        if isinstance(off, list) and any(each in off for each in ("cri", CRI_2, CRI_3)):
            yield Finding(
                "cri", "bad", f"disabled_plugins in {part.path} turns CRI off", f"remove it there, {_RESTART}"
            )


def _misplaced(parts: Sequence[ConfigFile], plugin: str) -> Iterator[Finding]:
    """Find tables of the other version's form, which are not read."""
    other, tables = (CRI_2, ("registry", "containerd")) if plugin == CRI_3 else (CRI_3, ("registry",))
    for part in parts:
        found = at(part.document, "plugins", other)
        lost = [name for name in tables if isinstance(found, Mapping) and found.get(name)]
        if lost:
            said = (
                f'{part.path} has {", ".join(lost)} under "{other}", which is not read in this version of configuration'
            )
            yield Finding("config", "warn", said, f'write it under "{plugin}", {_RESTART}')


def _layers(parts: Sequence[ConfigFile], plugin: str, *, has_cache: bool) -> Finding:
    keys = ("discard_unpacked_layers",) if plugin == CRI_3 else ("containerd", "discard_unpacked_layers")
    if _last(parts, plugin, *keys) is not True:
        return Finding("layers", "ok", "containerd keeps the layers that it has unpacked")
    said = "discard_unpacked_layers is true: what a node has pulled it cannot give to others"
    todo = f"set it to false, {_RESTART}; or give the agent a cache (cache_dir)"
    if has_cache:
        return Finding("layers", "ok", f"{said}; the agent's cache does")
    return Finding("layers", "warn", said, todo)


def _last(parts: Sequence[ConfigFile], plugin: str, *keys: str) -> Any:
    """Return what the last file says that says something."""
    said = [value for part in parts if (value := at(part.document, "plugins", plugin, *keys)) is not None]
    return said[-1] if said else None


def _config_file(path: Path) -> ConfigFile | None:
    try:
        text = files.text_of(path)
        return None if text is None else ConfigFile(path, read(text))
    except BadRequest as error:
        return ConfigFile(path, {}, str(error))


def _imports(file: ConfigFile) -> list[Path]:
    """Return the files that one imports, patterns resolved."""
    said = file.document.get("imports")
    found: list[Path] = []
    for each in said if isinstance(said, list) else ():
        path = Path(os.path.normpath(file.path.parent / str(each)))
        found += sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    return found
