"""`p2pmirror cache`: bring images into a cache, list, remove and verify what is in it."""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from p2pmirror.cli.asking import json_option
from p2pmirror.cli.cache_add import command as add_command
from p2pmirror.cli.cache_directory import directory_option, looked_at, run
from p2pmirror.cli.meter import Meter
from p2pmirror.cli.text import counted, duration, short_digest, size, table
from p2pmirror.oci import Invalid
from p2pmirror.operations.holdings import Subject, holdings, remove, subject_of, verify

_EXAMPLE: Final = """\b
Example:
  p2pmirror cache add images.tar --cache-dir /var/lib/p2pmirror/cache
  p2pmirror cache list --cache-dir /var/lib/p2pmirror/cache
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


@command.command(name="list", epilog=_EXAMPLE_LIST)
@click.option("--blobs", is_flag=True, help="List every blob too.")
@directory_option
@json_option
def list_command(directory: Path, *, blobs: bool, as_json: bool) -> None:
    """List the images in a cache: how large they are, since when they are there, when they were used last."""

    async def show() -> int:
        held = await holdings(await looked_at(directory), time.time())
        click.echo(json.dumps(held) if as_json else "\n".join(_listed(held, blobs=blobs)))
        return 0

    run(show)


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
@directory_option
@json_option
def remove_command(what: tuple[str, ...], directory: Path, *, as_json: bool) -> None:
    """Remove images by tag, with what no other image needs, or single blobs by digest; pins of theirs too.

    Exit code 3: some of them were not there; 1: none was.
    """
    try:
        subjects = [subject_of(text) for text in what]
    except Invalid as error:
        raise click.BadParameter(str(error), param_hint="REF|DIGEST") from None
    run(partial(_remove_all, subjects, directory, as_json=as_json))


async def _remove_all(subjects: list[Subject], directory: Path, *, as_json: bool) -> int:
    store = await looked_at(directory)
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
@directory_option
@json_option
def verify_command(directory: Path, *, removing: bool, as_json: bool) -> None:
    """Hash everything in a cache. Exit code 3: something was wrong."""
    run(partial(_verify_all, directory, Meter(sys.stderr), removing=removing, as_json=as_json))


async def _verify_all(directory: Path, meter: Meter, *, removing: bool, as_json: bool) -> int:
    store = await looked_at(directory)
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


command.add_command(add_command)
