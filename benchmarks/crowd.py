"""What an agent costs its node in a cluster of a hundred that is asked nothing: 100 real processes on this machine.

Laws:
- they are on addresses of the loopback interface: a hundred namespaces on a switch would need more neighbours than the
  kernel remembers, and cost time to make, without telling more;
- what is measured is taken by the agents' own clocks and counters, so that a machine with other work on it changes
  little: processor time is that of each process, packets are those that it counted, in and out;
- asking an agent for its counters costs it time, so that it is done before its clock is read, and after.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from benchmarks.places import Place
from benchmarks.processes import cpu_s, rss_mib
from benchmarks.rows import Budget, Row
from benchmarks.stage import Stage, process_of
from tests.lab.agent import Agent
from tests.lab.process import wait_until

BOOTSTRAP = 3  # agents that the others know of when they start
STARTING_AT_ONCE = 4  # agents: a start takes half a second of processor time, and is to become ready within seconds
ACQUAINTED_S = 60.0  # since the last one is ready: news takes a second or two, on a busy machine some more


@dataclass(frozen=True)
class _Cost:
    """What one agent took: processor time in seconds a second, packets a second, resident memory."""

    cpu: float
    packets_per_s: float
    rss_mib: float


def idle(stage: Stage) -> list[Row]:
    """Time, packets and memory of agents that know one another, hold nothing and are asked nothing."""
    count, seconds = stage.scale.crowd_agents, stage.scale.crowd_s
    began = time.perf_counter()
    with Place(on_loopback=True) as place:
        hosts = [place.host(f"n{number}") for number in range(count)]
        agents = [place.agent(host, hosts[:BOOTSTRAP], store="none") for host in hosts]
        _start(agents)
        for agent in agents:
            wait_until(partial(_knows, agent, count), f"{agent.host.name} knows all", timeout_s=ACQUAINTED_S)
        ready_s = time.perf_counter() - began
        time.sleep(stage.scale.settle_s)
        costs = _measure(agents, seconds)
    note = f"all know all {ready_s:.0f} s after the first start; {seconds:g} s at rest"
    name = f"idle among {count}"
    cpu, packets, rss = ([getattr(cost, field) for cost in costs] for field in ("cpu", "packets_per_s", "rss_mib"))
    return [
        Row(f"{name}, CPU, median", "%", median(cpu) * 100, budget=Budget("<=", 0.5), note=note),
        Row(f"{name}, CPU, most", "%", max(cpu) * 100, budget=Budget("<=", 0.5)),
        Row(f"{name}, packets, median", "1/s", median(packets), budget=Budget("<=", 50), note="in and out, as counted"),
        Row(f"{name}, packets, most", "1/s", max(packets), budget=Budget("<=", 50)),
        Row(f"{name}, memory, median", "MiB", median(rss), budget=Budget("<=", 60)),
        Row(f"{name}, memory, most", "MiB", max(rss), budget=Budget("<=", 60)),
    ]


def _start(agents: Sequence[Agent]) -> None:
    """Start them, the bootstrap first, a few at a time; each is ready at the end."""
    for first in range(0, len(agents), STARTING_AT_ONCE):
        few = agents[first : first + STARTING_AT_ONCE]
        for agent in few:
            agent.launch()
        for agent in few:
            agent.wait()


def _knows(agent: Agent, members: int) -> bool:
    """Tell whether an agent takes so many for alive, itself among them."""
    alive = [each for each in agent.status()["members"] if each["state"] == "alive"]
    return len(alive) >= members


def _measure(agents: Sequence[Agent], seconds: float) -> list[_Cost]:
    """Let them rest, and return what each took meanwhile."""
    packets = [(_packets(agent), time.perf_counter()) for agent in agents]
    cpu = [(cpu_s(process_of(agent).pid), time.perf_counter()) for agent in agents]
    time.sleep(seconds)
    spent = [_rate(cpu_s(process_of(agent).pid), *before) for agent, before in zip(agents, cpu, strict=True)]
    heard = [_rate(_packets(agent), *before) for agent, before in zip(agents, packets, strict=True)]
    rss = [rss_mib(process_of(agent).pid) for agent in agents]
    return [_Cost(*each) for each in zip(spent, heard, rss, strict=True)]


def _packets(agent: Agent) -> float:
    return agent.metric("routing_datagrams_total")


def _rate(now: float, then: float, at: float) -> float:
    return (now - then) / (time.perf_counter() - at)
