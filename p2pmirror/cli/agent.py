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
from p2pmirror.node import Node, Running, Seams
from p2pmirror.resolve.hashing import hashing_in_threads
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
    except BaseExceptionGroup as group:
        wrong = group.subgroup(BadSetting)
        if wrong is None:
            raise
        _refuse(_first(wrong))


async def _run(config: Config) -> None:
    seams = Seams(
        network=HostNetwork(),
        files=HostFiles(),
        random=SystemRandom(),
        hashing=hashing_in_threads(),
        registry=new_registry(VERSION),
    )
    node, stop = Node(config, seams), trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_obey_signals, stop, nursery.cancel_scope)
        async with trio.open_nursery() as inner:
            _say_where(await inner.start(node.run, stop), config)
        _say("agent.stopped")
        nursery.cancel_scope.cancel()


async def _obey_signals(stop: trio.Event, everything: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    """Set `stop` at the first signal, cancel everything at the second."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            _say("agent.stopping", signal=signal.Signals(number).name, at_once=stop.is_set())
            if stop.is_set():
                everything.cancel()
            stop.set()


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
    _log.warning("no cluster key is set: every client and every agent that reaches the ports is served")


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
