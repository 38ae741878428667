"""The demo from its start to its report: five agents, one image, four pulls, one death.

Laws: node 1 dies while at least one response that it is sending is far from its end, and not before half of the bytes
of the three pulls have come; every way out, Ctrl-C and errors included, ends the agents and removes the directory,
unless the demo went well and was to be kept.
"""

import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from p2pmirror.demo import ledger
from p2pmirror.demo.agents import POLL_S, Agent
from p2pmirror.demo.failed import DemoFailed
from p2pmirror.demo.image import Image, put_image
from p2pmirror.demo.interruption import interruptible
from p2pmirror.demo.place import NODES, UPSTREAM, UPSTREAM_NAME, check_ports, make_directory, places
from p2pmirror.demo.pulling import Progress, Puller
from p2pmirror.demo.report import ColdReport, Display, Kept, NodeReport, NodeView, Options, Report, State
from p2pmirror.demo.upstream import MANIFESTS_MAX, Upstream
from p2pmirror.demo.verifying import verify
from p2pmirror.errors import MirrorError
from p2pmirror.oci import Invalid, TagName
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.ocilayout import LayoutWriter
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.http_client import ClientOptions, HttpClient

NAME: Final = TagName("registry.example", "demo/app", "1")  # a registry that nobody can reach: peers or nothing
COLD: Final = TagName(UPSTREAM_NAME, "demo/cold", "1")  # of the demo's own registry
COLD_PART: Final = 8  # how many times smaller than the first image the second is
SEED: Final = "p2pmirror-demo"
KNOWN_S: Final = 30.0  # until the others know what a node has: a second of polling, hashing, a few datagrams
KILL_POLL_S: Final = 0.02  # a layer of 12 MiB takes 100 times as long
FAR_FROM_END: Final = 50  # an answer is far from its end while a 50th of the image is missing: more than sockets hold
METRIC: Final = "p2pmirror_resolve_resumes_total"


async def run(options: Options, display: Display) -> Report:
    """Run the demo. Raises `DemoFailed`, also for Ctrl-C. Call it from the main thread. Leaves nothing unless asked."""
    check_ports(places(Path()))
    display.stage("looking for room on the disk")
    directory = make_directory((options.mib + 3 * _cold_mib(options)) << 20)  # in a store, in a cache, in the registry
    client = HttpClient(HostNetwork(), ClientOptions())
    demo = _Demo(options, display, directory, client)
    with _removed_unless_kept(demo):
        try:
            async with interruptible():
                return await demo.play()
        except* (DemoFailed, MirrorError, Invalid, OSError) as group:
            raise _failure(group, demo) from None
        finally:
            await client.aclose()
    raise AssertionError("play returns or raises")


