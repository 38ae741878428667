"""What the `configure` commands share: their options, and what they say of what they did."""

import difflib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from p2pmirror.cli.asking import plain
from p2pmirror.hostconfig.addresses import AGENT, read_address
from p2pmirror.hostconfig.changing import Change, Plan
from p2pmirror.hostconfig.names import DEFAULT, read_registry

CERTS_D: Final = "/etc/containerd/certs.d"
OWNER_CHARS_MAX: Final = 253  # as a name of Kubernetes

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Value = TypeVar("_Value")


class Read(click.ParamType):  # type: ignore[type-arg]  # click 8.1's takes none
    """A value that a function reads, which says what it wants by ValueError."""

    name = "text"

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the function makes of a text; what was read already stays."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(f"{plain(value)[:200]!r}: {plain(str(error))}", param, ctx)


def address_option(command: _Command) -> _Command:
    """Add `--address URL`, several times."""
    return click.option(
        "--address",
        "addresses",
        metavar="URL",
        multiple=True,
        default=(AGENT,),
        show_default=True,
        type=Read(read_address),
        help="A host to ask before the registry; repeat it: the node's own agent first, then a shared cache.",
    )(command)


def registry_option(command: _Command) -> _Command:
    """Add `--registry NAME`, several times."""
    return click.option(
        "--registry",
        "registries",
        metavar="NAME",
        multiple=True,
        default=(DEFAULT,),
        type=Read(read_registry),
        help="A registry whose images are asked for there; repeat it.  [default: _default, which is every registry]",
    )(command)


def config_path_option(command: _Command) -> _Command:
    """Add `--config-path DIR[:DIR…]`."""
    return click.option(
        "--config-path",
        "roots",
        metavar="DIR[:DIR...]",
        default=CERTS_D,
        show_default=True,
        type=Read(_roots),
        help="Where containerd looks for hosts.toml: its own config_path.",
    )(command)


def dry_run_option(command: _Command) -> _Command:
    """Add `--dry-run`."""
    return click.option("--dry-run", is_flag=True, help="Change nothing; show what would change as a diff.")(command)


def owner_option(command: _Command) -> _Command:
    """Add `--owner NAME`."""
    text = "For whom, a release of the chart for one: what was done for another owner is left alone."
    return click.option("--owner", metavar="NAME", default="", type=Read(_owner), help=text)(command)


def lenient_option(command: _Command) -> _Command:
    """Add `--lenient`."""
    text = "Say what could not be done, and end with 0 all the same: an agent that starts after this serves others."
    return click.option("--lenient", is_flag=True, help=text)(command)


def once(values: Iterable[_Value]) -> tuple[_Value, ...]:
    """Return values without repetitions, in order."""
    return tuple(dict.fromkeys(values))


def end(
    done: Plan,
    *,
    name: str,
    dry_run: bool,
    as_json: bool,
    notes: Iterable[str] = (),
    restart: bool,
    lenient: bool = False,
) -> NoReturn:
    """Say what was done, or would be, and end with the exit code that fits; `lenient`: with 0."""
    if as_json:
        click.echo(json.dumps(_object(done, dry_run=dry_run, restart=restart)))
    elif dry_run:
        for change in [*done.changes, *done.given_back]:
            click.echo(_diff(change), nl=False)
    else:
        _tell(done)
    if done.is_empty and not done.left and not as_json:
        click.echo("nothing to do: all is as it should be")
    for path, reason in done.left:
        click.echo(f"p2pmirror {name}: left {plain(str(path))} as it is: {plain(reason)}", err=True)
    for note in notes:
        click.echo(f"p2pmirror {name}: {note}", err=True)
    sys.exit(0 if lenient or not done.left else 1 if done.is_empty else 3)


def _tell(done: Plan) -> None:
    for change in done.changes:
        click.echo(f"wrote {plain(str(change.path))}")
    for change in done.given_back:
        click.echo(
            f"gave back {plain(str(change.path))}" + ("" if change.after is not None else ", which was not there")
        )


def _object(done: Plan, *, dry_run: bool, restart: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "written": [str(change.path) for change in done.changes],
        "given_back": [str(change.path) for change in done.given_back],
        "left": [{"path": str(path), "reason": reason} for path, reason in done.left],
        "restart_needed": restart,
    }


def _diff(change: Change) -> str:
    """Return a change as `diff -u` shows it."""
    old, new = ("/dev/null" if text is None else str(change.path) for text in (change.present, change.after))
    before, after = (_lines(text or "") for text in (change.present, change.after))
    shown = difflib.unified_diff(before, after, plain(old), plain(new))
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in shown)


def _lines(text: str) -> list[str]:
    *lines, last = text.split("\n")
    return [f"{line}\n" for line in lines] + [last] * bool(last)


def _owner(text: str) -> str:
    if len(text) > OWNER_CHARS_MAX or not text.isprintable():
        raise ValueError(f"at most {OWNER_CHARS_MAX} printable characters")
    return text


def _roots(text: str) -> tuple[Path, ...]:
    roots = tuple(Path(part).absolute() for part in text.split(":") if part)
    if not roots or "\0" in text:
        raise ValueError("a directory, or several with colons between them")
    return roots
