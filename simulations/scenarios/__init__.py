"""The scenarios, one file each; a file is found by being here.

Laws: a scenario of the name `join-burst` lives in `join_burst.py`, or with its kin in another file; importing a file
registers what is in it, and does nothing else.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from simulations.scenario import SCENARIOS, Scenario


def load() -> list[Scenario]:
    """Import every scenario and return them by name."""
    for module in sorted(each.name for each in pkgutil.iter_modules(__path__)):
        import_module(f"{__name__}.{module}")
    return [SCENARIOS[name] for name in sorted(SCENARIOS)]


def find(name: str) -> Scenario | None:
    """Return the scenario of this name; None when there is none. Imports no more than it must."""
    module = name.replace("-", "_")
    if module.isidentifier() and any(each.name == module for each in pkgutil.iter_modules(__path__)):
        import_module(f"{__name__}.{module}")
    if name not in SCENARIOS:
        load()
    return SCENARIOS.get(name)
