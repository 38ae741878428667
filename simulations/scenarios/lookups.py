"""Lookups in a cluster of any size, in the moment in which a part of it has lost its power and nobody knows yet.

What is shown: as many hops as theory gives for tables and holders of this size; what somebody has is found, and how
fast, though contacts and providers are dead; ten seconds later no dead provider is handed out.
"""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean

import trio

from p2pmirror.routing.dht.answers import CONTACTS_PER_PROVIDERS
from p2pmirror.routing.dht.lookup import ALPHA, HOLDERS
from p2pmirror.routing.dht.table import CONTACTS_MAX
from p2pmirror.routing.dht.view import View
from p2pmirror.routing.protocol import Key, Offer, Provider, Trace
from p2pmirror.wire.identity import NodeId
from simulations.scenario import Figure, parameter, scenario
from simulations.theory import REFERENCE_HOPS, REFERENCE_K, Cluster, filled_sizes, paper_sizes, window_hops
from simulations.world import Node, Simulation

STARTS_PER_S = 150  # nodes that start in a second: an autoscaler that is in a hurry
SETTLE_S = 10.0  # after the last join: news and records have got around, and who came by is forgotten
ALONE_S = 1.0  # in which all lookups of one kind begin: a member is pinged once a second, so most dead ones are unknown
FORGOTTEN_S = 10.0  # after which nobody hands out the dead (DESIGN.md, section 4)
FOUND_SHARE_MIN = 0.999
FIRST_MS_P99_MAX = 50.0  # on links of 1 to 2 ms a round trip, while no more than a tenth is dead
FEW_DEAD = 0.1
RATIO_MIN, RATIO_MAX = 0.85, 1.15  # of the hops to those of theory
CANDIDATES = 20  # nodes drawn for each lookup, of which one asks: more than have a key
SAMPLE = 64  # nodes that are asked for their contacts


@dataclass(frozen=True)
class LookupsParameters:
    """See `scenario`."""

    dead: float = parameter(0.1, "of the nodes lose their power right before the lookups", low=0, high=0.9)
    keys: int = parameter(200, "keys that somebody has", low=1, high=100_000)
    providers: int = parameter(3, "nodes that have each of them", low=1, high=16)
    lookups: int = parameter(300, "lookups by `find`, and as many by `trace`", low=1, high=100_000)
    k: int = parameter(
        0, "contacts of a bucket at most, as in the paper; 0: the table as it is built", low=0, high=CONTACTS_MAX
    )
    r: int = parameter(HOLDERS, "nodes that hold each record", low=1, high=100)
    join: bool = parameter(default=True, help="nodes join; else they begin with ideal tables, in a tenth of the time")
    within_s: float = parameter(0.0, f"all nodes start within so many seconds; 0: {STARTS_PER_S} a second", low=0)


@dataclass
class _Found:
    """What a lookup gave; times in seconds from its beginning, None for what did not come."""

    asker: Node
    key: Key
    first_s: float | None = None  # a provider that is alive
    end_s: float | None = None
    providers: list[NodeId] = field(default_factory=list)
    trace: Trace | None = None


