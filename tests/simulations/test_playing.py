"""Promises of simulations/playing.py, checks.py and scenario.py: what a run's outcome says."""

from __future__ import annotations

import json
import logging

import pytest
import trio

from simulations.checks import Violation
from simulations.clock import Deadlock, Overrun
from simulations.playing import Run, play
from simulations.scenario import SCENARIOS, BadValue, scenario
from tests.simulations.stories import Parameters, scenario_of, told


async def quiet(sim, parameters):
    """Do nothing."""
    return {"word": parameters.word}


def test_a_run_that_ends_well_says_so():
    """Its document has everything that scripts rely on, its figures among it, and nothing of a failure."""
    document = told(quiet).document()
    assert {"scenario", "nodes", "seed", "trace_digest", "seconds_virtual", "seconds_real", "ok", "checks"} <= set(
        document
    )
    assert (document["ok"], document["word"]) == (True, "quiet")
    assert not {"violated", "error", "replay"} & set(document)
    json.dumps(document)


def test_a_violated_check_ends_the_run_at_once():
    """The first check that does not hold ends everything at that moment; the outcome says what, when, and how again."""
    after: list[str] = []

    async def story(sim, parameters):
        check = sim.checks.declare("water is dry")

        async def look() -> None:
            await trio.sleep(2)
            check.holds(False, lambda: "it is wet")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.sleep(5)
            after.append("went on")
        return {}

    outcome = play(Run(scenario_of(story), 3, 7, {"count": "4"}))
    document = outcome.document()
    assert document["ok"] is False
    assert document["violated"] == {"check": "water is dry", "detail": "it is wet", "at_s": 2.0}
    assert document["replay"] == "python -m simulations run test --nodes 3 --seed 7 --set count=4"
    assert after == []


def test_a_violation_is_found_among_other_errors():
    """A check that fails together with something else is what is told."""

    async def story(sim, parameters):
        async def breaks() -> None:
            raise LookupError("too")

        async def look() -> None:
            sim.checks.declare("it").violated("it did not")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(breaks)
            nursery.start_soon(look)
        return {}

    outcome = told(story)
    assert isinstance(outcome.violated, Violation)
    assert outcome.error is None


def test_a_check_that_nobody_looked_at_fails():
    """A declared check proves nothing by itself."""

    async def story(sim, parameters):
        sim.checks.declare("nobody looks")
        return {}

    outcome = told(story)
    assert outcome.violated is not None
    assert "nobody ever looked" in outcome.violated.detail


def test_within_returns_how_long_it_took_and_fails_with_what_was_missing():
    """`within` waits, tells the virtual seconds, and after its limit says what was still wrong."""

    async def story(sim, parameters):
        check = sim.checks.declare("soon")

        async def missing() -> str | None:
            return None if sim.now >= 3 else "too early"

        took = await check.within(10, missing)
        again = await check.within(0, missing)

        async def never() -> str | None:
            return "the cat"

        try:
            await check.within(2, never)
        except Violation as violation:
            return {"took": took, "again": again, "seen": violation.detail, "now": sim.now}
        return {}

    assert told(story).figures == {"took": 3.0, "again": 0.0, "seen": "not within 2 s: the cat", "now": 5.0}


def test_a_bug_in_a_story_is_an_error_with_its_traceback():
    """Any other exception is the run's error: not ok, with the command that replays it."""

    async def story(sim, parameters):
        return {"x": 1 / 0}

    document = told(story).document()
    assert (document["ok"], document["error"]) == (False, "ZeroDivisionError: division by zero")
    assert "replay" in document


def test_a_story_that_hangs_or_never_ends_is_an_error():
    """Nothing left to happen, and a virtual time beyond the scenario's limit, end the run."""

    async def hangs(sim, parameters):
        await trio.Event().wait()

    async def endless(sim, parameters):
        while True:  # noqa: ASYNC110  # it is to be busy
            await trio.sleep(10)

    assert isinstance(told(hangs).error, Deadlock)
    assert isinstance(told(endless, seconds_max=1000.0).error, Overrun)


def test_an_error_in_the_agents_log_ends_the_run():
    """A bug that production code only logs is a violation, with the exception behind it; a warning is not."""

    async def story(sim, parameters):
        log = logging.getLogger("p2pmirror.somewhere")
        log.warning("the sky is grey")
        await trio.sleep(1)
        try:
            raise LookupError("behind it")
        except LookupError:
            log.exception("a bug ended it")
        await trio.sleep(1)
        return {}

    outcome = told(story)
    assert outcome.violated is not None
    assert (outcome.violated.detail, outcome.violated.at_s) == ("a bug ended it", 1.0)
    assert isinstance(outcome.violated.__cause__, LookupError)


def test_nothing_is_left_behind_in_the_process():
    """After a run the agent's logger is as it was, so that a process may hold many runs."""
    logger = logging.getLogger("p2pmirror")
    before = logger.propagate, logger.level, logger.handlers[:]
    told(quiet)
    assert (logger.propagate, logger.level, logger.handlers) == before


def test_a_figure_may_not_hide_a_word_of_the_run():
    """A story that calls a figure `ok` or `seed` is told so."""

    async def story(sim, parameters):
        return {"ok": True}

    assert isinstance(told(story).error, ValueError)


def test_parameters_are_read_by_their_types():
    """Each type is read from text; what is not given has its default."""
    values = scenario_of(quiet).values({"count": "4", "seconds": "2", "loud": "true", "word": "a=b"})
    assert values == Parameters(count=4, seconds=2.0, loud=True, word="a=b")
    assert scenario_of(quiet).values({}) == Parameters()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": "four"}, "whole number"),
        ({"count": "10"}, "1 to 9"),
        ({"seconds": "-1"}, "0 to inf"),
        ({"seconds": "nan"}, "0 to inf"),
        ({"loud": "yes"}, "true or false"),
        ({"size": "1"}, "no parameter 'size'"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(given, said):
    """One line names the parameter, the value and what is allowed."""
    with pytest.raises(BadValue, match=said) as refused:
        Run(scenario_of(quiet), 3, 1, given)
    assert "\n" not in str(refused.value)


def test_too_few_nodes_are_refused():
    """A scenario says how many nodes it needs."""
    with pytest.raises(BadValue, match="needs 3 nodes"):
        Run(scenario_of(quiet, nodes_min=3), 2, 1)


def test_there_is_one_scenario_of_a_name():
    """A second registration under a name is refused."""
    register = scenario("test-twice", "Nothing.", nodes=1, seconds=1)
    try:
        register(quiet)
        with pytest.raises(ValueError, match="two scenarios"):
            register(quiet)
    finally:
        del SCENARIOS["test-twice"]
