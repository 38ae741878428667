"""Several nodes that ask one registry in memory, and one another as their fronts would let them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from p2pmirror.errors import MirrorError, NotHere, Unreachable
from p2pmirror.oci import ManifestPath, parse_path
from p2pmirror.peers.piecemap import PieceMap
from p2pmirror.peers.protocol import Answer, FlightQuestion, Follow, Question, RegistrySaid
from p2pmirror.resolve.want import Content, Found, InHand, Trail, Want
from p2pmirror.routing.memory import MemoryRouters
from p2pmirror.upstream.memory import MemoryRegistries
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from tests.resolve.registry import REGISTRY, World

WAY_S = 0.001  # to another node, and back

Lie = Callable[[Question], Awaitable[Answer]]


@dataclass
class SaidAnswer:
    """An answer of these bytes, or of none after a HEAD; see `peers.protocol.Answer`."""

    digest: str | None
    size: int
    media_type: str | None
    data: bytes = b""
    offset: int = 0
    count: int = 0
    piece_hash: bytes | None = None
    is_open: bool = True

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        await trio.sleep(WAY_S)
        part, self.data = self.data[: len(buffer)], self.data[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self.is_open = False


@dataclass
class Neighbours:
    """The nodes, by number, and how they are asked; `lies` are what single ones answer instead of the truth."""

    registries: MemoryRegistries = field(default_factory=lambda: MemoryRegistries(REGISTRY))
    routers: MemoryRouters = field(default_factory=MemoryRouters)
    worlds: dict[int, World] = field(default_factory=dict)
    lies: dict[int, Lie] = field(default_factory=dict)
    asked: Counter[int] = field(default_factory=Counter)  # questions that each got
    answers: list[SaidAnswer] = field(default_factory=list)

    async def ask(self, node_id: NodeId, _address: Address, question: Question) -> Answer:
        number = node_id[0]
        self.asked[number] += 1
        await trio.sleep(WAY_S)
        if number in self.lies:
            return await self.lies[number](question)
        path = parse_path(question.path)
        assert isinstance(path, ManifestPath)
        want = Want(
            "manifest",
            question.registry,
            path.repository,
            path.reference,
            head=question.method == "HEAD",
            from_peer=NodeId(bytes(20)),
            waits_s=question.waits_s,
        )
        return self._answer(await _found(self.worlds[number], want))

    def _answer(self, found: Found) -> Answer:
        assert not hasattr(found, "file"), "nothing here is held in a store"
        data = found.data if isinstance(found, InHand) else b""
        content: Content = found.content
        answer = SaidAnswer(str(content.digest), content.size, content.media_type, data, count=content.size)
        self.answers.append(answer)
        return answer

    async def map(self, *_: object, **__: object) -> PieceMap:
        raise NotHere("nothing arrives in pieces")

    async def next(self, _node: NodeId, _address: Address, _question: FlightQuestion, **__: object) -> Answer | None:
        raise NotHere("nothing arrives in pieces")

    async def all(self, ask: Callable[[World], Awaitable[Found]], *, numbers: Sequence[int] = ()) -> list[object]:
        """Have all nodes, or these, ask at the same moment; return what each found, or the error that it met."""
        outcomes: dict[int, object] = {}

        async def one(number: int) -> None:
            try:
                outcomes[number] = await ask(self.worlds[number])
            except MirrorError as error:
                outcomes[number] = error

        numbers = numbers or list(self.worlds)
        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(one, number)
        return [outcomes[number] for number in numbers]

    @property
    def leader(self) -> int:
        """The one node that is leading something."""
        (number,) = [number for number, world in self.worlds.items() if world.router.led]
        return number


async def _found(world: World, want: Want) -> Found:
    """Ask a node as its front does, which tells a peer no more than these errors."""
    try:
        return await world.resolver.find(want, Trail())
    except (RegistrySaid, Follow):
        raise
    except NotHere:
        raise NotHere("404") from None
    except MirrorError as error:
        raise Unreachable(str(error)) from None


@asynccontextmanager
async def neighbours(count: int, **options: Any) -> AsyncIterator[Neighbours]:
    """Run so many nodes without a cache, that know one another."""
    there = Neighbours()
    async with trio.open_nursery() as nursery:
        for number in range(1, count + 1):
            world = World(number=number, registries=there.registries, routers=there.routers, peers=there, **options)
            there.worlds[number] = world
            await nursery.start(world.through.questions.run)
        yield there
        nursery.cancel_scope.cancel()