@scenario(
    "lookups",
    "What somebody has is found in as many hops as theory gives, soon after a part of the cluster died.",
    nodes=100,
    seconds=8,
    parameters=LookupsParameters,
    nodes_min=5,
)
async def lookups(sim: Simulation, parameters: LookupsParameters) -> Mapping[str, Figure]:
    """Start them, advertise, cut the power of some, and look keys up from the others."""
    found = sim.checks.declare("99.9 % of what a living node has is found")
    fast = sim.checks.declare("the first living provider comes within 50 ms in 99 of 100 lookups")
    as_theory = sim.checks.declare("hops are within 15 % of those of ideal tables")
    no_dead = sim.checks.declare("no provider is handed out ten seconds after it lost its power")
    resident_before = _resident_bytes()
    cluster = await _start_all(sim, parameters) if parameters.join else await _fill_all(sim, parameters)
    owners = await _advertise(sim, parameters)
    resident = _resident_bytes() - resident_before

    dead = _cut_power(sim, parameters.dead)
    dead_at = sim.now
    sought = {key: nodes for key, nodes in owners.items() if any(node.alive for node in nodes)}
    before = _lookup_datagrams(sim)
    finds = await _look_up(sim, parameters.lookups, sought, _find)
    datagrams = _lookup_datagrams(sim) - before
    traces = await _look_up(sim, parameters.lookups, sought, _trace)
    hops, expected = _hops(sim, cluster, parameters.r, traces, dead)
    figures = _times(finds) | _ways(traces) | _hop_figures(hops, expected)

    ratio = fmean(hops) / fmean(expected) if any(expected) else 1.0 + fmean(hops)
    as_theory.holds(RATIO_MIN <= ratio <= RATIO_MAX, f"{fmean(hops):.3f} and not {fmean(expected):.3f} hops")
    share = fmean(each.first_s is not None for each in finds)
    found.holds(share >= FOUND_SHARE_MIN, f"{share:.2%} are found")
    p99 = _percentile([1000 * each.first_s for each in finds if each.first_s is not None], 0.99)
    fast.holds(p99 <= FIRST_MS_P99_MAX or parameters.dead > FEW_DEAD, f"p99 is {p99:.1f} ms")

    await trio.sleep_until(dead_at + FORGOTTEN_S)
    for each in await _look_up(sim, parameters.lookups, sought, _find):
        wrong = dead.intersection(each.providers)
        no_dead.holds(not wrong, f"{each.asker} is told of {len(wrong)} dead ones")
    return figures | {
        "hops_ratio": round(ratio, 3),
        "hops_mean_reference": REFERENCE_HOPS.get(sim.nodes) if parameters.k == parameters.r == REFERENCE_K else None,
        "found_share": round(share, 5),
        "datagrams_per_lookup": round(datagrams / parameters.lookups, 2),
        "contacts_mean": round(_contacts_mean(sim), 1),
        "memory_bytes_per_node": resident // sim.nodes,
    }


# --- the story ---


async def _start_all(sim: Simulation, parameters: LookupsParameters) -> Cluster:
    """Start all nodes, evenly, and wait until they have joined; return the same cluster with ideal tables."""
    within_s = parameters.within_s or sim.nodes / STARTS_PER_S
    joined = sim.checks.declare("every node has joined")
    async with trio.open_nursery() as starting:
        for number in range(sim.nodes):
            node = await sim.add_router(start=False, holders=parameters.r, bucket_contacts_max=parameters.k or None)
            await trio.sleep_until(within_s * number / sim.nodes)
            starting.start_soon(node.start)
    await joined.within(60.0, lambda: _strangers(sim))
    await trio.sleep(SETTLE_S)
    return _ideal(sim, parameters)


async def _fill_all(sim: Simulation, parameters: LookupsParameters) -> Cluster:
    """Start all nodes with the contacts of ideal tables, as if each had been heard; return the cluster."""
    for _ in range(sim.nodes):
        await sim.add_router(bootstrap="", holders=parameters.r, bucket_contacts_max=parameters.k or None)
    cluster = _ideal(sim, parameters)
    by_id = {int.from_bytes(node.node_id, "big"): node for node in sim.members}
    for own_id, node in by_id.items():
        view = _view(node)
        for contact in cluster.table(own_id):
            view.met(_view(by_id[contact]).own, by_id[contact].address, sim.now)
        for stranger in cluster.turned_away(own_id):
            view.table.turn_away(by_id[stranger].node_id)
    await trio.sleep(SETTLE_S)
    return cluster


def _ideal(sim: Simulation, parameters: LookupsParameters) -> Cluster:
    sizes = paper_sizes(parameters.k) if parameters.k else filled_sizes(CONTACTS_MAX)
    ids = (int.from_bytes(node.node_id, "big") for node in sim.members)
    return Cluster(ids, sizes, sim.random("theory"))


def _view(node: Node) -> View:
    return node.router._view  # noqa: SLF001  # nobody but a simulation gives a router what it did not hear


async def _strangers(sim: Simulation) -> str | None:
    outside = [node for node in sim.members if not node.router.joined]
    return f"{len(outside)} have not, {outside[0]} for one" if outside else None


async def _advertise(sim: Simulation, parameters: LookupsParameters) -> dict[Key, list[Node]]:
    """Let some nodes have some keys; return who has which, when the holders know."""
    owners = {}
    for _ in range(parameters.keys):
        key = Key(sim.random("keys").randbytes(20))
        owners[key] = sim.random("owners").sample(sim.members, min(parameters.providers, sim.nodes - 1))
        for node in owners[key]:
            node.router.advertise({key: Offer()})
    await trio.sleep(SETTLE_S)
    return owners


def _cut_power(sim: Simulation, share: float) -> set[NodeId]:
    victims = sim.random("victims").sample(sim.members, int(sim.nodes * share))
    for node in victims:
        node.power_off()
    sim.trace.note(f"{len(victims)} nodes have no power")
    return {node.node_id for node in victims}


