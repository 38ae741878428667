"""hosts.toml files as containerd will read them: valid, and with our hosts first.

Law: what is shown of a file is what containerd makes of it: a broken one is ignored as a whole, and the registry asked.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import files
from p2pmirror.hostconfig.doctor.finding import Finding
from p2pmirror.hostconfig.hosts import order
from p2pmirror.hostconfig.names import DEFAULT, HOSTS_FILE
from p2pmirror.hostconfig.outline import read
from p2pmirror.hostconfig.targets import own_directories


def hosts_findings(roots: Sequence[Path], addresses: Sequence[str]) -> Iterator[Finding]:
    """Judge the files in the directories that containerd reads. Raises OSError where one cannot be listed."""
    configure = f"p2pmirror configure containerd --config-path {':'.join(map(str, roots))}"
    defaults = [root / DEFAULT for root in roots if (root / DEFAULT).is_dir()]
    first = defaults[:1]
    yield from _hidden(roots, first)
    asked = 0
    for directory in [*own_directories(roots), *first]:
        finding = _file(directory, addresses, configure, is_shadowing=bool(first) and directory not in first)
        asked += finding.level == "ok"
        yield finding
    if not asked:
        yield Finding("hosts", "bad", "containerd is not told to ask the agent for any registry", configure)


def _hidden(roots: Sequence[Path], default: Sequence[Path]) -> Iterator[Finding]:
    """Find directories behind a `_default` of an earlier root, which containerd never reaches."""
    for each in default:
        behind = roots[roots.index(each.parent) + 1 :]
        hidden = [str(directory) for directory in own_directories(behind)]
        if hidden:
            said = f"{each} hides {', '.join(hidden)}: containerd stops at it"
            yield Finding("hosts", "bad", said, f"move {DEFAULT} into {behind[-1]}, or these into {each.parent}")


def _file(directory: Path, addresses: Sequence[str], configure: str, *, is_shadowing: bool) -> Finding:
    path = directory / HOSTS_FILE
    hides = (
        f" ({directory.name} has a directory of its own, which {DEFAULT} does not count for)" if is_shadowing else ""
    )
    try:
        text = files.text_of(path)
        hosts = order(text or "")
        server = read(text or "").get("server")
    except BadRequest as error:
        return Finding(
            "hosts", "bad", f"{path}: {error}; containerd ignores it", f"mend or remove it, then {configure}"
        )
    if not hosts:
        said = f"{path} {'is not there' if text is None else 'names no host'}: the agent is not asked{hides}"
        return Finding("hosts", "warn", said, configure)
    if hosts[0] not in addresses:
        ours = [each for each in hosts if each in addresses]
        said = f"{path} asks {hosts[0]} first{'' if ours else ', and the agent not at all'}{hides}"
        return Finding("hosts", "warn", said, configure)
    last = f"; nobody but {server} afterwards: no fallback" if server in addresses else ""
    return Finding("hosts", "ok", f"{path} asks {hosts[0]} first{last}")
