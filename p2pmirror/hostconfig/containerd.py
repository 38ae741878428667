"""`configure containerd` and `unconfigure`: which files of a host are to say what.

Law: the wanted registries are all; what an earlier run wrote for others is given back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import changing, daemon, files
from p2pmirror.hostconfig.changing import Plan, add, add_back, carry_out, check_roots, said
from p2pmirror.hostconfig.hosts import Wanted, merged
from p2pmirror.hostconfig.ledger import Ledger
from p2pmirror.hostconfig.names import HOSTS_FILE
from p2pmirror.hostconfig.targets import certificates_in, own_directories, refuse_shadowing, targets


@dataclass(frozen=True, slots=True)
class Setup:
    """How a host is to be. `roots`: the directories of containerd's `config_path`, the ledger in the first.

    `daemon_config`: containerd's own configuration, where `config_path` is to be set in it.
    `owner`: for whom; what was done for another one is taken over only where `takes_over`.
    """

    roots: tuple[Path, ...]
    registries: tuple[str, ...]
    wanted: Wanted
    daemon_config: Path | None = None
    owner: str = ""
    takes_over: bool = False


def plan(setup: Setup) -> Plan:
    """Return what is to be done on this host. Raises `BadRequest` where nothing can be."""
    made = Plan()
    check_roots(setup.roots)
    if not setup.takes_over and (other := other_owner(setup.roots, setup.owner)) is not None:
        raise BadRequest(
            f"{setup.roots[0]} is configured for {other}, and not for {setup.owner}: "
            f"uninstall that, or `unconfigure --owner {other}`, or --take-over"
        )
    mode_max = files.SECRET_MODE if setup.wanted.headers else 0o7777
    with said(setup.roots[0]):
        wanted = targets(setup.roots, setup.registries)
    for target in wanted:

        def hosts(base: str | None, path: Path = target.path, server: str | None = target.server) -> str:
            refuse_shadowing(path, setup.roots)
            beside = None if base else certificates_in(path.parent)
            return merged(base or "", setup.wanted, server, beside)

        add(made, target.path, hosts, mode_max)
    paths = {target.path for target in wanted}
    if setup.daemon_config is not None:
        roots = ":".join(map(str, setup.roots))
        paths.add(setup.daemon_config)
        add(made, setup.daemon_config, lambda base: daemon.with_config_path(base or "", roots))
    for path in Ledger(setup.roots[0]).paths:
        if path not in paths and (setup.daemon_config is not None or path.name == HOSTS_FILE):
            add_back(made, path)
    return made


def configure(setup: Setup) -> Plan:
    """Do what is to be done; return what was. Raises `BadRequest` where nothing could be."""
    return carry_out(setup.roots[0], lambda: plan(setup), setup.owner)


def other_owner(roots: Sequence[Path], owner: str) -> str | None:
    """Return for whom else a host was configured than for `owner`, where that is said. Raises `BadRequest`."""
    with said(roots[0]):
        known = Ledger(roots[0]).owner
    return known if owner and known and known != owner else None


def plan_back(roots: Sequence[Path]) -> Plan:
    """Return what `unconfigure` would do. Raises `BadRequest`."""
    check_roots(roots)
    with said(roots[0]):
        others = [directory / HOSTS_FILE for directory in own_directories(roots, with_default=True)]
    return changing.plan_back(roots[0], others)


def unconfigure(roots: Sequence[Path]) -> Plan:
    """Give back all that was changed; return what was. Raises `BadRequest` where nothing could be."""
    return changing.take_back(roots[0], lambda: plan_back(roots))
