"""`p2pmirror configure k3s`: print or merge registries.yaml."""

from pathlib import Path
from typing import Final

import click

from p2pmirror.cli.asking import json_option, plain
from p2pmirror.cli.configure_options import address_option, dry_run_option, end, once, registry_option
from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import k3s, k3s_setup

_EXAMPLE: Final = """\b
Example:
  p2pmirror configure k3s > /etc/rancher/k3s/registries.yaml
  p2pmirror configure k3s --merge --dry-run
  p2pmirror configure k3s --merge /etc/rancher/rke2/registries.yaml --address http://127.0.0.1:29999

\b
Exit codes:
  0  printed, or the file is as it should be
  1  the file was left as it is; why is said on stderr
  2  a mistake in the call
"""


@click.command(name="k3s", epilog=_EXAMPLE)
@registry_option
@address_option
@click.option(
    "--merge",
    "file",
    metavar="[FILE]",
    is_flag=False,
    flag_value=k3s.FILE,
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Change this host's file instead of printing one.  [FILE: {k3s.FILE}]",
)
@dry_run_option
@json_option
def command(
    *, registries: tuple[str, ...], addresses: tuple[str, ...], file: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Print registries.yaml for k3s and RKE2, or merge it into this host's.

    With --merge what is there stays, byte for byte, and every registry that the file names is given the addresses too;
    `p2pmirror unconfigure --k3s` gives it back. k3s and rke2 read the file when they start, on servers and agents.
    """
    registries, addresses = once(registries), once(addresses)
    if file is None:
        click.echo(k3s.printed(registries, addresses), nl=False)
        return
    file = file.absolute()
    try:
        done = (k3s_setup.plan if dry_run else k3s_setup.configure)(file, registries, addresses)
    except BadRequest as error:
        raise click.ClickException(plain(str(error))) from None
    restart = bool(done.changes)
    notes = ["the file counts from the next start: restart k3s or rke2 on this node"] if restart and not dry_run else []
    end(done, name="configure k3s", dry_run=dry_run, as_json=as_json, notes=notes, restart=restart)
