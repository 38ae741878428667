"""What happens in a soak: pulls and faults drawn from the seed, and what may never come of them.

Laws:
- a pull ends right, or the agent's port is closed, or it says 404, upon which containerd goes to the registry; one
  that was cut goes on by Range; nothing wrong or short ever ends cleanly, nothing takes longer than `PULL_S` or is 5xx;
- fewer than half of the nodes are disturbed at a time, and two never are, except for being frozen: growth would show
  in them;
- afterwards every node pulls everything.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import trio

from p2pmirror.errors import PeerMisbehaved, Unreachable
from p2pmirror.oci import Digest
from soak.cluster import REGISTRY, Cluster, Content, Node

PULLERS: Final = 4
PULL_S: Final = 45.0  # three sources that stall for 10 s each, one after another, on a busy machine
RESUMES_MAX: Final = 5  # as containerd
FAULT_EVERY_S: Final = 1.5
FOUND_S: Final = 30.0  # what a node has is found by all others long before, once all of them run
LAYERS: Final = 24
HOLDERS: Final = 3  # of each layer at first
BUFFER_BYTES: Final = 256 << 10
MOVED: Final = "images moved"


class Violated(Exception):  # named for what happened
    """A promise did not hold; the message says which."""


class Story:
    """Pulls and faults on one cluster; `counts` says what has happened so far."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        """Draw everything from `seed`."""
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._pulls, self._faults = Random(f"{seed} pulls"), Random(f"{seed} faults")  # noqa: S311  # to be replayed
        self.content = Content(LAYERS, Random(f"{seed} content"))  # noqa: S311  # the same

    async def prepare(self) -> None:
        """Spread the content, wait until it is found, and pull everything everywhere once."""
        for number, digest in enumerate(self.content.layers):
            for place in range(HOLDERS):
                await self.content.put(self._cluster.nodes[(number + place) % len(self._cluster.nodes)], digest)
        await self.all_right()

    async def pull(self, seconds: float) -> None:
        """Only pull, for so long. Raises `Violated`."""
        with trio.move_on_after(seconds):
            await self._pull_for_ever()

    async def disturb(self, seconds: float) -> None:
        """Pull and let faults happen, for so long; then have everything running again. Raises `Violated`."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pull_for_ever)
                nursery.start_soon(self._leave_for_ever)
                while True:
                    await trio.sleep(self._faults.uniform(0, 2 * FAULT_EVERY_S))
                    self._fault(nursery)
        await self._mend()

    async def all_right(self) -> None:
        """Wait until every node pulls every layer. Raises `Violated`."""
        async with trio.open_nursery() as nursery:
            for node in self._cluster.nodes:
                nursery.start_soon(self._all_right_at, node)

    async def _all_right_at(self, node: Node) -> None:
        for digest in self.content.layers:
            with trio.move_on_after(FOUND_S):
                while await self._pull(node, digest) != "right":  # noqa: ASYNC110  # other processes: nothing wakes us
                    await trio.sleep(0.5)
                continue
            raise Violated(f"{node} does not get {digest} although all nodes run")

    # --- pulls ---

    async def _pull_for_ever(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(PULLERS):
                nursery.start_soon(self._pull_one_by_one)

    async def _pull_one_by_one(self) -> None:
        digests = list(self.content.layers)
        while True:
            node, digest = self._pulls.choice(self._cluster.nodes), self._pulls.choice(digests)
            self.counts[await self._pull(node, digest)] += 1
            await trio.sleep(0.02)

    async def _leave_for_ever(self) -> None:
        """Be clients that read a little of a layer, stand still, and go away."""
        digests = list(self.content.layers)
        while True:
            node, digest = self._pulls.choice(self._cluster.nodes), self._pulls.choice(digests)
            with trio.move_on_after(self._pulls.uniform(0.01, 1.0)):
                try:
                    async with self._cluster.client.request(
                        node.place.registry, "GET", _target(digest), {}
                    ) as response:
                        await response.receive_into(memoryview(bytearray(1000)))
                        await trio.sleep_forever()
                except (Unreachable, PeerMisbehaved):
                    await trio.sleep(0.1)
            self.counts["readers that left"] += 1

    async def _pull(self, node: Node, digest: Digest) -> str:
        """Pull as containerd does; return how it ended. Raises `Violated`."""
        got = bytearray()
        with trio.move_on_after(PULL_S):
            for _ in range(RESUMES_MAX + 1):
                ended = await self._ask(node, digest, got)
                if ended != "cut":
                    return ended
                self.counts["cuts"] += 1
            return "elsewhere"
        if node.is_disturbed:
            return "frozen"
        raise Violated(f"{node} took longer than {PULL_S:.0f} s for {digest}")

    async def _ask(self, node: Node, digest: Digest, got: bytearray) -> str:
        """Ask for what is lacking; return how that ended."""
        headers = {"Range": f"bytes={len(got)}-"} if got else {}
        try:
            async with self._cluster.client.request(node.place.registry, "GET", _target(digest), headers) as response:
                if response.status == 404:
                    return "elsewhere"
                if response.status != (206 if got else 200):
                    raise Violated(f"{node} answers {response.status} to {digest} from byte {len(got)}")
                await _read(response.receive_into, got)
        except Unreachable as error:
            return "cut" if "cut its answer short" in str(error) else "closed"
        if bytes(got) != self.content.layers[digest]:
            raise Violated(f"{node} gave {len(got)} bytes of {digest} that are not it, and ended cleanly")
        return "right"

    # --- faults ---

    def _fault(self, nursery: trio.Nursery) -> None:
        """Let one fault begin."""
        nodes = self._cluster.nodes
        calm = [node for node in nodes if not node.is_disturbed]
        faults: list[tuple[str, Callable[[Node], Awaitable[None]]]] = [
            ("kills", self._kill),
            ("restarts", self._restart),
            ("freezes", self._freeze),
            (MOVED, self._move),
        ]
        name, fault = self._faults.choice(faults)
        candidates = calm if name in {"freezes", MOVED} else [node for node in calm if node not in nodes[:2]]
        if candidates and len(nodes) - len(calm) < len(nodes) // 2 - 1:
            node = self._faults.choice(candidates)
            node.is_disturbed = name != MOVED
            self.counts[name] += 1
            nursery.start_soon(fault, node)

    async def _kill(self, node: Node) -> None:
        node.kill()
        await trio.sleep(self._faults.uniform(0, 3))
        await self._return(node)

    async def _restart(self, node: Node) -> None:
        code = await node.stop()
        if code != 0:
            raise Violated(f"{node} ended with {code} after SIGTERM")
        await self._return(node)

    async def _return(self, node: Node) -> None:
        node.launch(self._cluster.routers)
        await node.wait_ready(1)
        node.is_disturbed = False

    async def _freeze(self, node: Node) -> None:
        node.send(signal.SIGSTOP)
        try:
            await trio.sleep(self._faults.uniform(0.2, 4))
        finally:
            node.send(signal.SIGCONT)
            node.is_disturbed = False

    async def _move(self, node: Node) -> None:
        """Take an image from a node, or give it one."""
        digest = self._faults.choice(list(self.content.layers))
        if self._faults.random() < 0.5 and node not in self._cluster.nodes[:HOLDERS]:
            await self.content.drop(node, digest)
        else:
            await self.content.put(node, digest)

    async def _mend(self) -> None:
        """Have every node running, with the images that it had at first."""
        for node in self._cluster.nodes:
            node.send(signal.SIGCONT)
            if node.is_disturbed and node not in self._cluster.nodes[:2]:
                node.kill()  # it may be about to end
            if node.pid is None:
                node.launch(self._cluster.routers)
            node.is_disturbed = False
        await self._cluster.wait()
        for number, digest in enumerate(self.content.layers):
            for place, node in enumerate(self._cluster.nodes):
                is_holder = (place - number) % len(self._cluster.nodes) < HOLDERS
                await (self.content.put if is_holder else self.content.drop)(node, digest)


def _target(digest: Digest) -> str:
    return f"/v2/app/blobs/{digest}?ns={REGISTRY}"


async def _read(receive_into: Callable[[memoryview], Awaitable[int]], got: bytearray) -> None:
    buffer = bytearray(BUFFER_BYTES)
    with memoryview(buffer) as view:
        while count := await receive_into(view):
            got += view[:count]
