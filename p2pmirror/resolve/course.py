"""Where a blob that is not here comes from: a peer that has all of it, the node that is fetching it, or the registry.

Laws:
- a peer that has all of it comes first, then whoever leads, then, for one node of the cluster, the registry;
- whoever was followed and failed is followed no more: then this node asks for itself, which costs a copy, not a pull;
- peers that are only told to have parts are no reason to wait;
- whoever is led by nobody whom it believes goes to the registry by itself, and leads others of its kind;
- while something comes of those who are being asked nobody else is looked for: what is slow is still under way;
- when nothing came since it was asked last the holder is asked who leads now, whoever is followed;
- what comes from another zone comes by one node of this one, the others follow that node: it leads in its zone.

DESIGN.md section 4, "Leader: one node fetches from upstream".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from typing import Final

import trio

from p2pmirror.errors import NotHere, only_error
from p2pmirror.oci import Digest, blob_path
from p2pmirror.peers.protocol import Question
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.race import OnlyParts, Sources, Won
from p2pmirror.resolve.steering import OpenAt, Step, Stream
from p2pmirror.resolve.supply import Supply
from p2pmirror.resolve.want import Content, Trail, Want
from p2pmirror.routing.protocol import Key, Provider, border_key_of, key_of
from p2pmirror.upstream.protocol import Download
from p2pmirror.wire.identity import NodeId

FOLLOWED_MAX: Final = 2  # times that a node is followed anew after it was lost: it may have been restarted
ALONE_S: Final = 1.0  # within which those who cannot follow anybody go to the registry, one after another
BUFFER_BYTES: Final = 512 * 1024  # what a peer's stream is read in


class BlobCourse:
    """The course of one blob; see `steering.Course`."""

    def __init__(
        self,
        want: Want,
        digest: Digest,
        sources: Sources,
        metrics: ResolveMetrics,
        *,
        trail: Trail,
        from_registry: OpenAt | None,
    ) -> None:
        """Find it for `want`; `from_registry` opens it there, None: it is not to be asked."""
        self.parts: tuple[Provider, ...] | None = None  # who has parts, where whoever made the course knows already
        self._digest = digest
        self._sources = sources
        self._metrics = metrics
        self._trail = trail
        self._from_registry = from_registry
        self._followed: dict[NodeId, int] = {}  # how often each was followed
        self._moved = -1  # how many bytes had come when it was asked last
        self.question = Question(blob_path(want.repository, digest), want.registry, follows=True)

    async def next(self, flight: Flight, company: AbstractSet[NodeId]) -> Step:
        """Return where more is; see `steering.Course`."""
        parts, self.parts = self.parts, None
        is_stuck, has_moved = flight.moved == self._moved, flight.moved > max(0, self._moved)
        self._moved = flight.moved
        if parts is None:
            if has_moved and company:
                return Step(None)
            index = next(flight.missing(), 0) if flight.opened.is_set() else 0
            try:
                won = await self._first(index * flight.piece_bytes if index else 0, company)
                return await self.across(won, company)
            except OnlyParts as error:
                parts = error.providers
            except NotHere:
                parts = ()
        return await self._without_holder(parts, company, is_stuck=is_stuck)

    async def across(self, won: Won, company: AbstractSet[NodeId] = frozenset()) -> Step:
        """Return the stream of a peer that has answered, or whom to follow where one of this zone has a far one's."""
        if not self._is_far(won.provider):
            return Step(self.stream(won))
        try:
            leader, border = await self._border(company)
        except BaseException:
            won.answer.close()
            raise
        if leader is None:
            return Step(self.stream(won), border=border)
        won.answer.close()
        return Step(None, (leader,))

    def stream(self, won: Won) -> Stream:
        """Return the stream of a peer that has answered, and of others after it."""
        stream = _PeerStream(self, won)
        return Stream(stream.open_at, is_registry=False, close=stream.close, used=stream.used)

    def supply(self, won: Won, start: int) -> Supply:
        """Return the bytes of a peer from `start` on, and of others when it breaks."""
        content = Content(self._digest, won.answer.size, won.answer.media_type)

        async def reopen(offset: int, without: AbstractSet[NodeId]) -> Won:
            found = await self.again(offset, without)
            if found.answer.size != content.size:  # one of two is wrong, and only the digest will say which
                found.answer.close()
                raise NotHere(f"{content.digest} has {content.size} bytes, and a peer says {found.answer.size}")
            return found

        return Supply(
            content,
            start,
            content.size,
            won,
            reopen=reopen,
            sources=self._sources,
            trail=self._trail,
            metrics=self._metrics,
        )

    async def _without_holder(
        self, parts: tuple[Provider, ...], company: AbstractSet[NodeId], *, is_stuck: bool
    ) -> Step:
        """Return where it comes from when no peer gives all of it, and some have `parts`. Raises `NotHere`."""
        fresh = self._followable(tuple(each for each in parts if each.leading or self._from_registry is None), company)
        if fresh or (not is_stuck and any(each.leading and each.node_id in company for each in parts)):
            return await self._followed_from_here(fresh, parts, company)
        if self._from_registry is None:
            if not company:
                raise NotHere(f"no peer has {self._digest}, or more of it")
            return Step(None)
        grant = await self._sources.router.want(key_of(self._digest))
        known = (*parts, *(each for each in grant.providers if not each.complete))
        leaders = () if grant.leader is None else (grant.leader,)
        if self._followable(leaders, company) or any(each.node_id in company for each in leaders):
            return await self._followed_from_here(leaders, known, company)
        if grant.leads:
            return Step(Stream(self._from_registry, is_registry=True), known)
        return await self._alone(known, frozenset(each.node_id for each in grant.providers if each.complete))

    async def _followed_from_here(
        self, leaders: tuple[Provider, ...], parts: tuple[Provider, ...], company: AbstractSet[NodeId]
    ) -> Step:
        """Return a step that follows those of this zone; others only where this node does it for the zone."""
        everybody = (*leaders, *parts)
        near = tuple(each for each in everybody if not self._is_far(each))
        if len(near) == len(everybody) or any(each.node_id in company for each in everybody if self._is_far(each)):
            return Step(None, everybody)
        leader, border = None, None
        if not any(each.leading for each in near):
            leader, border = await self._border(company)
            if leader is None:
                return Step(None, everybody, border)
        for each in leaders:
            if self._is_far(each):
                self._not_followed(each)
        return Step(None, near if leader is None else (leader, *near))

    async def _border(self, company: AbstractSet[NodeId]) -> tuple[Provider | None, Key | None]:
        """Return who of this zone fetches from others, None: this node is to, under the lease that is returned.

        No lease: whoever has it is of no use here.
        """
        key = border_key_of(self._digest, self._sources.options.zone)
        grant = await self._sources.router.want(key)
        leader = grant.leader
        is_near = leader is not None and not self._is_far(leader)
        if leader is not None and is_near and (leader.node_id in company or self._followable((leader,), company)):
            return leader, None
        return None, key if grant.leads else None

    def _is_far(self, provider: Provider) -> bool:
        """Whether a provider is known to be of another zone."""
        zone = self._sources.options.zone
        return bool(zone) and bool(provider.zone) and provider.zone != zone

    def _not_followed(self, provider: Provider) -> None:
        """Take back that a node is followed."""
        count = self._followed.pop(provider.node_id, 0) - 1
        if count > 0:
            self._followed[provider.node_id] = count

    async def _alone(self, known: tuple[Provider, ...], holders: AbstractSet[NodeId]) -> Step:
        """Go to the registry without a lease: `holders`, or who leads, do not give it to this node, perhaps to none.

        Others may be as badly off at the same moment: each looks once more after a while of its own, so that the first
        one leads the others. It asks none of these then: one that lets it wait would make old what it has seen.
        """
        assert self._from_registry is not None
        try:
            return Step(self.stream(await self._first(0)))
        except OnlyParts as error:
            known = error.providers
        except NotHere:
            pass
        await trio.sleep(_share_of(self._sources.router.node_id, self._digest) * ALONE_S)
        told = await self._sources.told(self._digest)
        fresh = self._followable(tuple(each for each in (*told, *known) if each.leading), frozenset())
        if fresh:
            return Step(None, (*fresh, *known))
        if any(each.complete and each.node_id not in holders for each in told):
            with suppress(NotHere):
                return Step(self.stream(await self.again(0, holders)))
        return Step(Stream(self._from_registry, is_registry=True), known)

    def _followable(self, providers: tuple[Provider, ...], company: AbstractSet[NodeId]) -> tuple[Provider, ...]:
        """Return those that are not in company, not banned, nor followed in vain too often; they are followed now."""
        now, scores = trio.current_time(), self._sources.scores
        fresh = tuple(
            each
            for each in providers
            if each.node_id not in company
            and self._followed.get(each.node_id, 0) < FOLLOWED_MAX
            and not scores.banned(each.node_id, self._digest, now)
        )
        for node_id in {each.node_id for each in fresh}:  # who is named twice is followed once
            self._followed[node_id] = self._followed.get(node_id, 0) + 1
        return fresh

    async def _first(self, offset: int, company: AbstractSet[NodeId] = frozenset()) -> Won:
        """Ask peers that have all of it. Raises `NotHere`, among them `OnlyParts`."""
        is_let_down = any(node_id not in company for node_id in self._followed)
        question = replace(self.question, offset=offset, follows=not is_let_down)
        return await self._sources.first(self._digest, question, self._trail)

    async def again(self, offset: int, without: AbstractSet[NodeId]) -> Won:
        """Ask peers that have all of it but these, for a stream that broke. Raises `NotHere`."""
        question = replace(self.question, offset=offset, follows=False)
        return await self._sources.first(self._digest, question, self._trail, without=without)


