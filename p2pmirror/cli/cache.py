"""`p2pmirror cache`: bring images into a cache, list, remove and verify what is in it."""

import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import trio

from p2pmirror.cli.asking import json_option, plain
from p2pmirror.cli.meter import Meter
from p2pmirror.cli.text import counted, duration, short_digest, size, table
from p2pmirror.config.quantities import parse_size
from p2pmirror.errors import MirrorError
from p2pmirror.oci import Invalid, Reference, TagName
from p2pmirror.operations.adding import Added, add
from p2pmirror.operations.holdings import Subject, holdings, remove, subject_of, verify
from p2pmirror.store.cache import CacheOptions, CacheStore
from p2pmirror.store.hostfiles import HostFiles

T = TypeVar("T")
_Command = TypeVar("_Command", bound=Callable[..., Any])

_EXAMPLE: Final = """\b
Example:
  p2pmirror cache add images.tar --cache-dir /var/lib/p2pmirror/cache
  p2pmirror cache list --cache-dir /var/lib/p2pmirror/cache
"""
_EXAMPLE_ADD: Final = """\b
Example:
  docker save nginx:1.27 redis:7 -o images.tar && p2pmirror cache add images.tar --cache-dir /var/lib/p2pmirror/cache
  skopeo copy docker://quay.io/org/app:v1 oci:app && p2pmirror cache add app --name quay.io/org/app:v1 --pin

\b
Exit codes:
  0  everything was added
  1  nothing was added
  2  a mistake in the call
  3  some of several archives were not added
"""
_EXAMPLE_LIST: Final = """\b
Example:
  p2pmirror cache list --cache-dir /var/lib/p2pmirror/cache
  p2pmirror cache list --blobs
  p2pmirror cache list --json
"""
_EXAMPLE_REMOVE: Final = """\b
Example:
  p2pmirror cache remove docker.io/library/nginx:1.27 --cache-dir /var/lib/p2pmirror/cache
  p2pmirror cache remove sha256:0d17b565c37bcbd895e9d92315a05c1c3c9a29f762b011a10c54a66cd53c9b31
"""
_EXAMPLE_VERIFY: Final = """\b
Example:
  p2pmirror cache verify --cache-dir /var/lib/p2pmirror/cache
  p2pmirror cache verify --remove --json
"""


@click.group(epilog=_EXAMPLE)
def command() -> None:
    """Bring images into a cache, and see to what is in it.

    The commands work on the directory, whether an agent is running or not; a running one sees what they did within
    seconds.
    """


def _dir_option(function: _Command) -> _Command:
    return click.option(
        "--cache-dir",
        "directory",
        metavar="DIR",
        required=True,
        envvar="P2PMIRROR_CACHE_DIR",
        type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
        help="The cache's directory.  [env: P2PMIRROR_CACHE_DIR]",
    )(function)


@command.command(name="add", epilog=_EXAMPLE_ADD)
@click.argument("sources", metavar="FILE|DIR...", nargs=-1, required=True)
@click.option("--name", metavar="REF", help="What the only image of the only archive is to be called.")
@click.option("--pin", is_flag=True, help="Never let go of these images by itself; `cache remove` does.")
@click.option(
    "--cache-max-bytes",
    metavar="SIZE",
    default="20Gi",
    show_default=True,
    envvar="P2PMIRROR_CACHE_MAX_BYTES",
    help="How much content the cache may have, as the agent has it.",
)
@_dir_option
@json_option
def add_command(
    sources: tuple[str, ...], name: str | None, directory: Path, cache_max_bytes: str, *, pin: bool, as_json: bool
) -> None:
    """Bring the images of archives into a cache, so that they are served without any registry.

    FILE is what `docker save`, `ctr images export` or `skopeo` write, a tar archive, plain or gzipped; DIR is a
    directory in OCI image layout. All of an archive is added, or nothing.
    """
    paths = [_path(source) for source in sources]
    if name is not None and len(paths) > 1:
        raise click.UsageError("--name is for one archive")
    try:
        tag = Reference.parse(name).with_default_tag().tag_name if name is not None else None
        bytes_max = parse_size(cache_max_bytes)
    except (Invalid, ValueError) as error:
        raise click.UsageError(f"{error}") from None
    if name is not None and tag is None:
        raise click.UsageError(f"--name {name}: an image is called by a tag, not by a digest")
    meter = Meter(sys.stderr)
    _run(partial(_add_all, paths, directory, bytes_max, tag, meter, pin=pin, as_json=as_json))


def _path(source: str) -> Path:
    path = Path(source)
    if path.exists():
        return path
    try:
        Reference.parse(source)
    except Invalid:
        raise click.UsageError(f"{source}: no such file or directory") from None
    raise click.UsageError(f"{source}: no such file or directory; of an image, add what docker save makes of it")


async def _add_all(
    paths: list[Path], directory: Path, bytes_max: int, tag: TagName | None, meter: Meter, *, pin: bool, as_json: bool
) -> int:
    store = await _looked_at(directory, CacheOptions(bytes_max=bytes_max))
    added, failed = list[tuple[Path, Added]](), list[tuple[Path, str]]()
    for path in paths:
        meter.begin(f"reading {path.name}")
        try:
            brought = await add(
                store, path, name=tag, pin=pin, reading=meter.add, writing=meter.then(f"adding {path.name}")
            )
        except MirrorError as error:
            failed.append((path, str(error)))
            click.echo(f"p2pmirror cache add: {path}: {plain(str(error))}", err=True)
        else:
            added.append((path, brought))
        meter.end()
        if not as_json and added and added[-1][0] == path:
            click.echo("\n".join(_describe(*added[-1])))
    if as_json:
        said = {
            "added": [_as_json(*each) for each in added],
            "failed": [{"file": str(path), "error": error} for path, error in failed],
        }
        click.echo(json.dumps(said))
    return 0 if not failed else 3 if added else 1


