"""Whole agents in one process: production `Node`s on the hosts of a simulated world, each with its own disk."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from p2pmirror.config import load
from p2pmirror.errors import Unreachable
from p2pmirror.node import Node
from p2pmirror.oci import Digest, TagName
from p2pmirror.resolve.flight import PieceSizes
from p2pmirror.resolve.hashing import hashing_inline
from p2pmirror.rooms import Running, Seams, monotonic_ms
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.store.memoryfiles.opened import MemoryOpenFile
from p2pmirror.store.ocilayout import LayoutWriter
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import ClientOptions, ClientResponse, HttpClient
from p2pmirror.wire.memory import Link, MemoryNetwork, MemoryWorld
from tests.store.images import Image

LAYOUT = Path("/images")
REGISTRY_PORT, ROUTER_PORT, PAGE_PORT = 29999, 29998, 9090
LAN = Link(latency_s=0.0002)
NEWS_S = 2.0  # DESIGN: within it the others know what is new
DEATH_S = 10.0  # a node that died silently is handed out no longer than this
BYTES_MAX = 1 << 30


class CountingFiles(MemoryFiles):
    """Files in memory that know how many are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open_files: set[int] = set()

    async def open(self, path: Path) -> MemoryOpenFile:
        file = await super().open(path)
        if path.is_relative_to(LAYOUT / "blobs"):  # `read_whole` opens the others, and there is nothing to close
            self.open_files.add(id(file))
            closing = file.close

            def close() -> None:
                self.open_files.discard(id(file))
                closing()

            file.close = close  # type: ignore[method-assign]  # the twin has nothing to hook into
        return file


@dataclass
class Member:
    """One node of the cluster with its host and its disk."""

    host: str
    network: MemoryNetwork
    files: CountingFiles
    node: Node
    stop: trio.Event
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    running: Running | None = None

    @property
    def id(self) -> str:
        assert self.running is not None
        return self.running.node_id.hex()


