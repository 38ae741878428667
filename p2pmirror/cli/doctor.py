"""`p2pmirror doctor`: what is wrong on this node, and what to do about it."""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
import trio

from p2pmirror.cli.asking import agent_option, json_option, plain
from p2pmirror.cli.configure_options import address_option, config_path_option, once
from p2pmirror.cli.text import counted
from p2pmirror.config import BadSetting, Config, load
from p2pmirror.config.keyfile import BadKeyFile, read_keys
from p2pmirror.config.model import ContainerdStore
from p2pmirror.hostconfig import daemon
from p2pmirror.hostconfig.doctor import asking, node
from p2pmirror.hostconfig.doctor.daemon import config_files, config_findings, version_finding
from p2pmirror.hostconfig.doctor.finding import Finding, is_healthy
from p2pmirror.hostconfig.doctor.hosts import hosts_findings
from p2pmirror.store.hostfiles import HostFiles

_EXAMPLE: Final = """\b
Example:
  p2pmirror doctor
  p2pmirror doctor --config /etc/p2pmirror/config.toml --json
  p2pmirror doctor --address http://127.0.0.1:29999 --address http://10.0.0.9:30500

\b
Exit codes:
  0  nothing is bad; there may be warnings
  1  something is bad
  2  a mistake in the call
"""
_SHOWN: Final = {"ok": "ok  ", "warn": "WARN", "bad": "BAD ", "skip": "skip"}


@click.command(epilog=_EXAMPLE)
@config_path_option
@click.option(
    "--daemon-config",
    "main",
    metavar="FILE",
    default=daemon.CONFIG,
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="containerd's own configuration.",
)
@address_option
@agent_option
@click.option("--containerd-sock", "sock", metavar="FILE", help="containerd's socket.  [default: the agent's setting]")
@click.option(
    "--config",
    "settings",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The agent's settings file, if it has one; its environment is read from P2PMIRROR_….",
)
@json_option
def command(
    *,
    roots: tuple[Path, ...],
    main: Path,
    addresses: tuple[str, ...],
    agent: str,
    sock: str | None,
    settings: Path | None,
    as_json: bool,
) -> None:
    """Say what is wrong on this node and what to do about it. Changes nothing.

    Looks at containerd and its configuration, hosts.toml, the addresses that it is told to ask, the agent, its key and
    peers, and what these stand on: disk, clock, memory, processor. Run it as root, on the node or in the agent's pod.
    """
    config, wrong = _settings(settings, sock)
    found = [*wrong, *_containerd(config, roots, main.absolute()), *_asked(roots, once(addresses))]
    found += [*_agent(agent, config), *_machine(config)]
    if as_json:
        click.echo(json.dumps({"healthy": is_healthy(found), "checks": [asdict(each) for each in found]}))
    else:
        _tell(found)
    sys.exit(0 if is_healthy(found) else 1)


def _tell(found: list[Finding]) -> None:
    width = max(len(each.check) for each in found)
    for each in found:
        click.echo(f"{_SHOWN[each.level]}  {each.check.ljust(width)}  {plain(each.said)}")
        if each.todo:
            click.echo(f"      {' ' * width}  -> {plain(each.todo)}")
    bad, warned = (sum(each.level == level for each in found) for level in ("bad", "warn"))
    click.echo(f"{bad} bad, {counted(warned, 'warning')}" if bad or warned else "nothing is wrong")


def _settings(file: Path | None, sock: str | None) -> tuple[Config, list[Finding]]:
    """Return the agent's settings, or those of one without any, and what is wrong with them."""
    flags = {"containerd_sock": sock} if sock is not None else {}
    try:
        return load(os.environ, flags, file), []
    except BadSetting as error:
        said = Finding("settings", "bad", str(error), "an agent with these does not start: mend them")
        return load({}, {}), [said]


def _containerd(config: Config, roots: tuple[Path, ...], main: Path) -> Iterator[Finding]:
    """Ask containerd, and look at what it is told."""
    version = None
    if isinstance(store := config.store, ContainerdStore):
        version, content, reason = trio.run(asking.ask_containerd, store.sock, store.namespace)
        yield version_finding(version, store.sock, reason)
        content = store.content_path or content
        if version is not None:
            yield node.content_finding(content, is_readable=content is not None and asking.is_readable(content))
        if content is not None and (space := asking.space_at("containerd", content)) is not None:
            yield node.space_finding(space)
    parts, has_cache = config_files(main), config.cache is not None
    yield from config_findings(parts, main, roots, version, has_cache=has_cache, in_pod=_is_in_pod())


def _asked(roots: tuple[Path, ...], addresses: tuple[str, ...]) -> Iterator[Finding]:
    """Look at whom containerd is told to ask, and ask them as it would."""
    try:
        if _is_in_pod() and not any(root.exists() for root in roots):
            yield Finding("hosts", "skip", f"{roots[0]} is not mounted here: run this on the node to have it looked at")
        else:
            yield from hosts_findings(roots, addresses)
    except OSError as error:
        yield Finding("hosts", "bad", f"{error.filename}: {error.strerror}", "run this as root")
    for address in addresses:
        status, _, reason = asking.ask(f"{address}/v2/")
        yield node.port_finding(address, status, reason)


def _is_in_pod() -> bool:
    """Tell whether files of the node may be there and only not be mounted here."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def _agent(agent: str, config: Config) -> Iterator[Finding]:
    """Ask the agent, and look at its key."""
    status, reason = asking.ask_status(agent)
    yield from node.agent_findings(status, agent, reason)
    wrong = ""
    if config.peer_key_file is not None:
        try:
            trio.run(read_keys, HostFiles(), config.peer_key_file)
        except BadKeyFile as error:
            wrong = str(error)
    yield node.key_finding(config.peer_key_file, wrong, asking.keys_of(agent) if status is not None else None)


def _machine(config: Config) -> Iterator[Finding]:
    """Look at what an agent stands on."""
    yield node.clock_finding(time.time(), is_synchronised=asking.clock_is_synchronised())
    if config.cache is not None and (space := asking.space_at("the cache", config.cache.directory)) is not None:
        yield node.space_finding(space)
    yield from node.limits_findings(asking.agent_limits())
