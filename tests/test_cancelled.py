"""Each public coroutine of the package is cancelled at every checkpoint by a named test, or it is said why not."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import p2pmirror
from tests.cancelled import CANCELLED, EXEMPT

ROOT = Path(__file__).parent.parent


def is_coroutine(value: object) -> bool:
    plain = inspect.unwrap(value) if callable(value) else value
    return inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)


def public_coroutines() -> Iterator[str]:
    """Yield the async functions and methods without an underscore, but not those that a protocol declares."""
    for found in pkgutil.walk_packages(p2pmirror.__path__, "p2pmirror."):
        if any(part.startswith("_") for part in found.name.split(".")) or found.name.endswith("_pb2"):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != found.name:
                continue
            full = f"{found.name.removeprefix('p2pmirror.')}.{name}"
            if is_coroutine(value):
                yield full
            elif inspect.isclass(value) and not getattr(value, "_is_protocol", False):
                members = ((each, getattr(member, "__func__", member)) for each, member in vars(value).items())
                yield from (f"{full}.{each}" for each, member in members if each[0] != "_" and is_coroutine(member))


def names(table: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return every name in a table, in full."""
    rows = [row.split(": ") for entry in table.values() for row in entry]
    return [f"{owner}.{name}" for owner, members in rows for name in members.split()]


def test_every_coroutine_has_one_entry() -> None:
    """Whoever adds a coroutine says which test cancels it, or why none does; what is gone leaves the table."""
    there, said = set(public_coroutines()), names(CANCELLED) + names(EXEMPT)
    assert sorted(there - set(said)) == [], "without an entry in tests/cancelled.py"
    assert sorted(set(said) - there) == [], "in tests/cancelled.py, and gone"
    assert sorted({name for name in said if said.count(name) > 1}) == [], "twice in tests/cancelled.py"


def test_the_tests_that_are_named_cancel() -> None:
    """Each test in the table is there, in its file or in the suite of its class, and cancels at every checkpoint."""
    for test in CANCELLED:
        path, *_, name = test.split("::")
        sources = [ROOT / path, (ROOT / path).with_name("conformance.py"), ROOT / "tests/store/conformance.py"]
        bodies = [
            ast.unparse(node)
            for source in sources
            if source.is_file()
            for node in ast.walk(ast.parse(source.read_text()))
            if isinstance(node, ast.AsyncFunctionDef) and node.name == name
        ]
        assert any("cancel_at" in body for body in bodies), test
