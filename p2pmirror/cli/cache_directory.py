"""What the `cache` commands share: the directory that they work on, and how they end."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import trio

from p2pmirror.cli.asking import plain
from p2pmirror.errors import BadRequest, MirrorError
from p2pmirror.store.cache import CacheOptions, CacheStore
from p2pmirror.store.hostfiles import HostFiles

_Command = TypeVar("_Command", bound=Callable[..., Any])


def directory_option(function: _Command) -> _Command:
    """Add `--cache-dir DIR` to a command."""
    return click.option(
        "--cache-dir",
        "directory",
        metavar="DIR",
        required=True,
        envvar="P2PMIRROR_CACHE_DIR",
        type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
        help="The cache's directory.  [env: P2PMIRROR_CACHE_DIR]",
    )(function)


async def looked_at(directory: Path, options: CacheOptions | None = None) -> CacheStore:
    """Return the cache in a directory, which has been looked at; `click.ClickException` when it cannot be."""
    store = CacheStore(directory, HostFiles(), options)
    await store.look()
    if store.trouble is not None:
        raise click.ClickException(store.trouble)
    return store


def run(work: Callable[[], Awaitable[int]]) -> NoReturn:
    """Do the work and end with the exit code that it says, or with one line and 1, or 2 for a mistake in the call."""
    try:
        code = trio.run(work)
    except BadRequest as error:
        raise click.UsageError(plain(str(error))) from None
    except MirrorError as error:
        raise click.ClickException(plain(str(error))) from None
    sys.exit(code)