class _Demo:
    """One demo under way."""

    def __init__(self, options: Options, display: Display, directory: Path, client: HttpClient) -> None:
        self.directory = directory
        self.agents = [Agent(place, client) for place in places(directory)]
        self.succeeded = False
        self.options = options
        self._display = display
        self._client = client
        self._files = HostFiles()
        self._network = HostNetwork()
        self._image: Image | None = None
        self._progress: dict[int, Progress] = {}

    async def play(self) -> Report:
        """Do everything in its order."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_agents)
            await self._start()
            image = await self._make_image()
            nursery.start_soon(self._show)
            first, second, *rest = self.agents
            await self._until_known(image, first, [second])
            self._display.stage("node 2 pulls the image; only node 1 has it")
            await self._pull(image, second)
            await self._until_known(image, second, rest)
            await self._pull_together(image, first, rest)
            self._show_once()
            nodes = await self._reports()
            cold, cold_image = await self._pull_cold(second, rest)
            self._display.stage("reading every pulled byte again and hashing it")
            await verify([agent.place for agent in (second, *rest)], [*image.pulled, *cold_image.pulled])
            nursery.cancel_scope.cancel()
        seconds, kept = trio.current_time() - began, self._kept() if self.options.keep else None
        report = Report(image.bytes, nodes, cold, seconds, kept)
        if not report.resumed:
            raise DemoFailed("no response went on from another peer, although node 1 was killed while it was sending")
        self.succeeded = True
        return report

    async def _start(self) -> None:
        hosts = ", ".join(agent.place.host for agent in self.agents)
        self._display.stage(f"starting {NODES} agents on {hosts}; each sends {self.options.rate}B/s at most")
        routers = [str(agent.place.router) for agent in self.agents]
        for agent in self.agents:
            await self._writer(agent).prepare()  # an agent without a layout is not ready
            agent.start(routers, self.options.rate, keep=self.options.keep)
        await _all([partial(agent.wait_ready, NODES) for agent in self.agents])

    async def _make_image(self) -> Image:
        self._display.stage(f"making an image of {self.options.mib} MiB for two platforms on node 1")
        self._image = await put_image(self._writer(self.agents[0]), NAME, self.options.mib << 20, SEED)
        return self._image

    async def _pull(self, image: Image, agent: Agent) -> None:
        """Pull on one node."""
        puller = Puller(agent.place, self._client, self._writer(agent))
        self._progress[agent.place.number] = puller.progress
        pulled = await puller.pull(image.name)
        if [each.digest for each in pulled] != [each.digest for each in image.pulled]:
            raise DemoFailed(f"node {agent.place.number} pulled something else than node 1 has")

    async def _pull_together(self, image: Image, first: Agent, others: list[Agent]) -> None:
        """Pull on several nodes at once, and kill the first one half-way."""
        self._display.stage("nodes 3, 4 and 5 pull it at the same moment, from nodes 1 and 2")
        async with trio.open_nursery() as nursery:
            for agent in others:
                nursery.start_soon(self._pull, image, agent)
            await self._kill_half_way(image, first, others)

    async def _pull_cold(self, first: Agent, others: list[Agent]) -> tuple[ColdReport, Image]:
        """Pull an image that only a registry has, on all nodes at once."""
        self._display.stage(f"making an image of {_cold_mib(self.options)} MiB in a registry at {UPSTREAM}")
        upstream = Upstream(UPSTREAM, self.directory / "registry", self._files)
        writer = LayoutWriter(self.directory / "registry", self._files)
        await writer.prepare()
        image = upstream.image = await put_image(writer, COLD, _cold_mib(self.options) << 20, f"{SEED}-cold")
        async with trio.open_nursery() as nursery:
            await nursery.start(upstream.run, self._network)
            self._display.stage("nodes 2, 3, 4 and 5 pull it at the same moment; one fetches it, with a token, for all")
            await _all([partial(self._pull, image, agent) for agent in (first, *others)])
            nursery.cancel_scope.cancel()
        pulls = 1 + len(others)
        report = ColdReport(
            image.bytes, pulls, upstream.sent_bytes, upstream.requests, upstream.manifests, MANIFESTS_MAX
        )
        if upstream.sent_bytes > 2 * image.bytes:
            raise DemoFailed(f"{pulls} pulls took {report.copies:.1f} copies from the registry, and one is enough")
        return report, image

    async def _kill_half_way(self, image: Image, victim: Agent, others: list[Agent]) -> None:
        half = len(others) * image.bytes // 2
        while self._received(others) < half or not await self._is_sending(victim, others, image.bytes // FAR_FROM_END):
            if all(self._state(agent) == "pulled" for agent in others):
                raise DemoFailed("the pulls were over before node 1 could be killed: try a lower --rate")
            await trio.sleep(KILL_POLL_S)
        victim.kill()
        self._display.stage("killed node 1 (SIGKILL) while it was sending; nodes 3, 4 and 5 go on without it")

    async def _is_sending(self, agent: Agent, to: list[Agent], left_bytes: int) -> bool:
        """Say whether one of the others is being sent something by an agent, with at least `left_bytes` to come."""
        for other in to:
            transfers = (await other.get("/api/v1/transfers"))["transfers"]
            for transfer in transfers:
                if transfer["peer"] == agent.node_id and transfer["size"] - transfer["sent_bytes"] >= left_bytes:
                    return True
        return False

    async def _until_known(self, image: Image, holder: Agent, others: list[Agent]) -> None:
        """Wait until others find `holder` for everything that a pull will ask for."""
        self._display.stage(f"waiting until the others know what node {holder.place.number} has")
        with trio.move_on_after(KNOWN_S):
            for agent in others:
                for descriptor in image.pulled:
                    await agent.wait_to_find(str(descriptor.digest), holder.node_id)
            return
        raise DemoFailed(f"the others did not learn within {KNOWN_S:.0f} s what node {holder.place.number} has")

    async def _reports(self) -> list[NodeReport]:
        """Ask the agents that live who got which bytes from whom."""
        living = [agent for agent in self.agents if not agent.killed]
        requests = {agent.node_id: (await agent.get("/api/v1/requests"))["requests"] for agent in living}
        numbers = {agent.node_id: agent.place.number for agent in self.agents}
        reports = []
        for agent in living:
            progress = self._progress[agent.place.number]
            received = ledger.received(agent.node_id, requests, NAME.repository)
            reports.append(
                NodeReport(
                    agent.place.number,
                    agent.place.host,
                    _seconds(progress, trio.current_time()),
                    {numbers[node]: count for node, count in received.items()},
                    int(await agent.metric(METRIC)),
                )
            )
        return reports

    async def _watch_agents(self) -> None:
        """Raise `DemoFailed` when an agent ends by itself."""
        while True:
            for agent in self.agents:
                if agent.ended_by_itself:
                    raise DemoFailed(f"{agent} ended by itself\n{agent.tail()}")
            await trio.sleep(POLL_S)

    async def _show(self) -> None:
        while True:
            self._show_once()
            await trio.sleep(self._display.every_s)

    def _show_once(self) -> None:
        self._display.nodes([self._view(agent) for agent in self.agents])

    def _view(self, agent: Agent) -> NodeView:
        place, state = agent.place, self._state(agent)
        progress = self._progress.get(place.number, Progress())
        seconds = _seconds(progress, trio.current_time())
        total = self._image.bytes if self._image is not None else 0
        return NodeView(place.number, place.host, state, progress.received_bytes, total, seconds)

    def _state(self, agent: Agent) -> State:
        if agent.killed:
            return "killed"
        if agent is self.agents[0]:
            return "starting" if self._image is None else "has it"
        progress = self._progress.get(agent.place.number)
        if progress is None:
            return "waiting"
        return "pulling" if progress.ended is None else "pulled"

    def _received(self, agents: list[Agent]) -> int:
        return sum(self._progress.get(agent.place.number, Progress()).received_bytes for agent in agents)

    def _writer(self, agent: Agent) -> LayoutWriter:
        return LayoutWriter(agent.place.layout, self._files)

    def _kept(self) -> Kept:
        living = [(agent.place, agent.pid) for agent in self.agents if agent.pid is not None]
        return Kept([place for place, _ in living], [pid for _, pid in living], self.directory)


def _cold_mib(options: Options) -> int:
    return max(1, options.mib // COLD_PART)


def _seconds(progress: Progress, now: float) -> float:
    if progress.began is None:
        return 0.0
    return (now if progress.ended is None else progress.ended) - progress.began


@contextmanager
def _removed_unless_kept(demo: _Demo) -> Iterator[None]:
    """End the agents and remove the directory, however the block ends."""
    try:
        yield
    finally:
        if not (demo.options.keep and demo.succeeded):
            for agent in demo.agents:
                agent.kill()
            shutil.rmtree(demo.directory, ignore_errors=True)


async def _all(calls: list[Callable[[], Awaitable[None]]]) -> None:
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)


def _failure(group: BaseExceptionGroup[Exception], demo: _Demo) -> DemoFailed:
    """Return what a person is told: the first error, and the end of every agent's log."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    logs = [agent.tail() for agent in demo.agents if agent.place.log.exists()]
    return DemoFailed("\n".join([str(first) or type(first).__name__, *logs]))
