"""`p2pmirror cache add`: bring images into a cache, from archives or through the agent."""

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from p2pmirror.cli.asking import json_option, plain
from p2pmirror.cli.cache_directory import directory_option, looked_at, run
from p2pmirror.cli.meter import Meter
from p2pmirror.cli.text import counted, size
from p2pmirror.config.quantities import parse_size
from p2pmirror.errors import BadRequest, MirrorError
from p2pmirror.oci import Invalid, Reference, TagName
from p2pmirror.operations.adding import add
from p2pmirror.operations.pulling import Pulling, new_client, this_platform
from p2pmirror.store.cache import CacheOptions, CacheStore

AGENT_URL: Final = "http://127.0.0.1:29999"  # where an agent serves containerd unless it is told otherwise
_EXAMPLE: Final = """\b
Example:
  docker save nginx:1.27 redis:7 -o images.tar && p2pmirror cache add images.tar --cache-dir /var/lib/p2pmirror/cache
  skopeo copy docker://quay.io/org/app:v1 oci:app && p2pmirror cache add app --name quay.io/org/app:v1 --pin
  p2pmirror cache add docker.io/library/nginx:1.27 --platform all

\b
Exit codes:
  0  everything was added
  1  nothing was added
  2  a mistake in the call
  3  some of it was not added
"""


@dataclass(frozen=True, slots=True)
class _Adding:
    """How to add what was named."""

    name: TagName | None
    pin: bool
    agent: str
    platform: str
    as_json: bool


@click.command(name="add", epilog=_EXAMPLE)
@click.argument("sources", metavar="FILE|DIR|REF...", nargs=-1, required=True)
@click.option("--name", metavar="REF", help="What the only image of the only archive is to be called.")
@click.option("--pin", is_flag=True, help="Never let go of these images by itself; `cache remove` does.")
@click.option(
    "--agent", metavar="URL", default=AGENT_URL, show_default=True, help="For REF: the agent's registry port."
)
@click.option("--platform", metavar="OS/ARCH|all", default=this_platform, help="For REF; default: this machine's.")
@click.option(
    "--cache-max-bytes",
    metavar="SIZE",
    default="20Gi",
    show_default=True,
    envvar="P2PMIRROR_CACHE_MAX_BYTES",
    help="How much content the cache may have, as the agent has it.",
)
@directory_option
@json_option
def command(
    *,
    sources: tuple[str, ...],
    name: str | None,
    agent: str,
    platform: str,
    cache_max_bytes: str,
    directory: Path,
    pin: bool,
    as_json: bool,
) -> None:
    """Bring images into a cache, so that they are served without any registry.

    FILE is what `docker save`, `ctr images export` or `skopeo` write, a tar archive, plain or gzipped; DIR is a
    directory in OCI image layout. All of an archive is added, or nothing. REF is an image, pulled through a running
    agent as containerd would pull it.
    """
    found = [_source(text) for text in sources]
    if name is not None and (len(found) > 1 or not isinstance(found[0], Path)):
        raise click.UsageError("--name is for one archive")
    try:
        tag = Reference.parse(name).with_default_tag().tag_name if name is not None else None
        bytes_max = parse_size(cache_max_bytes)
    except (Invalid, ValueError) as error:
        raise click.UsageError(f"{error}") from None
    if name is not None and tag is None:
        raise click.UsageError(f"--name {name}: an image is called by a tag, not by a digest")
    adding = _Adding(tag, pin, agent, platform, as_json)
    run(partial(_add_all, found, directory, CacheOptions(bytes_max=bytes_max), adding))


def _source(text: str) -> Path | Reference:
    """Take what was named for a file where there is one, else for an image."""
    path = Path(text)
    if path.exists():
        return path
    try:
        return Reference.parse(text).with_default_tag()
    except Invalid:
        raise click.UsageError(f"{text}: no such file or directory, and no name of an image") from None


async def _add_all(sources: list[Path | Reference], directory: Path, options: CacheOptions, adding: _Adding) -> int:
    store = await looked_at(directory, options)
    added, failed, meter = list[dict[str, Any]](), list[dict[str, str]](), Meter(sys.stderr)
    for source in sources:
        try:
            brought = await _add_one(store, source, adding, meter)
        except BadRequest:
            raise
        except MirrorError as error:
            failed.append({"source": str(source), "error": str(error)})
            click.echo(f"p2pmirror cache add: {source}: {plain(str(error))}", err=True)
        else:
            added.append(brought)
            if not adding.as_json:
                click.echo("\n".join(_describe(brought)))
        meter.end()
    if adding.as_json:
        click.echo(json.dumps({"added": added, "failed": failed}))
    return 0 if not failed else 3 if added else 1


async def _add_one(store: CacheStore, source: Path | Reference, adding: _Adding, meter: Meter) -> dict[str, Any]:
    """Add what was named; return what `--json` prints of it."""
    held = len(store.entries)
    if isinstance(source, Path):
        meter.begin(f"reading {source.name}")
        writing = meter.then(f"adding {source.name}")
        brought = await add(store, source, name=adding.name, pin=adding.pin, reading=meter.add, writing=writing)
        images = [(image.root.digest, image.tags) for image in brought.images]
        new_bytes = brought.new_bytes
    else:
        meter.begin(f"pulling {source}")
        async with new_client() as client:
            pulled = await Pulling(store, client, adding.agent, adding.platform).pull(source, meter.add)
        tags = (source.tag_name,) if source.tag_name is not None and source.digest is None else ()
        if adding.pin:
            await store.pin(str(source.digest or source))
        images, new_bytes = [(pulled.root.digest, tags)], pulled.new_bytes
    return {
        "source": str(source),
        "images": [{"digest": str(digest), "tags": [str(tag) for tag in tags]} for digest, tags in images],
        "new_blobs": len(store.entries) - held,
        "new_bytes": new_bytes,
    }


def _describe(brought: dict[str, Any]) -> list[str]:
    new = f"{counted(brought['new_blobs'], 'new blob')}, {size(brought['new_bytes'])}"
    lines = [f"{brought['source']}: {counted(len(brought['images']), 'image')}, {new}"]
    for image in brought["images"]:
        names = ", ".join(image["tags"]) or "no name, so it can be pulled by its digest alone; --name gives one"
        lines.append(f"  {image['digest']}  {names}")
    return lines
