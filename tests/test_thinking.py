"""Modules that only think: no clock, no chance of their own, no loop, no system, no log; time and chance come in.

They are also the modules that `make coverage` holds to every branch; the list stands once, in `tests/thinking.py`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.thinking import MODULES, ROOT

BANNED = frozenset(
    {"trio", "socket", "time", "random", "os", "logging", "threading", "subprocess", "select", "asyncio"}
)


def imported(tree: ast.AST) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each module that is imported anywhere in a file, and the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], frozenset()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0], frozenset(alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES)
def test_it_imports_nothing_that_acts(path: str) -> None:
    """A thinking module imports no trio, socket, time, os or logging, and of random only the type that it is given."""
    for module, names in imported(ast.parse((ROOT / path).read_text())):
        assert module not in BANNED or (module, names) == ("random", frozenset({"Random"})), f"{path} imports {module}"


@pytest.mark.parametrize("path", MODULES)
def test_it_waits_for_nothing(path: str) -> None:
    """A thinking module has no coroutine: what it decides is done by whoever asked."""
    tree = ast.parse((ROOT / path).read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


def test_the_whole_of_oci_thinks() -> None:
    """A new module of `oci` is held to the same."""
    there = {
        str(each.relative_to(ROOT)) for each in (ROOT / "p2pmirror/oci").glob("*.py") if each.name != "__init__.py"
    }
    assert there <= set(MODULES)


def test_the_list_names_files_that_exist() -> None:
    """A module that is moved is moved in the list."""
    assert [path for path in MODULES if not Path(ROOT / path).is_file()] == []
