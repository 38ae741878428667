"""`configure containerd` and `unconfigure`: what is to be written, and the writing of it.

Laws:
- A plan is made by reading alone, and shown or done. What is as it should be is not in it: a second run writes nothing.
- What cannot be changed is left as it is, with its reason; the rest is done.
- The wanted registries are all: what an earlier run wrote for others is given back.
- Files are kept in the ledger, the ledger is saved, directories are made, files are written: in this order.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import daemon, files, marks
from p2pmirror.hostconfig.hosts import Wanted, merged
from p2pmirror.hostconfig.ledger import Ledger, text_without
from p2pmirror.hostconfig.names import HOSTS_FILE
from p2pmirror.hostconfig.targets import certificates_in, own_directories, refuse_shadowing, targets


@dataclass(frozen=True, slots=True)
class Setup:
    """How a host is to be. `roots`: the directories of containerd's `config_path`, the ledger in the first.

    `daemon_config`: containerd's own configuration, where `config_path` is to be set in it.
    """

    roots: tuple[Path, ...]
    registries: tuple[str, ...]
    wanted: Wanted
    daemon_config: Path | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One file: what it has now, what it has without ours, what it is to have; None where there is no file."""

    path: Path
    present: str | None
    base: str | None
    after: str | None
    mode_max: int = 0o7777


