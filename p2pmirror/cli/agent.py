"""`p2pmirror agent`: run this node's agent until it is told to stop."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Final

import click
import trio

from p2pmirror.config import SETTINGS, BadSetting, Config, load
from p2pmirror.node import Node, Running, Seams
from p2pmirror.resolve.hashing import hashing_in_threads
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.telemetry import logs
from p2pmirror.telemetry.metrics import new_registry
from p2pmirror.version import VERSION
from p2pmirror.wire.hosts import HostNetwork

_EXAMPLE: Final = """\b
Every setting is a flag, an environment variable (P2PMIRROR_ and its name in capitals) and a key in the file.

\b
Example:
  p2pmirror agent --bootstrap dns:p2pmirror-router.kube-system.svc --data-dir /var/lib/p2pmirror
  p2pmirror agent --store oci-layout:/srv/images --bootstrap static:10.0.0.7:29998
"""


def _flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add a flag for each setting."""
    for setting in reversed(SETTINGS):
        shown = f"{setting.help}  [default: {setting.default}]" if setting.default else setting.help
        command = click.option(setting.flag, setting.key, metavar="VALUE", help=shown)(command)
    return command


@click.command(epilog=_EXAMPLE)
@click.option("--config", "file", metavar="FILE", type=click.Path(path_type=Path), help="a settings file in TOML")
@_flags
def command(file: Path | None, **flags: str | None) -> None:
    """Run this node's agent: answer containerd and peers, until SIGTERM or SIGINT. A second signal ends it at once."""
    try:
        config = load(os.environ, {key: text for key, text in flags.items() if text is not None}, file)
    except BadSetting as error:
        _refuse(error)
    logs.setup(config.log_level, config.log_format)
    try:
        trio.run(_run, config)
    except* BadSetting as group:
        _refuse(_first(group))


async def _run(config: Config) -> None:
    seams = Seams(
        network=HostNetwork(),
        files=HostFiles(),
        random=SystemRandom(),
        hashing=hashing_in_threads(),
        registry=new_registry(VERSION),
    )
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            running = await nursery.start(_node, nursery, Node(config, seams), stop)
            _say_where(running, config)
            async for number in signals:
                if stop.is_set():
                    _log_event("agent.cut", signal=signal.Signals(number).name)
                    nursery.cancel_scope.cancel()
                    break
                _log_event("agent.stopping", signal=signal.Signals(number).name)
                stop.set()


async def _node(
    nursery: trio.Nursery, node: Node, stop: trio.Event, *, task_status: trio.TaskStatus[Running]
) -> None:
    """Run the node, and end the wait for signals with it."""
    await node.run(stop, task_status=task_status)
    _log_event("agent.stopped")
    nursery.cancel_scope.cancel()
