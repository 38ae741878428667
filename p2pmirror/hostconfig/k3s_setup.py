"""`configure k3s --merge` and its way back: registries.yaml of this host, with the ledger beside it."""

from pathlib import Path

from p2pmirror.hostconfig import changing
from p2pmirror.hostconfig.changing import Plan, add
from p2pmirror.hostconfig.k3s import merged


def plan(file: Path, registries: tuple[str, ...], addresses: tuple[str, ...]) -> Plan:
    """Return what is to be done. Raises `BadRequest` where nothing can be."""
    made = Plan()
    changing.check_roots([file.parent])
    add(made, file, lambda base: merged(base or "", registries, addresses))
    return made


def configure(file: Path, registries: tuple[str, ...], addresses: tuple[str, ...]) -> Plan:
    """Do it; return what was done. Raises `BadRequest` where nothing could be."""
    return changing.carry_out(file.parent, lambda: plan(file, registries, addresses))


def plan_back(file: Path) -> Plan:
    """Return what is to be given back. Raises `BadRequest`."""
    return changing.plan_back(file.parent, [file])


def unconfigure(file: Path) -> Plan:
    """Give it back; return what was. Raises `BadRequest` where nothing could be."""
    return changing.take_back(file.parent, lambda: plan_back(file))
