"""Many nodes pull the same image at the same moment: from the registry, or from the one node that has it.

What is shown: how near the last one comes to the optimum (`simulations.efficiency`), how many copies the registry
sends, and how often it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.oci import Digest, mediatype
from p2pmirror.resolve.flight import PieceSizes
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from simulations import efficiency
from simulations.nodes import REGISTRY_PORT, WholeNode
from simulations.registry import NAME, SimulatedRegistry
from simulations.scenario import Figure, parameter, scenario
from simulations.world import Simulation, host_of

SETTLED_S = 15.0  # until everybody knows everybody
STEP_BYTES = 16 << 10  # of the traffic: a piece is a sixteenth of a real one, and so is what leaves at once,
PIPE_BYTES = 32 << 10  # and what a connection holds: a kernel keeps some 512 KiB for a link of 100 Mbit/s
CACHE = "/cache"
PULL_S = 3600.0
TAG = "1"
OWN = Address("127.0.0.1", REGISTRY_PORT)  # each node's own agent


@dataclass(frozen=True)
class StampedeParameters:
    """What a stampede lets one choose. Sizes are scaled down; what counts is pieces, and seconds a piece."""

    layers: int = parameter(1, "layers that every node pulls", low=1, high=16)
    at_once: int = parameter(16, "layers that a node pulls at the same time; containerd takes three", low=1, high=16)
    pieces: int = parameter(64, "pieces of each layer", low=1, high=4096)
    piece_bytes: int = parameter(256 << 10, "bytes of a piece", low=4096, high=4 << 20)
    piece_s: float = parameter(0.336, "seconds that a node's link takes for a piece", low=0.001, high=100)
    upstream: float = parameter(1.0, "the registry's rate, times a node's", low=0.01, high=1000)
    stagger_s: float = parameter(0.0, "seconds between two starts", low=0, high=600)
    answer_s: float = parameter(
        0.05, "seconds that the registry takes to answer for a tag or a manifest", low=0, high=9
    )
    room_s: float = parameter(0.0, "seconds that a disk takes to make room for a layer, at most", low=0, high=9)


@scenario(
    "cold-stampede",
    "All nodes pull at once what only the registry has: one copy for the whole cluster.",
    nodes=8,
    seconds=20,
    parameters=StampedeParameters,
)
async def cold_stampede(sim: Simulation, parameters: StampedeParameters) -> Mapping[str, Figure]:
    """Pull everywhere."""
    stampede = ImageStampede(sim, parameters)
    await stampede.stand()
    await stampede.pull(stampede.nodes)
    return stampede.figures(sim.nodes)


@scenario(
    "warm-stampede",
    "One node has it, the registry is gone, all others pull at once.",
    nodes=8,
    seconds=20,
    parameters=StampedeParameters,
    nodes_min=2,
)
async def warm_stampede(sim: Simulation, parameters: StampedeParameters) -> Mapping[str, Figure]:
    """Let one node have it, then pull everywhere else."""
    stampede = ImageStampede(sim, parameters)
    await stampede.stand()
    await stampede.pull(stampede.nodes[:1])
    await trio.sleep(SETTLED_S)
    stampede.registry.is_gone = True
    stampede.seconds.clear()
    await stampede.pull(stampede.nodes[1:])
    return stampede.figures(sim.nodes - 1)


class Stampede:
    """Agents with a cache, a registry, and a client on each agent's host."""

    def __init__(self, sim: Simulation, parameters: StampedeParameters) -> None:
        self.nodes: list[WholeNode] = []
        self.seconds: list[float] = []
        self.sim = sim
        self._parameters = parameters
        self._rate = parameters.piece_bytes / parameters.piece_s
        self.registry = SimulatedRegistry(sim.world, rate=self._rate * parameters.upstream)
        self.layers: list[Digest] = []
        sim.world.traffic.step_bytes, sim.world.pipe_bytes = STEP_BYTES, PIPE_BYTES
        self.right = sim.checks.declare("every pull ends with the right bytes")

    async def stand(self) -> None:
        """Let the cluster stand, and the registry have the layers."""
        parameters = self._parameters
        await self.sim.nursery.start(self.registry.run)
        random = self.sim.random("layers")
        size = parameters.pieces * parameters.piece_bytes
        self.layers = [self.registry.put(random.randbytes(size)) for _ in range(parameters.layers)]
        sizes = PieceSizes(parameters.piece_bytes, 2 * parameters.piece_bytes, parameters.piece_bytes)
        for number in range(self.sim.nodes):
            settings = self.settings(number, host_of(number))
            files = MemoryFiles()
            files.room_s = partial(self.sim.random("disks").uniform, 0.0, parameters.room_s)
            node = await self.sim.add_node(
                start=False,
                files=files,
                cache_dir=CACHE,
                registries=self.registry.settings,
                piece_sizes=sizes,
                **settings,
            )
            self.sim.world.set_rates(node.network, upload_rate=self._rate, download_rate=self._rate)
            await node.start()
            self.nodes.append(node)
        await trio.sleep(SETTLED_S)

    def settings(self, number: int, host: str) -> Mapping[str, Any]:
        """Return the settings of one node, beside those of all."""
        del number, host
        return {}

    async def pull(self, nodes: list[WholeNode]) -> None:
        """Pull all layers on these nodes, one start after another."""
        async with trio.open_nursery() as nursery:
            for number, node in enumerate(nodes):
                delay_s = number * self._parameters.stagger_s
                nursery.start_soon(node.while_alive, partial(self._pull_all, node, delay_s))

    async def _pull_all(self, node: WholeNode, delay_s: float) -> None:
        await trio.sleep(delay_s)
        began = self.sim.now
        await self.begin(node)
        room = trio.CapacityLimiter(self._parameters.at_once)

        async def pull(layer: Digest) -> None:
            try:
                await self.pull_one(node, layer)
            finally:
                room.release_on_behalf_of(layer)

        async with trio.open_nursery() as nursery:
            for layer in self.layers:  # one after another, as containerd takes them
                await room.acquire_on_behalf_of(layer)
                nursery.start_soon(pull, layer)
        self.seconds.append(self.sim.now - began)

    async def begin(self, node: WholeNode) -> None:
        """Do what a pull does before its layers: nothing."""
        del node
        await trio.lowlevel.checkpoint()

    async def pull_one(self, node: WholeNode, layer: Digest) -> None:
        """Pull a layer, in one response, which must be right."""
        await self.fetch(node, layer, "blobs")

    async def fetch(self, node: WholeNode, layer: Digest, kind: str) -> None:
        """Fetch a blob or a manifest, in one response, which must be right."""
        client = HttpClient(node.network, ClientOptions(dial_timeout_s=5.0))
        hasher, count, text = layer.hasher(), 0, b""
        error = ""
        try:
            async with client.request(OWN, "GET", f"/v2/app/{kind}/{layer}?ns={NAME}", {"Host": "a"}) as response:
                buffer = memoryview(bytearray(1 << 16))
                while got := await response.receive_into(buffer):
                    hasher.update(buffer[:got])
                    count += got
                    text = bytes(buffer[:got])
                error = "" if response.status == 200 else f"status {response.status}: {text!r}"
        except Unreachable as unreachable:
            error = str(unreachable)
        await client.aclose()
        self.right.holds(layer.matches(hasher), lambda: f"{node}: {count} bytes of {layer.hex[:8]}; {error}")

    @property
    def copies(self) -> float:
        """How many copies of all layers the registry has sent."""
        return self.registry.sent_bytes / sum(map(len, self.registry.blobs.values()))

    def optimum_s(self, pulling: int) -> float:
        """Return what an optimal schedule for so many nodes takes."""
        parameters = self._parameters
        pieces = parameters.layers * parameters.pieces
        return efficiency.optimum_s(pulling, pieces, parameters.piece_s, parameters.upstream)

    def figures(self, pulling: int) -> dict[str, Figure]:
        """Return how near to the optimum they came."""
        return efficiency.figures(self.optimum_s(pulling), self.seconds) | {
            "upstream_copies": round(self.copies, 4),
            "upstream_requests": self.registry.requests,
        }


