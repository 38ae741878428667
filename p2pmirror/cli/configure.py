"""`p2pmirror configure`: make containerd ask the agent first, on this host or on one described elsewhere."""

from importlib import import_module
from typing import Final

import click

PLATFORMS: Final = {
    "containerd": "Write hosts.toml files on this host.",
    "k3s": "Print or write registries.yaml for k3s and RKE2.",
    "kind": "Print a cluster's configuration for kind.",
    "talos": "Print patches of Talos' machine configuration.",
}
_EXAMPLE: Final = """\b
Example:
  p2pmirror configure containerd --dry-run
  p2pmirror configure containerd --daemon-config
  p2pmirror configure talos --address http://127.0.0.1:29999 > p2pmirror.yaml
"""


class Platforms(click.Group):
    """One module a platform, imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        del ctx
        return list(PLATFORMS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, None when there is none of this name."""
        del ctx
        if cmd_name not in PLATFORMS:
            return None
        platform: click.Command = import_module(f"p2pmirror.cli.configure_{cmd_name}").command
        return platform


@click.group(cls=Platforms, epilog=_EXAMPLE)
def command() -> None:
    """Make containerd ask the agent first.

    `containerd` writes this host's files, `p2pmirror unconfigure` takes all of it back. The others print what their
    platform is to be given.
    """
