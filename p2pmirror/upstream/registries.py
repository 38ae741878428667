"""All registries by name: what the settings say of each, and what is built in.

Laws: pure; a name that stands in no table and is not built in is not fetched from, whatever it looks like.
"""

from collections.abc import Iterable, Iterator

from p2pmirror.oci import canonical_registry
from p2pmirror.upstream.options import BUILT_IN, RegistryOptions, registry


class Registries:
    """The table; `configured` come from the settings and take the place of the built-in ones of their names."""

    def __init__(self, configured: Iterable[RegistryOptions] = ()) -> None:
        """ValueError when a name is there twice."""
        self._table = {name: registry(name) for name in BUILT_IN}
        self._configured: dict[str, RegistryOptions] = {}
        for each in configured:
            if each.name in self._configured:
                raise ValueError(f"{each.name} only once")
            self._configured[each.name] = each
        self._table |= self._configured

    def __iter__(self) -> Iterator[RegistryOptions]:
        return iter(self._table.values())

    @property
    def configured(self) -> frozenset[str]:
        """Names of those that the settings name."""
        return frozenset(self._configured)

    @property
    def through(self) -> frozenset[str]:
        """Names of those that are fetched from."""
        return frozenset(each.name for each in self if each.mode == "through")

    def get(self, name: str) -> RegistryOptions | None:
        """Return a registry's options by any of its names; None when it is not known."""
        return self._table.get(canonical_registry(name))