@dataclass(slots=True)
class Plan:
    """What is to be done, what is left alone and why."""

    changes: list[Change] = field(default_factory=list)
    given_back: list[Change] = field(default_factory=list)
    left: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to do."""
        return not self.changes and not self.given_back


def plan(setup: Setup) -> Plan:
    """Return what is to be done on this host. Raises `BadRequest` where nothing can be."""
    made = Plan()
    _check_roots(setup.roots)
    mode_max = files.SECRET_MODE if setup.wanted.headers else 0o7777
    with _said(setup.roots[0]):
        wanted = targets(setup.roots, setup.registries)
    for target in wanted:

        def hosts(base: str | None, path: Path = target.path, server: str | None = target.server) -> str:
            refuse_shadowing(path, setup.roots)
            beside = None if base else certificates_in(path.parent)
            return merged(base or "", setup.wanted, server, beside)

        _add(made, target.path, hosts, mode_max)
    paths = {target.path for target in wanted}
    if setup.daemon_config is not None:
        roots = ":".join(map(str, setup.roots))
        paths.add(setup.daemon_config)
        _add(made, setup.daemon_config, lambda base: daemon.with_config_path(base or "", roots))
    for path in Ledger(setup.roots[0]).paths:
        if path not in paths and (setup.daemon_config is not None or path.name == HOSTS_FILE):
            _add_back(made, path)
    return made


def configure(setup: Setup) -> Plan:
    """Do what is to be done; return what was. Raises `BadRequest` where nothing could be."""
    root = setup.roots[0]
    _check_roots(setup.roots)
    with _said(root):
        new = files.make_directories(root)
    with _said(root), files.locked(root):
        planned = plan(setup)
        if planned.is_empty:
            return planned
        ledger = Ledger(root)
        ledger.made(new)
        ledger.home.mkdir(mode=0o700, exist_ok=True)
        files.sweep(ledger.home)
        _keep(planned, ledger)
        ledger.save()
        _do(planned.changes, _write, planned)
        _do(planned.given_back, lambda change: ledger.give_back(change.path), planned)
        ledger.remove_empty([change.path.parent for change in planned.given_back])
        _finish(ledger)
    return planned


def plan_back(roots: Sequence[Path]) -> Plan:
    """Return what `unconfigure` would do. Raises `BadRequest`."""
    made = Plan()
    known = Ledger(roots[0]).paths
    for path in known:
        _add_back(made, path)
    seen = {_real(path) for path in known}
    for path in (each / HOSTS_FILE for each in own_directories(roots, with_default=True)):
        if _real(path) not in seen:
            seen.add(_real(path))
            with contextlib.suppress(files.Unreadable):  # whatever it is, we did not write it
                _add_back(made, path)
    return made


def unconfigure(roots: Sequence[Path]) -> Plan:
    """Give back all that was changed; return what was. Raises `BadRequest` where nothing could be."""
    root = roots[0]
    _check_roots(roots)
    if not root.exists():
        return Plan()
    with _said(root), files.locked(root):
        planned = plan_back(roots)
        ledger = Ledger(root)
        if not ledger.home.exists() and planned.is_empty:
            return planned
        known = set(ledger.paths)
        for path in known | {change.path for change in planned.given_back}:
            if path.parent.is_dir():
                files.sweep(path.parent)
        _do(
            planned.given_back,
            lambda each: ledger.give_back(each.path) if each.path in known else _clear(each),
            planned,
        )
        for path in known - {path for path, _ in planned.left} - {change.path for change in planned.given_back}:
            ledger.forget(path)
        _finish(ledger)
    return planned


def _check_roots(roots: Sequence[Path]) -> None:
    for root in roots:
        if root.is_symlink() and not root.exists():
            raise BadRequest(f"{root} is a link that leads nowhere")
        if root.exists() and not root.is_dir():
            raise BadRequest(f"{root} is no directory")


def _add(made: Plan, path: Path, after: Callable[[str | None], str], mode_max: int = 0o7777) -> None:
    """Add a file to a plan unless it is as it should be."""
    try:
        present, base = text_without(path)
        text = after(base)
        if text != present and (present is not None or text):
            made.changes.append(Change(path, present, base, text, mode_max))
    except BadRequest as error:
        made.left.append((path, str(error)))
    except OSError as error:
        made.left.append((path, error.strerror or str(error)))


def _add_back(made: Plan, path: Path) -> None:
    """Add to a plan that a file has nothing of ours any more."""
    try:
        present = files.text_of(path)
        if present is not None and marks.is_marked(present):
            base = marks.without(present)
            made.given_back.append(Change(path, present, base, base or None))
    except marks.Damaged as error:
        made.left.append((path, str(error)))


def _real(path: Path) -> Path:
    """Return the place of a file whose directory may be a link."""
    return path.parent.resolve() / path.name


def _keep(planned: Plan, ledger: Ledger) -> None:
    """Keep what is to be changed; what cannot be kept is left alone."""

    def keep(change: Change) -> None:
        if change.path.parent.is_dir():
            files.sweep(change.path.parent)
        else:
            ledger.made(files.missing_directories(change.path.parent))
        ledger.keep(change.path, change.base)

    _do(planned.changes, keep, planned)


def _finish(ledger: Ledger) -> None:
    """Save the ledger; without anything in it nothing of us stays."""
    if ledger.paths:
        ledger.save()
    elif ledger.home.exists():
        ledger.end()


def _write(change: Change) -> None:
    files.make_directories(change.path.parent)
    files.write(change.path, change.after or "", change.path, mode_max=change.mode_max)


def _clear(change: Change) -> None:
    """Take ours out of a file that no ledger knows: the ledger was lost."""
    if change.after is not None:
        files.write(change.path, change.after, change.path)
        return
    files.remove(change.path)
    with contextlib.suppress(OSError):  # something else is in it
        change.path.parent.rmdir()


def _do(changes: list[Change], work: Callable[[Change], None], planned: Plan) -> None:
    """Do something with each change; take out those with which it cannot be done, and say why."""
    for change in list(changes):
        try:
            work(change)
        except BadRequest as error:
            planned.left.append((change.path, str(error)))
            changes.remove(change)
        except OSError as error:
            planned.left.append((change.path, error.strerror or str(error)))
            changes.remove(change)


@contextlib.contextmanager
def _said(root: Path) -> Iterator[None]:
    """Turn what the disk says of the directory as a whole into one line."""
    try:
        yield
    except OSError as error:
        raise BadRequest(f"{error.filename or root}: {error.strerror or error}") from None
