"""`p2pmirror wait-for-daemonset`: wait until a DaemonSet is ready on every node, as the chart's hooks need it."""

import os
import sys
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Final

import click
import trio

from p2pmirror.cli.asking import plain
from p2pmirror.cli.text import duration
from p2pmirror.config.quantities import parse_duration
from p2pmirror.errors import MirrorError
from p2pmirror.kubernetes import Access, open_session
from p2pmirror.kubernetes.access import DIRECTORY
from p2pmirror.kubernetes.names import read_name
from p2pmirror.kubernetes.rollout import DaemonSetName, wait_until_ready
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.wire.hosts import HostNetwork

_EXAMPLE: Final = """\b
Example:
  p2pmirror wait-for-daemonset kube-system/p2pmirror-unconfigure --timeout 120s

\b
Exit codes:
  0  it is ready on every node
  1  it was not within the time, or there is no API to ask
  2  a mistake in the call
"""


@click.command(name="wait-for-daemonset", epilog=_EXAMPLE)
@click.argument("what", metavar="NAMESPACE/NAME")
@click.option("--timeout", metavar="DURATION", default="120s", show_default=True, help="How long to wait at most.")
@click.option(
    "--service-account",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=DIRECTORY,
    show_default=True,
    help="Where the kubelet mounts token and ca.crt.",
)
def command(what: str, timeout: str, service_account: Path) -> None:
    """Wait until a DaemonSet of this cluster is ready on every node, and print how far it is.

    It runs in a pod whose service account may get daemonsets (apps) in that namespace.
    """
    try:
        namespace, name = read_name(what)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAMESPACE/NAME") from None
    try:
        limit_s = parse_duration(timeout)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from None
    access = Access.of(os.environ, service_account)
    sys.exit(trio.run(_wait, DaemonSetName(namespace, name), access, limit_s))


async def _wait(name: DaemonSetName, access: Access, limit_s: float) -> int:
    told = ["the API has not answered yet"]

    def tell(now: str) -> None:
        told.append(plain(now))
        click.echo(f"{name}: {told[-1]}")

    sessions = partial(open_session, access, HostNetwork(), HostFiles(), SystemRandom())
    try:
        with trio.move_on_after(limit_s) as scope:
            await wait_until_ready(name, sessions, tell)
    except MirrorError as error:
        click.echo(f"p2pmirror wait-for-daemonset: {plain(str(error))}", err=True)
        return 1
    if scope.cancelled_caught:
        late = f"{name} was not ready within {duration(limit_s)}; last: {told[-1]}"
        click.echo(f"p2pmirror wait-for-daemonset: {late}", err=True)
        return 1
    return 0
