"""`p2pmirror agent`: run this node's agent until it is told to stop."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Final, NoReturn

import click
import trio

from p2pmirror.config import SETTINGS, BadSetting, Config, load
from p2pmirror.node import Node
from p2pmirror.resolve.hashing import hashing_in_threads
from p2pmirror.rooms import Running, Seams
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.telemetry import logs
from p2pmirror.telemetry.metrics import new_registry
from p2pmirror.version import VERSION
from p2pmirror.wire.hosts import HostNetwork

_log = logging.getLogger(__name__)

_EXAMPLE: Final = """\b
Every setting is a flag, an environment variable (P2PMIRROR_ and its name in capitals) and a key in the file.

\b
Example:
  p2pmirror agent --bootstrap dns:p2pmirror-router.kube-system.svc --data-dir /var/lib/p2pmirror
  p2pmirror agent --store oci-layout:/srv/images --bootstrap static:10.0.0.7:29998

\b
Exit codes:
  0  stopped in order; what was not finished within --shutdown-grace was cut
  1  cut short by a second signal, or broken by a bug
  2  a setting that cannot be
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
    """Run this node's agent: answer containerd and peers.

    SIGTERM or SIGINT stops it in order: it is not ready, peers forget it, running responses are finished within
    --shutdown-grace. A second signal ends it at once.
    """
    try:
        config = load(os.environ, {key: text for key, text in flags.items() if text is not None}, file)
    except BadSetting as error:
        _refuse(error)
    logs.setup(config.log_level, config.log_format)
    try:
        in_order = trio.run(_run, config)
    except BaseExceptionGroup as group:
        wrong = group.subgroup(BadSetting)
        if wrong is None:
            raise
        _refuse(_first(wrong))
    sys.exit(0 if in_order else 1)


async def _run(config: Config) -> bool:
    """Run until a signal; return whether nothing was cut short by a second one."""
    seams = Seams(
        network=HostNetwork(),
        files=HostFiles(),
        random=SystemRandom(),
        hashing=hashing_in_threads(),
        registry=new_registry(VERSION),
    )
    node, signals = Node(config, seams), _Signals()
    async with trio.open_nursery() as nursery:
        await nursery.start(signals.obey, nursery.cancel_scope)
        async with trio.open_nursery() as inner:
            running = await inner.start(node.run, signals.stop)
            signals.has_started = True
            _say_where(running, config)
        nursery.cancel_scope.cancel()
    _say("agent.stopped", at_once=signals.cut_short)
    return not signals.cut_short


class _Signals:
    """What SIGTERM and SIGINT have asked for so far."""

    def __init__(self) -> None:
        self.stop = trio.Event()
        self.has_started = False
        self.cut_short = False

    async def obey(self, everything: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        """Set `stop` at the first signal, cancel everything at the second; before the start there is nothing to end."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            task_status.started()
            async for number in received:
                self.cut_short = self.stop.is_set() and self.has_started
                _say("agent.stopping", signal=signal.Signals(number).name, at_once=self.cut_short)
                if self.cut_short or not self.has_started:
                    everything.cancel()
                self.stop.set()


def _say_where(running: Running, config: Config) -> None:
    _say(
        "agent.running",
        version=VERSION,
        node_id=running.node_id.hex(),
        registry=str(running.registry_address),
        router=str(running.router_address),
        observability=str(running.observability_address),
        zone=config.zone,
        bootstrap=str(config.bootstrap) if config.bootstrap is not None else "none: a cluster of one",
    )


def _say(name: str, **fields: object) -> None:
    logs.event(_log, logging.INFO, name, fields)


def _first(group: BaseExceptionGroup[BadSetting]) -> BadSetting:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, BadSetting)
    return error


def _refuse(error: BadSetting) -> NoReturn:
    """Say what is wrong in one line and end with exit code 2."""
    click.echo(f"p2pmirror agent: {error}", err=True)
    sys.exit(2)
