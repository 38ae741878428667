"""All nodes want a key that nobody has, nearly at once; the one that leads dies in the middle; another one finishes it.

What is shown: one node leads, as far as a network that loses datagrams lets them agree; everybody else is told of a
node that leads; after a death the next one leads within a lease, or at once when somebody reports it; once somebody
has all of it nobody leads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from p2pmirror.routing.protocol import LEASE_S, Grant, Key, Offer
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.memory import Link
from simulations.scenario import Figure, parameter, scenario
from simulations.story import JOIN_LIMIT_S, KNOWN_ENOUGH
from simulations.world import Node, Simulation

ANSWER_S = 2.1  # a want takes no longer, with a turn of the loop
NEXT_S = LEASE_S + 1.0  # after a death somebody leads within this: the lease, and a pause between two questions
AGAIN_S = (0.3, 0.7)  # who follows asks again after a pause drawn from this
REPORT_S = 0.5  # DESIGN.md section 4, "Leader"
LEADS_S = 3.0  # before the leader dies, and again before the next one has finished
TOLD_S = 2.0  # what the one that finished says is known everywhere
LEADERS_MAX = 4  # at once, whatever is lost: more is no bad luck
PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class LeaderParameters:
    """See `scenario`."""

    within_s: float = parameter(0.1, "all want the key within so many seconds", low=0, high=60)
    loss: float = parameter(0.05, "of the datagrams are lost", low=0, high=0.3)
    dies: bool = parameter(default=True, help="the leader loses its power in the middle")
    reported: bool = parameter(default=False, help="those who follow it report that they could not dial it")
    seeds: int = parameter(0, "nodes that prefer to lead", low=0, high=100)


def _link(parameters: LeaderParameters) -> Link:
    """Return 1 to 2 ms a round trip, with losses."""
    return Link(latency_s=0.0005, jitter_s=0.0005, loss=parameters.loss)


class _Pull:
    """Everybody wants one key until somebody has it."""

    def __init__(self, sim: Simulation, parameters: LeaderParameters) -> None:
        self.sim = sim
        self.parameters = parameters
        self.key = Key(sim.random("key").randbytes(20))
        self.leaders: dict[int, float] = {}  # numbers of nodes that lead and live, and since when
        self.most = 0  # of them at once
        self.grants = 0
        self.wants = 0
        self.slowest_s = 0.0
        self.led: set[NodeId] = set()  # whoever was granted it
        self.named: set[NodeId] = set()  # to those who follow
        self.finished = False
        declare = sim.checks.declare
        self._in_time = declare("a want is answered within two seconds")
        self._few = declare("few lead at once, and one alone where nothing is lost")

    async def run(self, node: Node) -> None:
        """Want the key after a while, as often as needed; lead when this node is to."""
        random = self.sim.random(f"wants of {node.number}")
        await trio.sleep(random.uniform(0, self.parameters.within_s))
        while self._goes_on(node):
            grant = await self.want(node)
            if grant.leads:
                await self._lead(node)
            elif grant.leader is not None and self._goes_on(node):
                self._follow(node, grant.leader.node_id)
            await trio.sleep(random.uniform(*AGAIN_S))

    async def want(self, node: Node) -> Grant:
        """Ask once, and look at the answer."""
        began = self.sim.now
        grant = await node.router.want(self.key)
        took = self.sim.now - began
        self.wants += 1
        self.slowest_s = max(self.slowest_s, took)
        self._in_time.holds(took <= ANSWER_S, f"{node} waited {took:.3f} s")
        if grant.leader is not None:
            self.named.add(grant.leader.node_id)
        if node.up and grant.leads:
            self.grants += 1
            self.led.add(node.node_id)
            self.leaders[node.number] = self.sim.now
            self._count()
        return grant

    def _follow(self, node: Node, leader: NodeId) -> None:
        """Find out, if that is part of it, that the leader is dead; a seed that was named wants the key by itself."""
        member = next(each for each in self.sim.members if each.node_id == leader)
        if not member.up and self.parameters.reported:
            node.router.failed(leader)

    async def _lead(self, node: Node) -> None:
        """Report until this node has it, or dies."""
        count = 0
        while self._goes_on(node):
            node.router.report(self.key, count)
            count += PIECE_BYTES
            await trio.sleep(REPORT_S)
        if node.up:
            node.router.resign(self.key)

    def _goes_on(self, node: Node) -> bool:
        return node.up and not self.finished

    def _count(self) -> None:
        self.leaders = {n: since for n, since in self.leaders.items() if self.sim.members[n].up}
        self.most = max(self.most, len(self.leaders))
        few = LEADERS_MAX if self.parameters.loss else 1
        self._few.holds(len(self.leaders) <= few, f"{len(self.leaders)} lead at once")

    async def nobody_leads(self) -> str | None:
        """Say that nobody leads who lives."""
        return None if any(self.sim.members[number].up for number in self.leaders) else "nobody leads"


@scenario(
    "leader",
    "All nodes want at once what nobody has: one leads, and when it dies the next one does.",
    nodes=100,
    seconds=20,
    parameters=LeaderParameters,
    nodes_min=3,
    link=_link,
)
async def leader(sim: Simulation, parameters: LeaderParameters) -> Mapping[str, Figure]:
    """Let them want, kill who leads, let the next one finish."""
    nodes = [await sim.add_router(seed=number < parameters.seeds) for number in range(sim.nodes)]
    await sim.checks.declare("the cluster stands").within(JOIN_LIMIT_S, lambda: _ignorant(nodes), every_s=1.0)
    pull = _Pull(sim, parameters)
    seeds = {node.node_id for node in nodes[: parameters.seeds]}
    before, began = sim.trace.pieces("datagram"), sim.now
    for node in nodes:
        sim.nursery.start_soon(pull.run, node)
    leads = sim.checks.declare("somebody leads")
    await leads.within(ANSWER_S + parameters.within_s, pull.nobody_leads, every_s=0.01)
    await trio.sleep(LEADS_S)
    first_most, first_grants = pull.most, pull.grants
    next_s = await _next_leads(sim, pull) if parameters.dies else None
    await trio.sleep(LEADS_S)
    datagrams, seconds = sim.trace.pieces("datagram") - before, sim.now - began
    liars = pull.named - pull.led - seeds
    sim.checks.declare("whoever is named leads, or is a seed that is to lead").holds(not liars, f"{liars} never led")
    await _finish(sim, pull)
    return {
        "leaders_at_once_most": first_most,
        "leaders_granted": first_grants,
        "seconds_until_the_next_leads": None if next_s is None else round(next_s, 3),
        "leaders_granted_after_the_death": pull.grants - first_grants,
        "wants": pull.wants,
        "want_ms_max": round(1000 * pull.slowest_s, 1),
        "datagrams_per_node": round(datagrams / sim.nodes, 1),
        "seconds": round(seconds, 3),
    }


async def _ignorant(nodes: Sequence[Node]) -> str | None:
    """Say how many have not joined, or do not know enough of the others yet."""
    enough = min(len(nodes) - 1, KNOWN_ENOUGH)
    count = sum(not node.router.joined or len(node.router.members()) < enough for node in nodes)
    return f"{count} do not know enough" if count else None


async def _next_leads(sim: Simulation, pull: _Pull) -> float:
    """Let all who lead die; return after how many seconds another one leads."""
    for number in list(pull.leaders):
        sim.members[number].power_off()
    return await sim.checks.declare("after a death the next one leads").within(NEXT_S, pull.nobody_leads, every_s=0.01)


async def _finish(sim: Simulation, pull: _Pull) -> None:
    """Let one that leads have all of it; then nobody leads, whoever asks."""
    holder = next(sim.members[number] for number in pull.leaders if sim.members[number].up)
    holder.router.advertise({pull.key: Offer()})
    pull.finished = True
    await trio.sleep(TOLD_S)
    told = sim.checks.declare("once somebody has all of it nobody leads")
    for node in sim.alive():
        grant = await node.router.want(pull.key)
        is_told = node is holder or any(each.node_id == holder.node_id for each in grant.providers)
        told.holds(is_told and (node is holder or not grant.leads), f"{node} is told {grant}")