class ImageStampede(Stampede):
    """The same, and each pull begins as containerd's does: what the tag names, then its manifest."""

    def __init__(self, sim: Simulation, parameters: StampedeParameters) -> None:
        super().__init__(sim, parameters)
        self.registry.answer_s = parameters.answer_s
        self.trusted = sim.checks.declare("nobody is banned")

    async def stand(self) -> None:
        """Let the registry have the manifest too."""
        await super().stand()
        self.registry.tag(_manifest([(each, len(self.registry.blobs[each])) for each in self.layers]), TAG)

    async def begin(self, node: WholeNode) -> None:
        """Ask what the tag names, and for its manifest."""
        client = HttpClient(node.network, ClientOptions(dial_timeout_s=5.0))
        status, digest = 0, ""
        try:
            async with client.request(OWN, "HEAD", f"/v2/app/manifests/{TAG}?ns={NAME}", {"Host": "a"}) as response:
                status, digest = response.status, response.headers.get("docker-content-digest", "")
        except Unreachable:
            status = -1
        await client.aclose()
        manifest = self.registry.tags[TAG]
        self.right.holds(digest == str(manifest), lambda: f"{node}: the tag names {digest!r}, status {status}")
        await self.fetch(node, manifest, "manifests")

    def figures(self, pulling: int) -> dict[str, Figure]:
        """Return how often the registry was asked for what, too."""
        bans = {node.number: node.counted("p2pmirror_peers_bans_total") for node in self.nodes}
        self.trusted.holds(not any(bans.values()), f"all are honest, and nodes banned others so often: {bans}")
        asked = self.registry.asked
        return super().figures(pulling) | {"upstream_tags": asked["tag"], "upstream_manifests": asked["manifest"]}


def _manifest(layers: list[tuple[Digest, int]]) -> bytes:
    """Return the manifest of an image of these layers, of so many bytes each."""
    config = {"mediaType": mediatype.OCI_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2}
    parts = [{"mediaType": mediatype.OCI_LAYER, "digest": str(layer), "size": size} for layer, size in layers]
    fields = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": config, "layers": parts}
    return json.dumps(fields).encode()