def _as_json(path: Path, added: Added) -> dict[str, Any]:
    images = [{"digest": str(each.root.digest), "tags": [str(tag) for tag in each.tags]} for each in added.images]
    return {"file": str(path), "images": images, "new_blobs": len(added.new), "new_bytes": added.new_bytes}


def _describe(path: Path, added: Added) -> list[str]:
    lines = [
        f"{path}: {counted(len(added.images), 'image')}, {counted(len(added.new), 'new blob')}, {size(added.new_bytes)}"
    ]
    for image in added.images:
        names = ", ".join(map(str, image.tags)) or "no name: it can be pulled by its digest alone; --name gives it one"
        lines.append(f"  {image.root.digest}  {names}")
    return lines


@command.command(name="list", epilog=_EXAMPLE_LIST)
@click.option("--blobs", is_flag=True, help="List every blob too.")
@_dir_option
@json_option
def list_command(directory: Path, *, blobs: bool, as_json: bool) -> None:
    """List the images in a cache: how large they are, since when they are there, when they were used last."""

    async def show() -> int:
        held = await holdings(await _looked_at(directory), time.time())
        click.echo(json.dumps(held) if as_json else "\n".join(_listed(held, blobs=blobs)))
        return 0

    _run(show)


def _listed(held: dict[str, Any], *, blobs: bool) -> list[str]:
    lines = [f"{counted(len(held['tags']), 'tag')}, {counted(len(held['blobs']), 'blob')}, {size(held['bytes'])}"]
    if held["tags"]:
        rows = [(each["name"], short_digest(each["digest"]), each["blobs"], *_times(each)) for each in held["tags"]]
        lines += ["", *table(("TAG", "DIGEST", "BLOBS", "SIZE", "AGE", "LAST USE", "PINNED"), rows)]
    if blobs and held["blobs"]:
        every = [(each["digest"], each["media_type"] or "-", *_times(each)) for each in held["blobs"]]
        lines += ["", *table(("DIGEST", "TYPE", "SIZE", "AGE", "LAST USE", "PINNED"), every)]
    return lines


def _times(each: dict[str, Any]) -> tuple[str, str, str, str]:
    return (
        size(each["bytes"]),
        duration(each["age_s"]),
        f"{duration(each['used_s'])} ago",
        "yes" if each["pinned"] else "-",
    )


@command.command(name="remove", epilog=_EXAMPLE_REMOVE)
@click.argument("what", metavar="REF|DIGEST...", nargs=-1, required=True)
@_dir_option
@json_option
def remove_command(what: tuple[str, ...], directory: Path, *, as_json: bool) -> None:
    """Remove images by tag, with what no other image needs, or single blobs by digest; pins of theirs too.

    Exit code 3: some of them were not there; 1: none was.
    """
    try:
        subjects = [subject_of(text) for text in what]
    except Invalid as error:
        raise click.BadParameter(str(error), param_hint="REF|DIGEST") from None
    _run(partial(_remove_all, subjects, directory, as_json=as_json))


async def _remove_all(subjects: list[Subject], directory: Path, *, as_json: bool) -> int:
    store = await _looked_at(directory)
    before = store.held_bytes
    gone, absent = await remove(store, subjects)
    freed = before - store.held_bytes
    for subject in absent:
        click.echo(f"p2pmirror cache remove: {subject} is not in {directory}", err=True)
    if as_json:
        said = {"removed": [str(each) for each in gone], "bytes": freed, "absent": [str(each) for each in absent]}
        click.echo(json.dumps(said))
    else:
        click.echo(f"removed {counted(len(gone), 'blob')}, {size(freed)}")
    return 0 if not absent else 1 if len(absent) == len(subjects) else 3


@command.command(name="verify", epilog=_EXAMPLE_VERIFY)
@click.option("--remove", "removing", is_flag=True, help="Remove what is wrong.")
@_dir_option
@json_option
def verify_command(directory: Path, *, removing: bool, as_json: bool) -> None:
    """Hash everything in a cache. Exit code 3: something was wrong."""
    _run(partial(_verify_all, directory, Meter(sys.stderr), removing=removing, as_json=as_json))


async def _verify_all(directory: Path, meter: Meter, *, removing: bool, as_json: bool) -> int:
    store = await _looked_at(directory)
    meter.begin("verifying", store.held_bytes)
    hashed, wrong = await verify(store, meter.add, remove=removing)
    meter.end()
    if as_json:
        said = {"verified": hashed, "wrong": [str(each) for each in wrong], "removed": removing}
        click.echo(json.dumps(said))
    else:
        what = "removed" if removing else "not removed: --remove does so"
        click.echo("\n".join([f"{counted(hashed, 'blob')} verified", *(f"{each} is wrong ({what})" for each in wrong)]))
    return 3 if wrong else 0


async def _looked_at(directory: Path, options: CacheOptions | None = None) -> CacheStore:
    store = CacheStore(directory, HostFiles(), options)
    await store.look()
    if store.trouble is not None:
        raise click.ClickException(store.trouble)
    return store


def _run(work: Callable[[], Awaitable[int]]) -> NoReturn:
    """Do the work and end with the exit code that it says, or with 1 and one line."""
    try:
        code = trio.run(work)
    except MirrorError as error:
        raise click.ClickException(plain(str(error))) from None
    sys.exit(code)
