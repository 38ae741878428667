"""`p2pmirror configure containerd`: write hosts.toml files that name the agent before the registries."""

from pathlib import Path
from typing import Final

import click

from p2pmirror.cli.asking import json_option, plain
from p2pmirror.cli.configure_options import (
    CERTS_D,
    Read,
    address_option,
    config_path_option,
    dry_run_option,
    end,
    lenient_option,
    once,
    owner_option,
    registry_option,
)
from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import daemon
from p2pmirror.hostconfig.addresses import read_capabilities, read_dial_timeout, read_header
from p2pmirror.hostconfig.changing import Plan
from p2pmirror.hostconfig.containerd import Setup, configure, plan
from p2pmirror.hostconfig.hosts import Wanted
from p2pmirror.hostconfig.names import server_of
from p2pmirror.hostconfig.notes import notes_on

_EXAMPLE: Final = """\b
Example:
  p2pmirror configure containerd --dry-run
  p2pmirror configure containerd --daemon-config
  p2pmirror configure containerd --address http://127.0.0.1:29999 --address http://10.0.0.9:30500
  p2pmirror configure containerd --registry docker.io --registry ghcr.io

\b
Exit codes:
  0  everything is as it should be
  1  nothing could be written
  2  a mistake in the call
  3  some files were left as they are; why is said on stderr (with --lenient, 1 and 3 are 0)
"""


@click.command(name="containerd", epilog=_EXAMPLE)
@config_path_option
@registry_option
@address_option
@click.option(
    "--capabilities",
    metavar="LIST",
    default="pull,resolve",
    show_default=True,
    type=Read(read_capabilities),
    help="What the addresses are asked for; without resolve, tags are asked of the registry alone.",
)
@click.option(
    "--dial-timeout",
    metavar="DURATION",
    default="200ms",
    show_default=True,
    type=Read(read_dial_timeout),
    help="How long containerd tries to connect to an address (2.1 and newer; others wait 30 s); 0: not written.",
)
@click.option(
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    type=Read(read_header),
    help="A header for requests to the addresses; repeat it. The files are then readable for root alone.",
)
@click.option("--no-fallback", is_flag=True, help="Never ask the registries themselves; other hosts in a file stay.")
@click.option(
    "--daemon-config",
    metavar="[FILE]",
    is_flag=False,
    flag_value=daemon.CONFIG,
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Set config_path in containerd's own configuration too.  [FILE: {daemon.CONFIG}]",
)
@click.option(
    "--legacy-mirrors", is_flag=True, help="Print registry.mirrors for a containerd without config_path; write nothing."
)
@owner_option
@click.option("--take-over", is_flag=True, help="Go on although the host was configured for another --owner.")
@lenient_option
@dry_run_option
@json_option
def command(
    *,
    roots: tuple[Path, ...],
    registries: tuple[str, ...],
    addresses: tuple[str, ...],
    capabilities: tuple[str, ...],
    dial_timeout: str,
    headers: tuple[tuple[str, str], ...],
    daemon_config: Path | None,
    no_fallback: bool,
    legacy_mirrors: bool,
    owner: str,
    take_over: bool,
    lenient: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write hosts.toml files that make containerd ask the agent first, and the registry when that cannot help.

    What is there stays: other hosts, comments, unknown keys, certificates, modes. It is kept in DIR/_p2pmirror, and
    `p2pmirror unconfigure` gives it back. containerd reads the files at each pull; only config_path, once, needs a
    restart. The call says how everything is to be: registries of an earlier call that it does not name are given back.
    """
    registries, addresses = once(registries), once(addresses)
    if legacy_mirrors:
        servers = {registry: server_of(registry) for registry in registries}
        click.echo(daemon.legacy_mirrors(registries, addresses, servers), nl=False)
        return
    wanted = Wanted(addresses, capabilities, dial_timeout, once(headers), fallback=not no_fallback)
    daemon_file = daemon_config.absolute() if daemon_config else None
    setup = Setup(roots, registries, wanted, daemon_file, owner, take_over)
    try:
        done = plan(setup) if dry_run else configure(setup)
    except BadRequest as error:
        if not lenient:
            raise click.ClickException(plain(str(error))) from None
        click.echo(f"p2pmirror configure containerd: {plain(str(error))}", err=True)
        return
    restart = _needs_restart(done, setup)
    notes = notes_on(setup, default_root=Path(CERTS_D), restart=restart and not dry_run)
    name = "configure containerd"
    end(done, name=name, dry_run=dry_run, as_json=as_json, notes=notes, restart=restart, lenient=lenient)


def _needs_restart(done: Plan, setup: Setup) -> bool:
    return any(change.path == setup.daemon_config for change in done.changes)
