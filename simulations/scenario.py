"""What a scenario is: a name, a sentence, parameters, and the story that it plays in a `Simulation`.

Laws: a parameter has a type, a default, a help and limits, so that a wrong value is refused before anything runs; there
is one scenario of a name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from p2pmirror.wire.memory import Link

if TYPE_CHECKING:
    from simulations.world import Simulation

Figure = bool | int | float | str | None | list[Any] | dict[str, Any]
Story = Callable[["Simulation", Any], Awaitable[Mapping[str, Figure]]]

SECONDS_MAX = 7 * 24 * 3600.0  # virtual: a week is the longest story that anybody has told here

_Told = TypeVar("_Told", bound=Callable[..., Awaitable[Mapping[str, Figure]]])

SCENARIOS: dict[str, Scenario] = {}


def _lan(parameters: object) -> Link:
    """Return 1 to 2 ms a round trip: a cluster over some zones of one region."""
    del parameters
    return Link(latency_s=0.0005, jitter_s=0.0005)


class BadValue(ValueError):
    """A parameter that does not exist, or a value that it does not take; one line for people."""


@dataclass(frozen=True)
class NoParameters:
    """The parameters of a scenario that has none."""


@dataclass(frozen=True)
class Scenario:
    """`shows` is one sentence; `parameters` a frozen dataclass of `parameter` fields; `seconds` what a run costs."""

    name: str
    shows: str
    nodes: int
    seconds: float  # real ones, of a run with its defaults on one core
    story: Story
    parameters: type[Any] = NoParameters
    nodes_min: int = 1
    seconds_max: float = SECONDS_MAX  # virtual ones: a run that lasts longer has lost its way
    link: Callable[[Any], Link] = _lan  # what joins any two hosts, given the parameters

    def values(self, given: Mapping[str, str]) -> Any:
        """Return the parameters with `given` in place of defaults. Raises `BadValue`."""
        fields = {field.name: field for field in dataclasses.fields(self.parameters)}
        for name in given:
            if name not in fields:
                raise BadValue(f"{self.name} has no parameter {name!r}; it has {', '.join(fields) or 'none'}")
        return self.parameters(**{name: _read(fields[name], text) for name, text in given.items()})


def parameter(default: Any, help: str, *, low: float = -math.inf, high: float = math.inf) -> Any:  # noqa: A002
    """Return a field of a parameters' dataclass: its default (which gives the type), one line of help, its limits."""
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high})


def scenario(
    name: str,
    shows: str,
    *,
    nodes: int,
    seconds: float,
    parameters: type[Any] = NoParameters,
    nodes_min: int = 1,
    seconds_max: float = SECONDS_MAX,
    link: Callable[[Any], Link] = _lan,
) -> Callable[[_Told], _Told]:
    """Register the decorated `async def run(sim, parameters) -> figures` as a scenario; see `Scenario`."""

    def register(story: _Told) -> _Told:
        if name in SCENARIOS:
            raise ValueError(f"there are two scenarios of the name {name}")
        SCENARIOS[name] = Scenario(name, shows, nodes, seconds, story, parameters, nodes_min, seconds_max, link)
        return story

    return register


def _read(field: dataclasses.Field[Any], text: str) -> Any:
    kind: Any = type(field.default)
    try:
        value = _boolean(text) if kind is bool else kind(text)
    except ValueError:
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        raise BadValue(f"{field.name}={text}: allowed is {words.get(kind, 'a text')}") from None
    low, high = field.metadata["low"], field.metadata["high"]
    if isinstance(value, int | float) and not low <= value <= high:  # not a number is in no range either
        raise BadValue(f"{field.name}={text}: allowed is {low:g} to {high:g}")
    return value


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"
