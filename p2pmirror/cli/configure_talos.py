"""`p2pmirror configure talos`: print patches of the machine configuration."""

import re
from typing import Final

import click

from p2pmirror.cli.configure_options import Read, address_option, once, registry_option
from p2pmirror.hostconfig.talos import Machine, patch, read_version

_EXAMPLE: Final = """\b
Example:
  p2pmirror configure talos > p2pmirror.yaml && talosctl patch machineconfig --nodes 10.0.0.2 --patch @p2pmirror.yaml
  p2pmirror configure talos --talos-version 1.13 --address http://127.0.0.1:29999 --address http://10.0.0.9:30500
"""


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ValueError("a namespace of Kubernetes, such as p2pmirror")
    return text


@click.command(name="talos", epilog=_EXAMPLE)
@registry_option
@address_option
@click.option(
    "--talos-version",
    "version",
    metavar="1.N",
    default="1.0",
    type=Read(read_version),
    help="The release: documents from 1.12 and 1.14 on.  [default: fields, which every release reads]",
)
@click.option(
    "--namespace",
    metavar="NAME",
    type=Read(_namespace),
    help="Let control planes make the agents' namespace, with the label that Pod Security asks for.",
)
@click.option("--no-fallback", is_flag=True, help="Never ask the registries themselves (skipFallback).")
def command(
    *,
    registries: tuple[str, ...],
    addresses: tuple[str, ...],
    version: tuple[int, int],
    namespace: str | None,
    no_fallback: bool,
) -> None:
    """Print patches of Talos' machine configuration: mirrors, and layers that are kept when they are unpacked.

    Nothing of a Talos host is written: `talosctl patch machineconfig` takes what is printed.
    """
    machine = Machine(once(registries), once(addresses), version, namespace or "", fallback=not no_fallback)
    click.echo(patch(machine), nl=False)
