"""One run of a scenario, from its arguments to what came of it.

Laws: the same arguments give the same outcome but for the real seconds; whatever ends a run early is in the outcome,
with the command that replays it; nothing is left behind in the process, so that it may hold another run.
"""

from __future__ import annotations

import gc
import logging
import resource
import shlex
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

import trio
from prometheus_client import disable_created_metrics, enable_created_metrics

from simulations import clock
from simulations.checks import Violation
from simulations.scenario import BadValue, Figure, Scenario
from simulations.trace import Trace
from simulations.world import BugsEndTheRun, Simulation

RESERVED = frozenset(
    {"scenario", "nodes", "seed", "parameters", "trace_digest", "seconds_virtual", "seconds_real", "ok", "memory_bytes"}
    | {"checks", "datagrams", "datagram_bytes", "violated", "error", "replay"}
)
YOUNG_OBJECTS = (
    100_000  # allocations between two collections: a world has millions of live objects and makes few cycles
)


@dataclass(frozen=True)
class Run:
    """What is run: a scenario with its number of nodes, its seed, and the parameters that were set, as texts."""

    scenario: Scenario
    nodes: int
    seed: int
    given: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `BadValue` for what cannot be run."""
        if self.nodes < self.scenario.nodes_min:
            raise BadValue(f"{self.scenario.name} needs {self.scenario.nodes_min} nodes at least, not {self.nodes}")
        self.scenario.values(self.given)

    def arguments(self) -> list[str]:
        """Return the arguments of `python -m simulations` that run the same once more."""
        words = ["run", self.scenario.name, "--nodes", str(self.nodes), "--seed", str(self.seed)]
        return words + [word for name, text in self.given.items() for word in ("--set", f"{name}={text}")]

    def replay(self) -> str:
        """Return the whole command."""
        return shlex.join(["python", "-m", "simulations", *self.arguments()])


@dataclass
class Outcome:
    """What came of a run; `violated` and `error` tell why it failed, and both are None when it did not."""

    run: Run
    seconds_virtual: float = 0.0
    seconds_real: float = 0.0
    memory_bytes: int = 0  # the most that this process ever had resident
    trace_digest: str = ""
    datagrams: int = 0
    datagram_bytes: int = 0
    checks: dict[str, int] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    violated: Violation | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the scenario ended and every check held."""
        return self.violated is None and self.error is None

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        run = self.run
        values = vars(run.scenario.values(run.given))
        document: dict[str, Any] = {"scenario": run.scenario.name, "nodes": run.nodes, "seed": run.seed}
        document |= {"parameters": values, "trace_digest": self.trace_digest, "ok": self.ok}
        document |= {"seconds_virtual": self.seconds_virtual, "seconds_real": round(self.seconds_real, 3)}
        document |= {"memory_bytes": self.memory_bytes}
        document |= {"datagrams": self.datagrams, "datagram_bytes": self.datagram_bytes, "checks": self.checks}
        document |= self.figures
        if self.violated is not None:
            broken = self.violated
            document["violated"] = {"check": broken.check, "detail": broken.detail, "at_s": broken.at_s}
        if self.error is not None:
            document["error"] = "".join(traceback.format_exception_only(self.error)).strip()
        if not self.ok:
            document["replay"] = run.replay()
        return document


@dataclass(frozen=True)
class Glimpse:
    """What a run in progress shows."""

    seconds_virtual: float
    nodes: int
    datagrams: int


def play(run: Run, *, lines: TextIO | None = None, watch: Callable[[Glimpse], None] | None = None) -> Outcome:
    """Play a scenario and return what came of it.

    `lines` is written a line for each entry of the trace; `watch` is called every so often, and may be slow.
    KeyboardInterrupt goes through.
    """
    outcome = Outcome(run)
    began = time.perf_counter()
    time_of_run = clock.VirtualClock(limit_s=run.scenario.seconds_max)
    trace = Trace(time_of_run.current_time, lines)
    stage = _Stage(run, time_of_run, trace, outcome)
    if watch is not None:
        seen = watch
        time_of_run.on_turn = lambda: seen(stage.glimpse())
    with _logs_to(BugsEndTheRun(time_of_run, trace)), _metrics_without_dates(), _few_collections():
        try:
            outcome.figures = clock.run(stage.play, clock=time_of_run, seed=f"{run.seed}/scheduler")
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this run's outcome
            outcome.violated = _violation_in(error)
            outcome.error = error if outcome.violated is None else None
    outcome.seconds_virtual = time_of_run.current_time()
    outcome.seconds_real = time.perf_counter() - began
    outcome.memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    outcome.trace_digest = trace.digest
    outcome.datagrams, outcome.datagram_bytes = trace.pieces("datagram"), trace.bytes("datagram")
    return outcome


class _Stage:
    """Sets a simulation up, plays the story in it, and ends everything."""

    def __init__(self, run: Run, time_of_run: clock.VirtualClock, trace: Trace, outcome: Outcome) -> None:
        self._run = run
        self._clock = time_of_run
        self._trace = trace
        self._outcome = outcome
        self._simulation: Simulation | None = None

    def glimpse(self) -> Glimpse:
        """Return how far it is."""
        alive = len(self._simulation.members) if self._simulation is not None else 0
        return Glimpse(self._clock.current_time(), alive, self._trace.pieces("datagram"))

    async def play(self) -> Mapping[str, Figure]:
        """Play it; return its figures. Raises `Violation`, and whatever a bug raises."""
        scenario = self._run.scenario
        values = scenario.values(self._run.given)
        async with trio.open_nursery() as nursery:
            simulation = self._simulation = Simulation(
                self._run.seed,
                self._run.nodes,
                link=scenario.link(values),
                clock=self._clock,
                trace=self._trace,
                nursery=nursery,
            )
            figures = await scenario.story(simulation, values)
            self._outcome.checks = simulation.checks.finish()
            if reserved := RESERVED & figures.keys():
                raise ValueError(f"{scenario.name} calls figures {', '.join(sorted(reserved))}, which are taken")
            nursery.cancel_scope.cancel()
        return figures


@contextmanager
def _logs_to(handler: logging.Handler) -> Iterator[None]:
    """Let what the agent logs go to `handler` alone."""
    logger = logging.getLogger("p2pmirror")
    before = logger.propagate, logger.level, logger.handlers[:]
    logger.propagate, logger.handlers[:] = False, [handler]
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.propagate, logger.handlers[:] = before[0], before[2]
        logger.setLevel(before[1])


@contextmanager
def _metrics_without_dates() -> Iterator[None]:
    """Let metrics not say when they were made, as the agent does: the client library reads the real clock for it."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        enable_created_metrics()  # type: ignore[no-untyped-call]


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for cycles rarely: each look costs time in proportion to all that lives."""
    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.collect()


def _violation_in(error: BaseException) -> Violation | None:
    """Return the first violation in a group, in the order in which a person reads it; None when there is none."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _violation_in(each)) is not None), None)
    return error if isinstance(error, Violation) else None
