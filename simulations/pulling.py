"""Pulls through the registry ports of whole agents, as containerd makes them, while faults happen around them.

Law: a pull fails only where nobody who has the content can be reached: `Pulls` looks at each, its bytes included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.oci import Descriptor, Digest, TagName, mediatype
from p2pmirror.routing.protocol import Key, key_of
from p2pmirror.store.ocilayout import LayoutWriter
from simulations.nodes import LAYOUT, WholeNode
from simulations.scenario import Figure, parameter
from simulations.story import WALKED_S, Story, StoryParameters
from simulations.world import Node, Simulation

BLOB_BYTES = 20_000  # more than one piece of a stream, and soon there
RECORDS_PER_BLOB = 4  # the blob, its manifest, the config, the tag
PULL_S = 10.0  # containerd waits longer


@dataclass(frozen=True)
class PullingParameters(StoryParameters):
    """What a story lets one choose that is told of routers alone or of whole agents."""

    whole: bool = parameter(default=False, help="whole agents, through whose registry ports is pulled")
    pulls_per_s: float = parameter(5.0, "of them, with whole agents", low=0.1, high=1000)


@dataclass
class Seen:
    """What the pulls met."""

    pulls: int = 0
    nowhere: int = 0  # of them that failed, since nobody who was there all the time could have helped
    seconds: list[float] = field(default_factory=list)  # that the others took


class Pulls:
    """Whole agents with blobs in their layouts, and a client that pulls them."""

    def __init__(self, sim: Simulation, story: Story) -> None:
        self.seen = Seen()
        self.apart: Callable[[Node, Node], bool] = lambda _asker, _provider: False  # whether a fault is between them
        self._sim = sim
        self._story = story
        self._blobs: dict[Digest, bytes] = {}
        story.records_per_holding = RECORDS_PER_BLOB
        self._true = sim.checks.declare("who pulls gets the right content, or a no")
        self._served = sim.checks.declare("a pull succeeds where somebody reachable has the content")

    async def stand(self, count: int) -> None:
        """Let so many whole agents stand; the content of each key is in the layouts of some of them."""
        nodes = [await self._sim.add_node(start=False, store=f"oci-layout:{LAYOUT}") for _ in range(count)]
        random = self._sim.random("holdings")
        for _ in range(self._story.parameters.keys):
            content = random.randbytes(BLOB_BYTES)
            digest = Digest.of(content)
            self._blobs[digest] = content
            numbers = random.sample(range(count), min(self._story.parameters.providers, count))
            self._story.give(key_of(digest), numbers)
            for number in numbers:
                await _write(nodes[number], digest, content)
        await self._story.stand(nodes)
        await trio.sleep(WALKED_S)

    async def go_on(self, per_s: float) -> None:
        """Pull anything through anybody, so many times a second, until cancelled."""
        random = self._sim.random("pulls")
        digests = list(self._blobs)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(random.expovariate(per_s))
                if up := self._story.up():
                    nursery.start_soon(self._pull, random.choice(up), random.choice(digests))

    async def _pull(self, node: object, digest: Digest) -> None:
        assert isinstance(node, WholeNode)
        key, boots, began = key_of(digest), node.boots, self._sim.now
        holders, was_settled = self._holders(key, node), self._story.is_settled(node)
        status, body = 0, b""
        with trio.move_on_after(PULL_S):
            try:
                status, body = await self._sim.get(node.registry, f"/v2/app/blobs/{digest}?ns=docker.io")
            except Unreachable:
                status = -1
        if not node.up or node.boots != boots or self._sim.now == began:
            return  # it died on the way
        self.seen.pulls += 1
        who = f"{node} is asked for {digest.hex[:8]} and answers {status} after {self._sim.now - began:.3f} s"
        there = holders & self._holders(key, node) if was_settled else set()
        self._served.holds(status == 200 or not there, lambda: f"{who}; {len(there)} nodes could have helped")
        if status == 200:
            self._true.holds(body == self._blobs[digest], f"{who} with other content")
            self.seen.seconds.append(self._sim.now - began)
        else:
            self.seen.nowhere += 1

    def _holders(self, key: Key, node: WholeNode) -> set[tuple[int, int]]:
        """Return the lives of nodes that have a key and can be reached by a node, itself among them."""
        members = [self._sim.members[number] for number in sorted(self._story.holdings[key])]
        there = [each for each in members if self._story.is_settled(each) and not self.apart(node, each)]
        return {(each.number, each.boots) for each in there}

    def figures(self) -> dict[str, Figure]:
        """Return what the pulls met."""
        seconds = sorted(self.seen.seconds)
        return {
            "pulls": self.seen.pulls,
            "pulls_nowhere": self.seen.nowhere,
            "pull_ms_median": round(1000 * median(seconds), 3) if seconds else None,
            "pull_ms_max": round(1000 * seconds[-1], 3) if seconds else None,
        }


async def stand(sim: Simulation, story: Story, parameters: PullingParameters) -> Pulls | None:
    """Let a cluster stand in which keys are dealt; return who pulls from it, when it is one of whole agents."""
    if parameters.whole:
        pulls = Pulls(sim, story)
        await pulls.stand(sim.nodes)
        return pulls
    await story.stand([await sim.add_router(start=False) for _ in range(sim.nodes)])
    story.deal()
    return None


async def _write(node: WholeNode, blob: Digest, content: bytes) -> None:
    """Put content into a node's layout, as the one layer of an image: nothing else is listed."""
    writer = LayoutWriter(LAYOUT, node.files)
    layer = await _put(writer, mediatype.OCI_LAYER, content)
    config = await _put(writer, mediatype.OCI_CONFIG, b"{}")
    fields = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": config, "layers": [layer]}
    text = json.dumps(fields).encode()
    await _put(writer, mediatype.OCI_MANIFEST, text)
    name = TagName("docker.io", "library/app", blob.hex[:8])
    await writer.tag(name, Descriptor(mediatype.OCI_MANIFEST, Digest.of(text), len(text)))


async def _put(writer: LayoutWriter, media_type: str, content: bytes) -> dict[str, str | int]:
    """Write a blob; return its descriptor as JSON."""
    digest = Digest.of(content)
    async with writer.blob(digest, len(content)) as sink:
        await sink.write(content)
    return {"mediaType": media_type, "digest": str(digest), "size": len(content)}
