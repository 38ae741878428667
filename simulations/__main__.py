"""`python -m simulations`: run a scenario, run many seeds of them, list them.

Laws: exit codes are 0 done, 1 a check did not hold or something broke, 2 wrong arguments (one line says what), 130
interrupted; results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import click

from simulations.commands import listing, running, swarming

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def simulations() -> None:
    """Run whole clusters of the agent's own code in one process, on virtual time."""


simulations.add_command(running.run)
simulations.add_command(swarming.swarm)
simulations.add_command(listing.list_scenarios)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell had it ignored
    try:
        code = simulations.main(arguments, prog_name="python -m simulations", standalone_mode=False)
    except click.ClickException as error:
        print(f"error: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