def _share_of(node_id: NodeId, digest: Digest) -> float:
    """Return a number from 0 to 1 that differs from node to node, and from digest to digest."""
    return int.from_bytes(sha256(node_id + str(digest).encode()).digest()[:4], "big") / 2**32


class _PeerStream:
    """What peers that have all of a blob send, one after another."""

    def __init__(self, course: BlobCourse, won: Won) -> None:
        self._won: Won | None = won
        self._course = course
        self._supplies: list[Supply] = []

    def used(self) -> list[NodeId]:
        return [provider.node_id for supply in self._supplies for provider in supply.used]

    def close(self) -> None:
        won, self._won = self._won, None
        if won is not None:
            won.answer.close()

    @asynccontextmanager
    async def open_at(self, start: int) -> AsyncIterator[Download]:
        """Go on from a byte; see `steering.OpenAt`."""
        if self._won is not None and self._won.answer.offset == start:
            won, self._won = self._won, None
        else:
            self.close()
            won = await self._course.again(start, frozenset())
        supply = self._course.supply(won, start)
        self._supplies.append(supply)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supply.watch)
                yield _PeerDownload(supply)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise only_error(group) from None
        finally:
            supply.close()


class _PeerDownload:
    """See `upstream.protocol.Download`."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    @property
    def size(self) -> int:
        """Length of the whole blob."""
        return self._supply.end

    async def receive(self) -> bytes:
        """Return the next bytes."""
        if self._supply.position >= self._supply.end:
            return b""
        return bytes(self._buffer[: await self._supply.fill(self._buffer)])
