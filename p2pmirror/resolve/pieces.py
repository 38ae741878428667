"""Pieces of one flight from its peers: chosen or given, received, checked and kept.

Laws: a piece is taken only with the hash that somebody claims for it; one that does not match is its sender's fault
when the claim is his own, else it is not clear whose.

DESIGN.md section 4, "Flights and pieces".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from typing import Final

import trio

from p2pmirror.errors import MirrorError, NotHere, PeerMisbehaved, Unreachable
from p2pmirror.oci import blob_path
from p2pmirror.peers.piecemap import Bitmap
from p2pmirror.peers.protocol import Answer, FlightQuestion, Question
from p2pmirror.resolve.fetching import PIECE_S, Fetching, receive
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.neighbour import ANSWER_S, Neighbour, SwarmParts, in_time, stands_against
from p2pmirror.resolve.picking import rarest, wanted, window
from p2pmirror.routing.protocol import Provider
from p2pmirror.wire.identity import NodeId

NEXT_S: Final = 1.0  # a peer that has no piece to give says so by then,
NEXT_S_CROWDED: Final = 4.0  # or by then, where many wait with us
LATE_S: Final = 1.0  # a piece that takes longer than this, and than `LATE` times the usual, is late
LATE: Final = 4.0


class Pieces:
    """Fetches pieces of one flight from its `neighbours`; whoever owns them is told what came, and who lied."""

    def __init__(
        self,
        flight: Flight,
        parts: SwarmParts,
        metrics: ResolveMetrics,
        neighbours: Mapping[NodeId, Neighbour],
        *,
        question: FlightQuestion,
        came: Callable[[Neighbour], None],
        refute: Callable[[NodeId], None],
    ) -> None:
        """Ask nobody yet. `came` is called for each whole and right piece, `refute` for whose claims are wrong."""
        self._flight = flight
        self._parts = parts
        self._metrics = metrics
        self._neighbours = neighbours
        self._question = question
        self._came = came
        self._refute = refute

    async def fetch_one(self, neighbour: Neighbour) -> bool:
        """Ask a peer for a piece that it has; return whether there was one to ask for."""
        if self._choose(neighbour) is None:
            return False
        flight, provider = self._flight, neighbour.provider
        async with self._parts.fetches:
            index = self._choose(neighbour)  # others went on meanwhile
            if index is None:
                return False
            offset, count = flight.extent(index)
            path = blob_path(flight.repository, flight.digest)
            question = Question(path, flight.registry, offset=offset, count=count)
            ask = partial(self._parts.peers.ask, provider.node_id, provider.address, question)
            with Fetching(flight, index):
                await self._take_piece(neighbour, index, await in_time(0.0, ask))
        return True

    def _choose(self, neighbour: Neighbour) -> int | None:
        """Return the piece to ask a peer for; None: it has none that is wanted."""
        flight, have = self._flight, neighbour.have
        if have is None or flight.incoming is None:
            return None
        candidates = [index for index in self._wanted() if index in have and neighbour.tells(index, flight.hashes)]
        others = [each.have for each in self._neighbours.values() if each.have is not None]
        return rarest(candidates, others, self._parts.random)

    async def fetch_next(self, neighbour: Neighbour) -> bool:
        """Ask a peer that spreads for a piece of its choice; return whether it gave one."""
        flight, provider = self._flight, neighbour.provider
        if flight.incoming is None:
            return False
        wants = self._wanted()
        if not wants:
            return False
        first = wants[0]
        lacks = Bitmap(wants[-1] - first + 1)
        for index in wants:
            lacks.add(index - first)
        wait_s = NEXT_S_CROWDED if neighbour.is_crowded else NEXT_S
        answer = await in_time(wait_s, partial(self._ask_next, provider, first, bytes(lacks), wait_s))
        if answer is None:
            return True  # it waited for us
        try:
            index = self._given(answer, wants)
        except BaseException:
            answer.close()
            raise
        if index in flight.have or flight.streaming == index:
            answer.close()
            return True
        with Fetching(flight, index):
            await self._take_piece(neighbour, index, answer)
        return True

    async def _ask_next(self, provider: Provider, first: int, lacks: bytes, wait_s: float) -> Answer | None:
        return await self._parts.peers.next(
            provider.node_id, provider.address, self._question, first=first, lacks=lacks, wait_s=wait_s
        )

    def _given(self, answer: Answer, wants: list[int]) -> int:
        """Return which piece a peer gives. Raises `PeerMisbehaved`."""
        flight = self._flight
        index = answer.offset // flight.piece_bytes
        if index not in wants or (answer.offset, answer.count) != flight.extent(index) or answer.size != flight.size:
            raise PeerMisbehaved(f"{flight.digest}: bytes {answer.offset} and on were not asked for")
        return index

    def _wanted(self) -> list[int]:
        flight, rate = self._flight, self._parts.scores.usual_rate()
        first = flight.written // flight.piece_bytes
        missing = [i for i in window(flight.have, first, flight.unproven) if i != flight.streaming]
        late_s = LATE_S if rate is None else max(LATE_S, LATE * flight.piece_bytes / rate)
        return wanted(missing, flight.fetching, trio.current_time() - late_s)

    async def _take_piece(self, neighbour: Neighbour, index: int, answer: Answer) -> None:
        """Receive a piece, check it and have it. Raises `Unreachable`, `PeerMisbehaved`, `StoreFull`."""
        flight, scores, node_id = self._flight, self._parts.scores, neighbour.node_id
        began, count = trio.current_time(), 0
        scores.began(node_id)
        try:
            data, meter, waited_s = memoryview(bytearray(answer.count)), self._parts.intake.meter(), 0.0
            while count < len(data):
                waited_s += await meter.ready()
                got = await receive(answer, meter.room(data[count:]), began + PIECE_S + waited_s)
                meter.took(got)
                count += got
                flight.moved += got
        except Unreachable:
            self._metrics.piece("lost")
            self._metrics.resumes.inc()  # the flight goes on from somebody else
            raise
        finally:
            answer.close()
            scores.ended(node_id, count, trio.current_time() - began)
            self._metrics.took_from(neighbour.provider.zone, self._parts.zone, count)
        self._learn_from(neighbour, index, answer)
        piece_hash = await self._checked(neighbour.node_id, index, data)
        if index not in flight.have and flight.incoming is not None:
            begin = flight.begins_at(index)
            await flight.incoming.put(begin, data[begin - flight.extent(index)[0] :])
            flight.used[node_id] = flight.used.get(node_id, 0) + len(data)
            self._came(neighbour)
            self._metrics.piece("leader" if neighbour.spreads else "peer")
            flight.add(index, piece_hash)
            await flight.incoming.note(flight.extent(index)[0], piece_hash)

    def _learn_from(self, neighbour: Neighbour, index: int, answer: Answer) -> None:
        """Take the hash in that came with a piece."""
        if answer.piece_hash is not None:
            stands = stands_against(neighbour.node_id, self._neighbours)
            self._flight.learn(neighbour.node_id, {index: answer.piece_hash}, stands)

    async def _checked(self, sender: NodeId, index: int, data: memoryview) -> bytes:
        """Return the hash of a piece, once somebody claims the same one. Raises `MirrorError`."""
        flight, hasher = self._flight, sha256()
        await self._parts.hashing(hasher, data)
        found = hasher.digest()
        if flight.have.count == 1 and flight.digest.algorithm == "sha256":
            claimed: bytes | None = bytes.fromhex(flight.digest.hex)
        else:
            with trio.move_on_after(ANSWER_S):
                while index not in flight.hashes:
                    await flight.wait_for_pieces()
            claimed = flight.hashes.get(index)
        if claimed is None:
            raise Unreachable(f"nobody tells the hash of piece {index}")
        if found != claimed:
            self._metrics.piece("wrong")
            raise self._contradiction(sender, index)
        return found

    def _contradiction(self, sender: NodeId, index: int) -> MirrorError:
        """Return what it means for its sender that a piece is not what somebody claims."""
        flight = self._flight
        claimant = flight.claimed_by.get(index) if flight.have.count > 1 else None
        text = f"{flight.digest}: piece {index} has another hash than is claimed"
        if claimant is None or claimant == sender:
            return PeerMisbehaved(text)
        if flight.contradicts(sender, claimant):
            self._refute(claimant)
        return NotHere(f"{text} by another node")
