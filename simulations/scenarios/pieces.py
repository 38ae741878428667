"""A stampede of many nodes, of which only the pieces are simulated: how near the last one comes to the optimum.

`cold-stampede` shows the same with whole agents, for as many nodes as a machine has seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import trio

from simulations import efficiency
from simulations.exchange import Exchange, Rules
from simulations.scenario import Figure, parameter, scenario
from simulations.world import Simulation

STEP_S = 1.0  # of the simulated time, after which others have their turn
TIMES_MAX = 20.0  # the optimum: whoever takes longer stands still


@dataclass(frozen=True)
class PiecesParameters:
    """What is pulled, and which of the agent's rules hold."""

    pieces: int = parameter(256, "pieces of the blob", low=1, high=4096)
    piece_s: float = parameter(0.336, "seconds that a node's link takes for a piece", low=0.001, high=100)
    upstream: float = parameter(1.0, "the registry's rate, times a node's", low=0.01, high=1000)
    spreads: bool = parameter(Rules.spreads, "the leader gives each piece to one; else it is asked as any peer")
    rarest: bool = parameter(Rules.rarest, "the rarest piece is asked for; else any")
    late: bool = parameter(Rules.late, "a piece that is late is asked for once more")
    slots: bool = parameter(Rules.slots, "a node sends peers away when it has as many uploads as are good")
    window_pieces: int = parameter(Rules.window_pieces, "pieces ahead of a reader that are asked for", low=1, high=4096)
    fetches: int = parameter(Rules.fetches, "pieces under way to a node, that it chose", low=1, high=64)
    turns: int = parameter(Rules.turns, "pieces under way from the leader", low=1, high=64)
    neighbours: int = parameter(Rules.neighbours, "nodes that a node knows, the leader among them", low=2, high=1024)
    news_s: float = parameter(Rules.news_s, "seconds until others know of a piece", low=0.001, high=60)


@scenario(
    "pieces",
    "Only the pieces of one blob, among up to thousands of nodes: how near the last one comes to the optimum.",
    nodes=100,
    seconds=30,
    parameters=PiecesParameters,
    nodes_min=2,
)
async def pieces(sim: Simulation, parameters: PiecesParameters) -> Mapping[str, Figure]:
    """Let all pull at once."""
    rules = Rules(**{field.name: getattr(parameters, field.name) for field in fields(Rules)})
    best_s = efficiency.optimum_s(sim.nodes, parameters.pieces, parameters.piece_s, parameters.upstream)
    exchange = Exchange(
        sim.nodes,
        parameters.pieces,
        parameters.piece_s,
        upstream=parameters.upstream,
        rules=rules,
        random=sim.random("pieces"),
    )
    began = sim.now
    while not exchange.is_over and sim.now - began < TIMES_MAX * best_s:
        exchange.fluid.run(sim.now - began + STEP_S)
        await trio.sleep(STEP_S)
    seconds = [peer.done_at for peer in exchange.peers[1:] if peer.done_at is not None]
    lacking = sim.nodes - 1 - len(seconds)
    sim.checks.declare("everybody has everything in the end").holds(
        not lacking, f"{lacking} of {sim.nodes} lack pieces"
    )
    return efficiency.figures(best_s, seconds or [TIMES_MAX * best_s]) | {"wasted_pieces": exchange.wasted}