@dataclass
class Answer:
    """What a client got: `cut` when the body ended short of its length."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool = False


class Cluster:
    """Nodes 10.0.0.1, 10.0.0.2, …, each bootstrapping at the first two; and a client on a host of its own."""

    def __init__(self, nursery: trio.Nursery, *, link: Link = LAN, seed: int = 0) -> None:
        self.world = MemoryWorld(Random(seed), link=link)
        self.members: list[Member] = []
        self.seed = seed
        self._nursery = nursery
        self.client_host = self.world.host("10.9.9.9")
        self._client = HttpClient(self.client_host, ClientOptions(dial_timeout_s=1.0))

    # --- nodes ---

    def make(
        self,
        host: str | None = None,
        *,
        files: CountingFiles | None = None,
        kind: type[Node] = Node,
        network: Any = None,
        clock_ms: Callable[[], int] = monotonic_ms,
        piece_sizes: PieceSizes | None = None,
        **settings: str,
    ) -> Member:
        """Build a node that does not run yet; `settings` as flags, in place of the harness's own."""
        number = len(self.members)
        host = host or f"10.0.0.{number + 1}"
        network = network or self.world.host(host)
        files = files or CountingFiles()
        texts = {
            "store": f"oci-layout:{LAYOUT}",
            "bootstrap": f"static:10.0.0.1:{ROUTER_PORT},10.0.0.2:{ROUTER_PORT}",
            "shutdown_grace": "5s",
            **settings,
        }
        config = load({}, {key: text for key, text in texts.items() if text is not None})
        random = Random(f"{self.seed}/{number}")
        sizes = piece_sizes or PieceSizes()
        metrics = CollectorRegistry()
        seams = Seams(network, files, random, hashing_inline, metrics, clock_ms=clock_ms, piece_sizes=sizes)
        member = Member(host, network, files, kind(config, seams), trio.Event())
        self.members.append(member)
        return member

    async def start(self, member: Member) -> Member:
        """Let a node run; returns once it says that it does."""
        member.running = await self._nursery.start(self._run, member)
        return member

    async def add(self, host: str | None = None, *, image: Image | None = None, **settings: Any) -> Member:
        """Build a node, give it an empty layout or one with `image`, and let it run."""
        member = self.make(host, **settings)
        await LayoutWriter(LAYOUT, member.files).prepare()
        if image is not None:
            await put(member, image)
        return await self.start(member)

    async def ready(self, *members: Member, within_s: float = 10.0) -> None:
        """Wait until these nodes, or all, say that they are ready and know one another."""
        waited = members or tuple(self.members)
        with trio.fail_after(within_s):
            for member in waited:
                while (await self.page(member, "/readyz")).status != 200:  # noqa: ASYNC110  # another program would poll too
                    await trio.sleep(0.05)
        await trio.sleep(NEWS_S)

    async def _run(self, member: Member, *, task_status: trio.TaskStatus[Running]) -> None:
        try:
            with member.scope:
                await member.node.run(member.stop, task_status=task_status)
        finally:
            member.ended.set()

    def kill(self, member: Member) -> None:
        """End a node's process: its sockets close, it says nothing more."""
        self.world.kill(member.network)
        member.scope.cancel()

    def power_off(self, member: Member) -> None:
        """Silence a node's host, whose process is no longer heard of."""
        self.world.power_off(member.network)

    async def end(self) -> None:
        """Stop every node in order and close the client."""
        await self.close_client()
        for member in self.members:
            member.stop.set()
        for member in self.members:
            if member.running is not None:
                with trio.fail_after(30):
                    await member.ended.wait()

    async def close_client(self) -> None:
        """Close the connections that the client keeps."""
        await self._client.aclose()

    # --- questions ---

    async def get(
        self, member: Member, path: str, *, ns: str | None = "registry.example", method: str = "GET", **headers: str
    ) -> Answer:
        """Ask a node's registry port, as containerd does."""
        target = f"{path}?ns={ns}" if ns else path
        return await self.ask(Address(member.host, REGISTRY_PORT), target, method, headers)

    async def page(self, member: Member, path: str) -> Answer:
        """Ask a node's observability port."""
        return await self.ask(Address(member.host, PAGE_PORT), path, "GET", {})

    async def page_json(self, member: Member, path: str) -> dict[str, Any]:
        """Return an object of a node's JSON API."""
        answer = await self.page(member, path)
        assert answer.status == 200, answer.body
        value: dict[str, Any] = json.loads(answer.body)
        return value

    async def ask(self, address: Address, target: str, method: str, headers: dict[str, str]) -> Answer:
        """Ask an address; a body that is cut short is said to be."""
        fields = {"Host": str(address), **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self._client.request(address, method, target, fields) as response:
            body, cut = await _read(response)
            return Answer(response.status, dict(response.headers), body, cut)

    async def pulls(self, member: Member, image: Image, *, ns: str = "registry.example", name: str = "app") -> None:
        """Pull a whole image through a node, by tag and by digest, and check every byte."""
        for tag in image.tags:
            head = await self.get(member, f"/v2/{name}/manifests/{tag.tag}", ns=ns, method="HEAD")
            assert (head.status, head.headers["docker-content-digest"]) == (200, str(image.root.digest))
            answer = await self.get(member, f"/v2/{name}/manifests/{tag.tag}", ns=ns)
            assert (answer.status, answer.body) == (200, image.content[image.root.digest][0])
            assert answer.headers["content-type"] == image.root.media_type
        for digest, (data, media_type) in image.content.items():
            kind = "manifests" if "manifest" in media_type or "index" in media_type else "blobs"
            path = f"/v2/{name}/{kind}/{digest}"
            head = await self.get(member, path, ns=ns, method="HEAD")
            assert (head.status, head.headers["content-length"]) == (200, str(len(data)))
            answer = await self.get(member, path, ns=ns)
            assert (answer.status, answer.cut, answer.body) == (200, False, data)

    async def knows(self, member: Member, digest: Digest) -> set[str]:
        """Return the ids of the nodes that a node finds for a digest."""
        found = await self.page_json(member, f"/api/v1/find?digest={digest}")
        return {each["node_id"] for each in found["providers"]}

    async def until_known(self, member: Member, digest: Digest, expected: set[str], within_s: float) -> None:
        """Wait until exactly these nodes are found for a digest."""
        known: set[str] | None = None
        with trio.move_on_after(within_s):
            while (known := await self.knows(member, digest)) != expected:  # noqa: ASYNC110  # another program would poll too
                await trio.sleep(0.05)
            return
        raise AssertionError(f"{member.host} finds {known} and not {expected} after {within_s} s")


async def _read(response: ClientResponse) -> tuple[bytes, bool]:
    buffer, body = bytearray(1 << 16), bytearray()
    try:
        while count := await response.receive_into(memoryview(buffer)):
            body += buffer[:count]
    except Unreachable:
        return bytes(body), True
    return bytes(body), False


@asynccontextmanager
async def cluster(count: int = 0, *, seed: int = 0, link: Link = LAN, **settings: str) -> AsyncIterator[Cluster]:
    """Run `count` nodes with empty layouts; whatever happens, all is over at the end, and nothing is open."""
    async with trio.open_nursery() as nursery:
        whole = Cluster(nursery, link=link, seed=seed)
        for _ in range(count):
            await whole.add(**settings)
        if count:
            await whole.ready()
        yield whole
        await whole.end()
        nursery.cancel_scope.cancel()
    assert whole.world.open_streams == 0
    assert [member.host for member in whole.members if member.files.open_files] == []


async def put(member: Member, image: Image) -> None:
    """Write an image into a node's layout, as another program would."""
    writer = LayoutWriter(LAYOUT, member.files)
    for digest, (data, _) in image.content.items():
        async with writer.blob(digest, len(data)) as sink:
            await sink.write(data)
    for tag in image.tags:
        await writer.tag(tag, image.root)


async def drop(member: Member, *tags: TagName) -> None:
    """Take tags out of a node's layout."""
    for tag in tags:
        await LayoutWriter(LAYOUT, member.files).untag(tag)


def blob_path(digest: Digest) -> Path:
    """Say where a layout keeps content."""
    return LAYOUT / "blobs" / digest.algorithm / digest.hex


def falsify(member: Member, digest: Digest) -> None:
    """Change a blob on a node's disk so that nothing but its bytes tells."""
    now = member.files.entries[blob_path(digest)].now
    now[len(now) // 2] ^= 0xFF


async def eventually(condition: Callable[[], bool], within_s: float) -> None:
    """Wait for something to become true."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110  # whoever makes it true tells nobody
            await trio.sleep(0.05)
