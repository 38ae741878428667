"""The `p2pmirror` command: one small module a command, imported only when that command is called.

Laws: exit codes are 0 done, 1 failed, 2 usage, 3 partly done; results go to stdout and complaints to stderr; a
command's module is named like the command and holds it as `command`.
"""

from importlib import import_module
from typing import Final

import click

from p2pmirror.version import VERSION

COMMANDS: Final = {
    "agent": "Run this node's agent.",
    "status": "Show what an agent holds, knows and does.",
    "find": "Ask an agent who has an image or a blob.",
    "cache": "Bring images into a cache; list, remove, verify what is in it.",
    "configure": "Make containerd ask the agent first.",
    "unconfigure": "Give back what `configure` changed.",
    "doctor": "Say what is wrong on this node, and what to do.",
    "demo": "Run a cluster on this machine: five agents, one of which dies.",
}

HIDDEN: Final = ("wait-for-daemonset",)
"""What deployments call and people do not."""


class Commands(click.Group):
    """The commands by name; `agent` does not pay for what `demo` imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order in which people meet them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, None when there is none of this name."""
        del ctx
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


_EXAMPLE: Final = """\b
Example:
  p2pmirror agent --bootstrap dns:p2pmirror-router.kube-system.svc
  p2pmirror find docker.io/library/nginx:1.27
"""


@click.group(cls=Commands, epilog=_EXAMPLE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="p2pmirror", message="%(prog)s %(version)s")
def main() -> None:
    """Mirror container images between the nodes of a cluster."""
