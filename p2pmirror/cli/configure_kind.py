"""`p2pmirror configure kind`: print a cluster's configuration."""

from pathlib import Path
from typing import Final

import click

from p2pmirror.hostconfig.kind import Cluster, configuration

WORKERS_MAX: Final = 100  # more than fit on a machine

_EXAMPLE: Final = """\b
Example:
  p2pmirror configure kind --workers 2 > kind.yaml && kind create cluster --config kind.yaml
  p2pmirror configure containerd --config-path ./certs.d && p2pmirror configure kind --certs-d ./certs.d > kind.yaml
"""


@click.command(name="kind", epilog=_EXAMPLE)
@click.option(
    "--workers",
    metavar="N",
    default=2,
    show_default=True,
    type=click.IntRange(0, WORKERS_MAX),
    help="Nodes besides the control plane.",
)
@click.option(
    "--certs-d",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    help="A directory of this machine with hosts.toml files, to be /etc/containerd/certs.d of each node.",
)
@click.option(
    "--cache-dir",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    help="A directory of this machine for /var/lib/p2pmirror, with a part for each node: outlives the cluster.",
)
def command(*, workers: int, certs_d: Path | None, cache_dir: Path | None) -> None:
    """Print a configuration for `kind create cluster`: containerd patches and mounts.

    Without --certs-d the nodes' own directory is to be configured in them, as by an init container.
    """
    click.echo(configuration(Cluster(workers, certs_d, cache_dir)), nl=False)
