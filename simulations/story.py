"""What the stories of faults have in common: who has what, who looks for it, and what may never be seen meanwhile.

Laws, which `Story.watched` looks at all the time:
- nobody is handed out more than `DEAD_S` after it died, nor a moment after it left in order, nor at an address that it
  left, nor for a key that it never had;
- a lookup ends within `LOOKUP_S`, whatever happens around it;
- tables, members, news and records stay within their limits, and so do the datagrams of a node and of all together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from p2pmirror.routing.dht.members import MEMBERS_MAX, NEWS_HELD_MAX
from p2pmirror.routing.dht.placement import JITTER, RENEW_FRACTION, TTL_S
from p2pmirror.routing.dht.table import CONTACTS_MAX
from p2pmirror.routing.protocol import Key, Offer, Provider
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from simulations.nodes import RouterAlone
from simulations.scenario import Figure, parameter
from simulations.schedule import Schedule, Stop, play
from simulations.world import Node, Simulation

DEAD_S = 10.0  # a dead node may be handed out for so long (routing.protocol)
LEFT_S = 0.1  # one that said goodbye no longer than this after its process ended: what is on its way arrives
LOOKUP_S = 2.0  # a lookup's limits add up to less, a holder that pings its providers included
TICK_S = 0.25  # new lives are seen, and numbers taken, as often
SETTLING_S, WALKED_S = 1.0, 5.0  # what a router is told to say is known; what is in a layout is hashed, and said
FOUND_PERCENT_MIN = 99.0  # of the lookups of what was there for a while, and stayed
ASKED_MAX = 32  # nodes that are asked what they found, and looked into: of more, as many are drawn
KNOWN_ENOUGH = CONTACTS_MAX // 3  # contacts: of a large cluster a newcomer meets half a table, the rest comes by itself
JOIN_LIMIT_S = 60.0  # a cluster of any size stands within this
AT_ONCE = 64  # lookups at the same time, in the end
PAIRS_MAX = 600  # of a node and a key, that are looked up in the end: of more, as many are drawn
ASKED_FOR = {"findproviders", "providers"}  # kinds of datagrams that lookups cause, as often as somebody asks
RENEWED_S = TTL_S * RENEW_FRACTION * (1 + JITTER) + 5.0  # by then every record has been said again
PEAK_PER_NODE = 5000  # datagrams that one node sends in a second, lookups among them: everybody it knows a dozen times


@dataclass(frozen=True)
class StoryParameters:
    """What every story lets one choose."""

    keys: int = parameter(60, "keys that nodes have", low=1, high=100_000)
    providers: int = parameter(3, "nodes that have each key", low=1, high=15)
    lookups_per_s: float = parameter(10.0, "lookups a second while faults happen", low=0.1, high=10_000)
    limit_s: float = parameter(0.0, "so long after healing everything must be found; 0: what its size allows", low=0)


@dataclass
class Seen:
    """What the lookups met while faults happened."""

    lookups: int = 0
    possible: int = 0  # of them with a provider that was there before and after
    found: int = 0  # of those: with one that was there
    oldest_dead_s: float = 0.0  # how long the longest dead of all handed out had been dead


class Story:
    """One cluster in one simulation."""

    def __init__(self, sim: Simulation, parameters: StoryParameters) -> None:
        self.sim = sim
        self.parameters = parameters
        self.holdings: dict[Key, set[int]] = {}
        self.records_per_holding = 1  # a whole agent that has a blob says its manifest, its config and its tag too
        self.seen = Seen()
        self.peak_per_node = 0  # datagrams that one node sent, and had delivered, in one second
        self.peak_mean = 0.0  # datagrams sent in one second, but for lookups, over the nodes that ran
        self.apart: Callable[[Node, Node], bool] = lambda _asker, _provider: False  # whether a fault is between them
        self._offers: dict[int, list[Key]] = {}
        self._by_id: dict[NodeId, Node] = {}
        self._former: dict[tuple[NodeId, Address], float] = {}
        self._lives: dict[int, tuple[int, float]] = {}  # which life was seen last, and since when
        self._leavers: set[int] = set()
        self._sent_in_all = 0.0
        self._sent: dict[str, int] = {}
        declare = sim.checks.declare
        self._dead = declare(f"nobody is handed out more than {DEAD_S:g} s after it died, or moved away")
        self._left = declare("nobody is handed out after it left")
        self._true = declare("nobody is handed out for what it never had")
        self._ends = declare(f"a lookup ends within {LOOKUP_S:g} s")
        self._bounded = declare("tables, members, news and records stay within their limits")
        self._calm = declare("no node, and not all together, send more than they may")
        observe = sim.world.observe
        assert observe is not None, "a simulation has a trace"

        def count(kind: str, now: float, source: Address, target: Address, data: bytes) -> None:
            self._sent[source.host] = self._sent.get(source.host, 0) + 1
            observe(kind, now, source, target, data)

        sim.world.observe = count

    # --- the cluster ---

    async def stand(self, nodes: Sequence[Node], *, within_s: float = 2.0) -> None:
        """Start nodes within some seconds, and wait until each knows enough of the others among them."""
        starts = sorted(self.sim.random("starts").uniform(0, within_s) for _ in nodes)
        began = self.sim.now
        async with trio.open_nursery() as nursery:
            for start, node in zip(starts, nodes, strict=True):
                await trio.sleep_until(began + start)
                nursery.start_soon(node.start)
        stands = self.sim.checks.declare("the cluster stands")
        await stands.within(JOIN_LIMIT_S, lambda: self.ignorant(nodes), every_s=1.0)

    async def ignorant(self, nodes: Sequence[Node] | None = None) -> str | None:
        """Say who of these nodes, or of all that run, has not joined or does not know enough yet."""
        asked = [node for node in (self.sim.members if nodes is None else nodes) if node.alive]
        enough = min(len(asked) - 1, KNOWN_ENOUGH)
        ignorant = [(node, known) for node in asked if (known := _known(node)) < enough]
        return f"{len(ignorant)} do not; {ignorant[0][0]} knows {ignorant[0][1]} of {enough}" if ignorant else None

    def deal(self, numbers: Iterable[int] | None = None) -> None:
        """Draw who has which key, of these nodes or of all; it is said at once, and again after each start."""
        random = self.sim.random("holdings")
        among = list(range(len(self.sim.members)) if numbers is None else numbers)
        for _ in range(self.parameters.keys):
            key = Key(random.randbytes(20))
            self.give(key, random.sample(among, min(self.parameters.providers, len(among))))

    def give(self, key: Key, numbers: Iterable[int]) -> None:
        """Let these nodes have a key."""
        for number in numbers:
            self.holdings.setdefault(key, set()).add(number)
            self._offers.setdefault(number, []).append(key)
            node = self.sim.members[number]
            if node.up and isinstance(node, RouterAlone):
                node.router.advertise({key: Offer()})

    def moved(self, node: Node, from_registry: Address) -> None:
        """Note that a node, which does not run now, will be elsewhere."""
        self._former[node.node_id, from_registry] = self.sim.now

    def up(self) -> list[Node]:
        """Return the nodes that can be asked."""
        return [node for node in self.sim.members if node.up]

    def is_settled(self, node: Node) -> bool:
        """Whether a node runs, and has had the time to say what it has."""
        boots, since = self._lives.get(node.number, (0, 0.0))
        settling_s = SETTLING_S if isinstance(node, RouterAlone) else WALKED_S
        return node.up and node.boots == boots and self.sim.now >= since + settling_s

    def providers(self, key: Key, asker: Node) -> set[NodeId]:
        """Return who has a key, runs, and is not the asker."""
        members = (self.sim.members[number] for number in self.holdings[key])
        return {node.node_id for node in members if node.up and node is not asker and not self.apart(asker, node)}

    # --- while faults happen ---

    @asynccontextmanager
    async def watched(self, *, mean_max: float) -> AsyncIterator[None]:
        """Look keys up and look at all limits until the block ends.

        `mean_max`: datagrams that routers alone may send in one second, but for lookups, over the nodes that run.
        """
        self._say_again()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_up_for_ever)
            nursery.start_soon(self._measure_for_ever, mean_max)
            stop = self.sim.every(TICK_S, self._say_again)
            try:
                yield
            finally:
                stop()
                nursery.cancel_scope.cancel()

    async def play(self, schedule: Schedule) -> None:
        """Make faults happen; returns after the last. Who is stopped in order has left."""
        for after_s, fault in schedule:
            if isinstance(fault, Stop):
                self.sim.clock.at(self.sim.now + after_s, partial(self._leavers.add, fault.node))
        await play(self.sim, schedule)

    async def find(self, asker: Node, key: Key) -> set[NodeId]:
        """Look a key up to its end, and look at everybody who is handed out; return who was."""
        began, boots = self.sim.now, asker.boots
        found: set[NodeId] = set()
        with trio.move_on_after(LOOKUP_S) as scope:
            async with asker.router.find(key) as channel:
                async for each in channel:
                    if isinstance(each, Provider) and asker.alive and asker.boots == boots:
                        found.add(each.node_id)
                        self._judge(key, each, asker, began)
        self._ends.holds(not scope.cancelled_caught, lambda: f"{asker} looks for {key.hex()[:8]} still")
        return found

    def _judge(self, key: Key, provider: Provider, asker: Node, began: float) -> None:
        """Look at one who was handed out."""
        now = self.sim.now
        who = f"{asker} is given {provider.address} for {key.hex()[:8]}"
        node = self._by_id.get(provider.node_id) or self._learn(provider.node_id)
        if node is None or node.number not in self.holdings[key]:
            self._true.violated(f"{who}, which is {node or provider.node_id.hex()}")
        until: float | None = now
        if provider.address != node.registry:
            until = self._former.get((provider.node_id, provider.address))
        elif not node.alive:
            until = node.died_at
        if until is None:
            self._true.violated(f"{who}, where {node} never was")
        was_there = node.alive or node.number not in self._leavers or began <= until + LEFT_S
        self.seen.oldest_dead_s = max(self.seen.oldest_dead_s, now - until)
        self._true.holds(condition=True, detail=who)
        self._dead.holds(now - until <= DEAD_S, lambda: f"{who}, where {node} was until {now - until:.1f} s ago")
        self._left.holds(was_there, lambda: f"{who}, {node}, which left {began - until:.1f} s before the question")

    def _learn(self, node_id: NodeId) -> Node | None:
        self._by_id = {node.node_id: node for node in self.sim.members if node.boots}
        return self._by_id.get(node_id)

    def _say_again(self) -> None:
        """Let every router that began a new life say what it has; whole agents do so by themselves."""
        for node in self.sim.members:
            if node.up and node.boots != self._lives.get(node.number, (0, 0.0))[0]:
                self._lives[node.number] = node.boots, self.sim.now
                self._leavers.discard(node.number)
                if isinstance(node, RouterAlone):
                    node.router.advertise(dict.fromkeys(self._offers.get(node.number, ()), Offer()))

    async def _look_up_for_ever(self) -> None:
        random = self.sim.random("lookups")
        keys = list(self.holdings)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(random.expovariate(self.parameters.lookups_per_s))
                up = self.up()
                if up and (asker := random.choice(up)).router.joined:
                    nursery.start_soon(self._look_up, asker, random.choice(keys))

    async def _look_up(self, asker: Node, key: Key) -> None:
        before, boots = self._settled(key, asker), asker.boots
        found = await self.find(asker, key)
        if not asker.alive or asker.boots != boots:
            return
        self.seen.lookups += 1
        if there := before & self._settled(key, asker):
            self.seen.possible += 1
            self.seen.found += bool(there & found)

    def _settled(self, key: Key, asker: Node) -> set[NodeId]:
        settled = (self.sim.members[number] for number in self.holdings[key])
        return {node.node_id for node in settled if self.is_settled(node)} & self.providers(key, asker)

    async def _measure_for_ever(self, mean_max: float) -> None:
        random = self.sim.random("looked into")
        self._sent_by_routers()
        self._sent.clear()
        while True:
            await trio.sleep(1.0)
            alive = self.up()
            mean = self._sent_by_routers() / max(1, len(alive))
            peak = max(self._sent.values(), default=0)
            self._sent.clear()
            self.peak_mean, self.peak_per_node = max(self.peak_mean, mean), max(self.peak_per_node, peak)
            self._calm.holds(mean <= mean_max, f"{mean:.0f} datagrams a node in the last second, not {mean_max:g}")
            self._calm.holds(peak <= PEAK_PER_NODE, f"{peak} datagrams by one node in the last second")
            for node in random.sample(alive, min(ASKED_MAX, len(alive))):
                self._measure(node)

    def _measure(self, node: Node) -> None:
        """Look into a node."""
        view = node.router._view  # noqa: SLF001  # what is bounded is not shown to anybody else
        news = len(view.members._news)  # noqa: SLF001  # see above
        said = sum(len(numbers) for numbers in self.holdings.values()) * self.records_per_holding
        within = len(view.table) <= CONTACTS_MAX and len(view.members) <= MEMBERS_MAX and news <= NEWS_HELD_MAX
        self._bounded.holds(
            within and len(view.records) <= said,
            lambda: (
                f"{node}: {len(view.table)} contacts, {len(view.members)} members, {news} news, "
                f"{len(view.records)} of {said} records"
            ),
        )

    def _sent_by_routers(self) -> float:
        """Return how many datagrams, but those of lookups, routers alone have sent since the last call, lost or not."""
        before = self._sent_in_all
        self._sent_in_all = sum(
            sample.value
            for family in self.sim.metrics.collect()
            if family.name == "p2pmirror_routing_datagrams"
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["direction"] == "out"
            if sample.labels["kind"] not in ASKED_FOR
        )
        return self._sent_in_all - before

    # --- after healing ---

    def found_mostly(self) -> None:
        """Look whether nearly all lookups so far found somebody who was there all the time; one may always miss."""
        check = self.sim.checks.declare(f"{FOUND_PERCENT_MIN:g} % of the lookups find somebody who is there")
        seen = self.seen
        enough = 100 * (seen.found + 1) >= FOUND_PERCENT_MIN * seen.possible
        check.holds(enough, f"{seen.found} of {seen.possible} did")

    async def all_found(self, limit_s: float, *, after: str) -> float:
        """Wait until some nodes find all living providers of all keys, one after the other; return how long that took.

        What is found once may be missed again while the cluster still heals: all count, found in one go.
        """
        check = self.sim.checks.declare(f"every provider is found by everybody asked, after {after}")
        alive = self.up()
        askers = self.sim.random("askers").sample(alive, min(ASKED_MAX, len(alive)))
        each = max(1, min(len(askers), PAIRS_MAX // len(self.holdings)))
        pairs = [(asker, key) for key in self.holdings for asker in self.sim.random("askers").sample(askers, each)]
        pending = pairs.copy()
        is_whole = True  # whether `pending` began as all pairs, and none of them has failed since

        async def missing() -> str | None:
            nonlocal is_whole
            while True:
                while pending:
                    batch = [pending.pop() for _ in range(min(AT_ONCE, len(pending)))]
                    lacking = await self._lacking(batch)
                    pending.extend(pair for pair, _ in lacking)
                    if lacking:
                        is_whole = False
                        return f"{lacking[0][1]}; {len(pending)} of {len(pairs)} questions are open"
                if is_whole:
                    return None
                pending.extend(pairs)
                is_whole = True

        return await check.within(limit_s, missing)

    async def _lacking(self, pairs: list[tuple[Node, Key]]) -> list[tuple[tuple[Node, Key], str]]:
        """Look keys up at the same time; return which did not find everybody, and what to say of it."""
        lacking: list[tuple[tuple[Node, Key], str]] = []

        async def look(asker: Node, key: Key) -> None:
            lost = self.providers(key, asker) - await self.find(asker, key)
            if lost:
                names = ", ".join(sorted(str(self._by_id.get(each) or self._learn(each)) for each in lost))
                lacking.append(((asker, key), f"{asker} looks for {key.hex()[:8]} and does not find {names}"))

        async with trio.open_nursery() as nursery:
            for pair in pairs:
                nursery.start_soon(look, *pair)
        return sorted(lacking, key=lambda each: (each[0][0].number, each[0][1]))

    def limit_s(self, small_s: float) -> float:
        """Return the limit that was set; else `small_s` where everybody is known, and a renewal of records above."""
        if self.parameters.limit_s:
            return self.parameters.limit_s
        return small_s if len(self.sim.members) <= CONTACTS_MAX else RENEWED_S

    def figures(self) -> dict[str, Figure]:
        """Return what was met while faults happened."""
        seen = self.seen
        return {
            "lookups": seen.lookups,
            "found_percent": round(100 * seen.found / seen.possible, 3) if seen.possible else None,
            "oldest_dead_s": round(seen.oldest_dead_s, 3),
            "datagrams_per_node_s_max": round(self.peak_mean, 1),
            "datagrams_of_one_node_s_max": self.peak_per_node,
        }


def _known(node: Node) -> int:
    """Return how many others a node knows; -1 while it has not joined."""
    if not node.up or not node.router.joined:
        return -1
    return sum(each.state != "gone" for each in node.router.members())
