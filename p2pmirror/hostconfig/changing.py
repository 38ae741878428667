"""Changes to a host's files: planned by reading alone, then shown or carried out, and taken back.

Laws:
- What is as it should be is not in a plan: a second run writes nothing.
- What cannot be changed is left as it is, with its reason; the rest is done.
- Files are kept in the ledger, the ledger is saved, directories are made, files are written: in this order.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import files, marks
from p2pmirror.hostconfig.ledger import Ledger, text_without


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


def add(made: Plan, path: Path, after: Callable[[str | None], str], mode_max: int = 0o7777) -> None:
    """Add a file to a plan unless it is as it should be: `after` makes its text of what it has without ours."""
    try:
        present, base = text_without(path)
        text = after(base)
        if text != present and (present is not None or text):
            made.changes.append(Change(path, present, base, text, mode_max))
    except BadRequest as error:
        made.left.append((path, str(error)))
    except OSError as error:
        made.left.append((path, error.strerror or str(error)))


def add_back(made: Plan, path: Path) -> None:
    """Add to a plan that a file is to have nothing of ours any more."""
    try:
        present = files.text_of(path)
        if present is not None and marks.is_marked(present):
            base = marks.without(present)
            made.given_back.append(Change(path, present, base, base or None))
    except BadRequest as error:
        made.left.append((path, str(error)))


def carry_out(root: Path, make: Callable[[], Plan], owner: str = "") -> Plan:
    """Make a plan and do it, with the ledger in `root`; return what was done. Raises `BadRequest`: nothing could be.

    `owner`: whose it is from now on; an empty one leaves that as it is.
    """
    check_roots([root])
    with said(root):
        new = files.make_directories(root)
    with said(root), files.locked(root):
        planned, ledger = make(), Ledger(root)
        is_inherited = bool(owner) and bool(ledger.paths) and owner != ledger.owner
        if planned.is_empty and not is_inherited:
            for each in reversed(new):
                each.rmdir()
            return planned
        ledger.owner = owner or ledger.owner
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


def plan_back(root: Path, others: Iterable[Path]) -> Plan:
    """Plan to give back what the ledger in `root` knows, and to take ours out of `others`, for when it was lost.

    Raises `BadRequest`.
    """
    made = Plan()
    known = Ledger(root).paths
    for path in known:
        add_back(made, path)
    seen = {_real(path) for path in known}
    for path in others:
        if _real(path) not in seen and _is_marked(path):
            seen.add(_real(path))
            add_back(made, path)
    return made


def take_back(root: Path, make: Callable[[], Plan]) -> Plan:
    """Do what `plan_back` says; return what was done. Raises `BadRequest` where nothing could be."""
    check_roots([root])
    if not root.exists():
        return Plan()
    with said(root), files.locked(root):
        planned = make()
        ledger = Ledger(root)
        if not ledger.home.exists() and planned.is_empty:
            return planned
        known = set(ledger.paths)
        for path in known | {change.path for change in planned.given_back}:
            if path.parent.is_dir():
                files.sweep(path.parent)

        def give_back(change: Change) -> None:
            ledger.give_back(change.path) if change.path in known else _clear(change)

        _do(planned.given_back, give_back, planned)
        for path in known - {path for path, _ in planned.left}:
            ledger.forget(path)
        _finish(ledger)
    return planned


def check_roots(roots: Iterable[Path]) -> None:
    """Raise `BadRequest` for what is there and no directory."""
    for root in roots:
        if root.is_symlink() and not root.exists():
            raise BadRequest(f"{root} is a link that leads nowhere")
        if root.exists() and not root.is_dir():
            raise BadRequest(f"{root} is no directory")


def _is_marked(path: Path) -> bool:
    """Tell whether something of ours is in a file that may be anybody's."""
    try:
        return marks.is_marked(files.text_of(path) or "")
    except files.Unreadable:  # whatever it is, we did not write it
        return False


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
def said(root: Path) -> Iterator[None]:
    """Turn what the disk says of the directory as a whole into one line."""
    try:
        yield
    except OSError as error:
        raise BadRequest(f"{error.filename or root}: {error.strerror or error}") from None