async def _look_up(
    sim: Simulation,
    count: int,
    owners: Mapping[Key, Sequence[Node]],
    one: Callable[[Simulation, _Found, set[NodeId]], Awaitable[None]],
) -> list[_Found]:
    """Look random keys up from random living nodes that do not have them, all within `ALONE_S`."""
    chance = sim.random("lookups")
    keys, living = list(owners), sim.alive()
    begun = sim.now
    all_found = []
    async with trio.open_nursery() as nursery:
        for number in range(count):
            key = chance.choice(keys)
            drawn = chance.sample(living, min(CANDIDATES, len(living)))
            asker = next(node for node in drawn if node not in owners[key])
            all_found.append(found := _Found(asker, key))
            await trio.sleep_until(begun + ALONE_S * number / count)
            nursery.start_soon(one, sim, found, {node.node_id for node in owners[key] if node.alive})
    return all_found


async def _find(sim: Simulation, found: _Found, living: set[NodeId]) -> None:
    began = sim.now
    async with found.asker.router.find(found.key) as channel:
        async for each in channel:
            if isinstance(each, Provider):
                found.providers.append(each.node_id)
                if found.first_s is None and each.node_id in living:
                    found.first_s = sim.now - began
    found.end_s = sim.now - began


async def _trace(sim: Simulation, found: _Found, living: set[NodeId]) -> None:
    del sim, living
    found.trace = await found.asker.router.trace(found.key)


# --- figures ---


def _hops(
    sim: Simulation, cluster: Cluster, holders: int, traces: Sequence[_Found], dead: set[NodeId]
) -> tuple[list[int], list[int]]:
    """Return the hops until somebody gave records, as they were and as ideal tables would have had them."""
    random = sim.random("theory")
    silent = {int.from_bytes(each, "big") for each in dead}
    real, ideal = [], []
    for each in traces:
        assert each.trace is not None
        gave = [step for step in each.trace.steps if step.records and step.answered_s is not None]
        key = int.from_bytes(each.key, "big")
        asker = int.from_bytes(each.asker.node_id, "big")
        expected = window_hops(
            cluster,
            asker,
            key,
            set(cluster.holders(key, holders)),
            alpha=ALPHA,
            answer=CONTACTS_PER_PROVIDERS,
            random=random,
            dead=silent,
        )
        if gave and expected is not None:
            real.append(min(gave, key=lambda step: step.answered_s or 0.0).hop)
            ideal.append(expected)
    return real, ideal


def _hop_figures(hops: Sequence[int], expected: Sequence[int]) -> dict[str, Figure]:
    return {
        "hops_mean": round(fmean(hops), 3),
        "hops_p50": _percentile(hops, 0.5),
        "hops_p99": _percentile(hops, 0.99),
        "hops_mean_theory": round(fmean(expected), 3),
    }


def _times(finds: Sequence[_Found]) -> dict[str, Figure]:
    first = [1000 * each.first_s for each in finds if each.first_s is not None]
    end = [1000 * each.end_s for each in finds if each.end_s is not None]
    figures: dict[str, Figure] = {}
    for name, values in (("first", first), ("end", end)):
        for word, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            figures[f"{name}_ms_{word}"] = round(_percentile(values, share), 3)
    return figures


def _ways(traces: Sequence[_Found]) -> dict[str, Figure]:
    asked = [each.trace.steps[1:] for each in traces if each.trace is not None]  # after this node itself
    return {
        "questions_per_trace": round(fmean(len(steps) for steps in asked), 2),
        "silent_per_trace": round(fmean(sum(step.answered_s is None for step in steps) for steps in asked), 2),
    }


def _percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that this share of all does not exceed; infinite when there are none."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)] if values else float("inf")


def _contacts_mean(sim: Simulation) -> float:
    living = sim.alive()
    asked = sim.random("sample").sample(living, min(SAMPLE, len(living)))
    return fmean(sum(each.state == "alive" for each in node.router.members()) for node in asked)


def _lookup_datagrams(sim: Simulation) -> float:
    """Return how many questions and answers of lookups all nodes together have sent so far."""
    value = sim.metrics.get_sample_value
    name = "p2pmirror_routing_datagrams_total"
    kinds = ("findproviders", "providers")
    return sum(value(name, {"kind": kind, "direction": "out"}) or 0.0 for kind in kinds)


def _resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
