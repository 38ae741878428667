"""`p2pmirror unconfigure`: give back what `configure containerd` changed."""

from pathlib import Path
from typing import Final

import click

from p2pmirror.cli.asking import json_option, plain
from p2pmirror.cli.configure_options import config_path_option, dry_run_option, end, owner_option
from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import k3s, k3s_setup
from p2pmirror.hostconfig.changing import Plan
from p2pmirror.hostconfig.containerd import other_owner, plan_back, unconfigure
from p2pmirror.hostconfig.names import HOSTS_FILE

_EXAMPLE: Final = """\b
Example:
  p2pmirror unconfigure --dry-run
  p2pmirror unconfigure
  p2pmirror unconfigure --config-path /etc/containerd/certs.d
  p2pmirror unconfigure --k3s

\b
Exit codes:
  0  nothing of p2pmirror is left
  1  nothing could be given back
  2  a mistake in the call
  3  some files were left as they are; why is said on stderr
"""


@click.command(epilog=_EXAMPLE)
@config_path_option
@click.option(
    "--k3s",
    "k3s_file",
    metavar="[FILE]",
    is_flag=False,
    flag_value=k3s.FILE,
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Give back what `configure k3s --merge` changed instead.  [FILE: {k3s.FILE}]",
)
@owner_option
@dry_run_option
@json_option
def command(*, roots: tuple[Path, ...], k3s_file: Path | None, owner: str, dry_run: bool, as_json: bool) -> None:
    """Give back what `configure` changed, byte for byte, modes and links included.

    What somebody changed in such a file since then stays; only what is ours goes. containerd's own configuration is
    given back too where `--daemon-config` had changed it. With --owner nothing is done where another one configured it.
    """
    try:
        if k3s_file is not None:
            file = k3s_file.absolute()
            done = k3s_setup.plan_back(file) if dry_run else k3s_setup.unconfigure(file)
        elif (other := other_owner(roots, owner)) is not None:
            done = Plan()
            click.echo(f"p2pmirror unconfigure: {roots[0]} is configured for {other}: left as it is", err=True)
        else:
            done = plan_back(roots) if dry_run else unconfigure(roots)
    except BadRequest as error:
        raise click.ClickException(plain(str(error))) from None
    restart = any(change.path.name != HOSTS_FILE for change in done.given_back)
    service = "containerd" if k3s_file is None else "k3s or rke2"
    notes = [f"its configuration is as it was: restart {service}"]
    shown = notes if restart and not dry_run else []
    end(done, name="unconfigure", dry_run=dry_run, as_json=as_json, notes=shown, restart=restart)
