"""Metrics under one rule of names, with labels that cannot grow without bound.

Laws:
- a name is `p2pmirror_<room>_<what>_<unit>`; counters end in `_total`, histograms in `_seconds` or `_bytes`;
- a label has a closed set of values, or a largest number of them; what is outside is counted under `other`;
- metrics live in the registry they were given, never in the process: many nodes run in one process.

Follows Prometheus' practices for naming and DESIGN.md, section "Logs and metrics".
"""

import platform
import re
from collections import Counter as Counts
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any, Final, Generic, Literal, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

PREFIX: Final = "p2pmirror"
OTHER: Final = "other"  # the value of a label for everything that is not among its own
ROOMS: Final = frozenset(
    {"front", "resolve", "routing", "peers", "upstream", "store", "cache", "wire", "node", "build"}
)
UNITS: Final = {
    "counter": frozenset({"total"}),
    "histogram": frozenset({"seconds", "bytes"}),
    # What a gauge counts is its unit; a new noun is added here, so that nobody invents a second word for the first.
    "gauge": frozenset(
        {"seconds", "bytes", "ratio", "info", "blobs", "tags", "keys", "records", "members", "requests", "connections"}
        | {"slots", "flights", "tasks", "peers", "registries", "leases", "troubles"}
    ),
}
_FOREIGN: Final = ("process_", "python_")  # what the client library collects about the process, under its own names
_WORDS: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")

Kind = Literal["counter", "gauge", "histogram"]
Labels = dict[str, Collection[str] | int]
"""A label's values, or, where they are not known beforehand (registries), how many of them there may be."""

_Child = TypeVar("_Child", Counter, Gauge, Histogram)


def new_registry(version: str) -> CollectorRegistry:
    """Return a registry for one agent: build info, the process and the garbage collector are in it already.

    Nodes that share a process (simulations) take a bare `CollectorRegistry` each.
    """
    # A second series for each counter, which no graph of ours asks for; the client library left this call untyped.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry(auto_describe=True)
    build_info(registry, version)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def build_info(registry: CollectorRegistry, version: str) -> None:
    """Say which version runs, on which Python, as the labels of a gauge that is always 1."""
    gauge = Gauge(
        f"{PREFIX}_build_info", "Version of the agent and of Python.", ["version", "python"], registry=registry
    )
    gauge.labels(version, platform.python_version()).set(1)


class Family(Generic[_Child]):
    """One metric with its labels; its children are made once, so that counting on the hot path is one look-up."""

    def __init__(self, metric: _Child, labels: Labels) -> None:
        """Bound `metric`, whose label names are the keys of `labels` in this order."""
        self._metric: Any = metric  # the constraint makes three types of it
        self._bounds = [frozenset(each) if not isinstance(each, int) else each for each in labels.values()]
        self._seen: list[set[str]] = [set() for _ in labels]
        self._children: dict[tuple[str, ...], _Child] = {}

    def child(self, *values: str) -> _Child:
        """Return the metric of these label values, given in order; without labels, the metric itself."""
        child = self._children.get(values)
        return child if child is not None else self._make(values)

    def _make(self, values: tuple[str, ...]) -> _Child:
        if len(values) != len(self._bounds):
            raise ValueError(f"{len(values)} values for {len(self._bounds)} labels")
        bounded = tuple(self._bounded(index, value) for index, value in enumerate(values))
        if bounded != values:
            return self.child(*bounded)  # not kept: there is no bound on what is outside
        child: _Child = self._metric.labels(*values) if values else self._metric
        self._children[values] = child
        return child

    def _bounded(self, index: int, value: str) -> str:
        bound, seen = self._bounds[index], self._seen[index]
        if not isinstance(bound, int):
            return value if value in bound else OTHER
        if value not in seen and len(seen) < bound:
            seen.add(value)
        return value if value in seen else OTHER


class Tally(Collector):
    """A counter for what happens thousands of times a second: to count is `counts[values] += 1`, without a lock.

    `counts` goes by the values of the labels, in their order, which are of a closed set: strings, or classes, which are
    told by their names in lower case. One thread counts; any may read.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        """Register it; `name` is without `_total`. ValueError when the registry has it already."""
        self.counts: Counts[tuple[Hashable, ...]] = Counts()
        self._name = name
        self._documentation = documentation
        self._labels = labels
        registry.register(self)

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Say the name, for the registry."""
        return [CounterMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Say what was counted, for the registry."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, count in list(self.counts.items()):
            family.add_metric([_spelled(value) for value in values], count)
        return [family]


def _spelled(value: Hashable) -> str:
    return value.__name__.lower() if isinstance(value, type) else str(value)


class Room:
    """Makes the metrics of one room: `Room(registry, "front").counter("requests_total", "…", {"kind": KINDS})`.

    Each raises ValueError for a name against the rule, which is a mistake of whoever wrote the call.
    """

    def __init__(self, registry: CollectorRegistry, room: str) -> None:
        """Register what is made with `registry`."""
        self._registry = registry
        self._room = room

    def counter(self, name: str, documentation: str, labels: Labels | None = None) -> Family[Counter]:
        """Make a counter; `name` ends in `_total`."""
        full = self._checked(name, "counter")
        return Family(Counter(full, documentation, list(labels or {}), registry=self._registry), labels or {})

    def gauge(self, name: str, documentation: str, labels: Labels | None = None) -> Family[Gauge]:
        """Make a gauge; `name` ends in its unit. A child can be read on demand: `.child().set_function(f)`."""
        full = self._checked(name, "gauge")
        return Family(Gauge(full, documentation, list(labels or {}), registry=self._registry), labels or {})

    def histogram(
        self, name: str, documentation: str, labels: Labels | None = None, *, buckets: Sequence[float]
    ) -> Family[Histogram]:
        """Make a histogram with these upper bounds; `name` ends in `_seconds` or `_bytes`."""
        full = self._checked(name, "histogram")
        metric = Histogram(full, documentation, list(labels or {}), registry=self._registry, buckets=buckets)
        return Family(metric, labels or {})

    def _checked(self, name: str, kind: Kind) -> str:
        full = f"{PREFIX}_{self._room}_{name}"
        if complaint := complaint_about(full, kind):
            raise ValueError(complaint)
        return full


def complaint_about(name: str, kind: str) -> str | None:
    """Say what is wrong with a metric's full name, None when nothing is."""
    words = name.split("_")
    words_min = 4 if kind == "counter" else 3  # `cache_bytes` says what it is, `front_total` does not
    if _WORDS.fullmatch(name) is None or words[0] != PREFIX or len(words) < words_min:
        return f"{name} is not {PREFIX}_<room>_<what>_<unit>"
    if words[1] not in ROOMS:
        return f"{name}: {words[1]} is no room"
    if words[-1] not in UNITS.get(kind, frozenset()):
        return f"{name}: a {kind} ends in one of {', '.join(sorted(UNITS.get(kind, ())))}"
    return None


def lint(registry: CollectorRegistry) -> list[str]:
    """Return a complaint for each registered metric against the rule: its name, its labels, its documentation."""
    complaints = []
    for metric in registry.collect():
        if metric.name.startswith(_FOREIGN):
            continue
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        if complaint := complaint_about(name, metric.type):
            complaints.append(complaint)
        if not metric.documentation:
            complaints.append(f"{name}: nothing says what it counts")
        labels = {label for sample in metric.samples for label in sample.labels}
        complaints.extend(f"{name}: label {label}" for label in sorted(labels) if not _WORDS.fullmatch(label))
    return complaints
