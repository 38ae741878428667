"""Where the bytes of one relay come from: one peer after another, each from the very next byte.

Laws:
- each byte is given once and in order, whoever sent it;
- a source that breaks, stalls or drips is left for the next one, a slow one only when there is another;
- who gave nothing is not asked again; who was left for being slow only when nobody else is left: so every relay ends;
- when nobody is left, or nobody but a source that gives next to nothing, `Unreachable` is raised.
"""

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Final

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.peers.protocol import GATHER_S
from p2pmirror.resolve.delivery import SLOW_S, Delivery, State
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.race import Sources, Won
from p2pmirror.resolve.want import Content, Trail
from p2pmirror.routing.protocol import Provider
from p2pmirror.wire.identity import NodeId

WATCH_S: Final = 0.5  # between two looks at what a source delivers
ASK_AGAIN_S: Final = 5.0  # after nobody else was there for a slow source: providers do not come by the second
SLOW_MAX: Final = 2  # sources left for being slow: when a third one is as slow, it is not the sources
FIRST_BYTES: Final = 1 << 20  # of a source are taken as they come: more than a client that reads nothing lets in
GIVEN_UP_S: Final = 60.0  # a peer given up is not asked for that digest: containerd, cut, asks for the rest at once

Reopen = Callable[[int, AbstractSet[NodeId]], Awaitable[Won]]
"""Asks for the content from a byte on, of anybody but these nodes; raises `NotHere`."""


class Supply:
    """Bytes from `position` to `end` of one content: from `first`, and then from whoever else has it."""

    def __init__(
        self,
        content: Content,
        position: int,
        end: int,
        first: Won,
        *,
        reopen: Reopen,
        sources: Sources,
        trail: Trail,
        metrics: ResolveMetrics,
    ) -> None:
        """Own the answer in `first`; `reopen` finds the next one."""
        self.position = position  # the next byte that is wanted
        self.end = end
        self.used: list[Provider] = []
        self._content = content
        self._reopen = reopen
        self._sources = sources
        self._trail = trail
        self._metrics = metrics
        self._left: set[NodeId] = set()  # not to be asked again in this relay
        self._resting: set[NodeId] = set()  # to be asked again only when nobody else is left
        self._slow_left = 0
        self._ask_again_at = 0.0
        self._current: Won | None = None
        self._began_at = position  # the byte from which the current source was asked
        self._began_s = 0.0
        self._surplus = 0  # bytes that the current source sends first and that are here already
        self._delivery = Delivery()
        self._receiving = trio.CancelScope()
        self._meter = sources.intake.meter()
        self._is_leaving = False  # the watch wants the current source left, for `_next` or for nobody
        self._next: Won | None = None
        self._next_at = position
        self._take(first, position)

    def close(self) -> None:
        """Let go of the peers; waits for nothing, twice does no harm."""
        self._drop_current()
        if self._next is not None:
            self._next.answer.close()
            self._next = None

    async def fill(self, buffer: memoryview) -> int:
        """Fill the front of `buffer` with the next bytes, at least one; raises `Unreachable`.

        Cancelled, no byte is lost. One task at a time.
        """
        while True:
            await self._meter.ready()
            if self._is_leaving:
                self._leave()
            if self._current is None:
                self._take(await self._find_next(), self.position)
            assert self._current is not None
            try:
                with trio.CancelScope() as self._receiving:
                    count = await self._receive(self._current, buffer)
                    if count > 0:
                        return count
            except Unreachable:
                self._break_off()
            finally:
                self._delivery.ends_waiting(trio.current_time())

    async def watch(self) -> None:
        """Look at what the current source delivers and find another when that is too little, until cancelled."""
        while True:
            await trio.sleep(WATCH_S)
            current, now = self._current, trio.current_time()
            if current is None or self._is_leaving:
                continue
            state = self._state()
            if state == "good" or (state == "slow" and not self._is_worth_asking(now)):
                continue
            offset = self.position
            found = await self._alternative(current.provider.node_id)
            if self._current is not current or self._state() == "good":  # it broke, or goes on after all
                if found is not None:
                    found.answer.close()
            elif found is not None or self._delivery.is_hopeless(trio.current_time()):
                self._leave_for(found, offset, state)
            else:
                self._ask_again_at = now + ASK_AGAIN_S

    def _state(self) -> State:
        return self._delivery.look(trio.current_time(), self._sources.scores.usual_rate())

    def _is_worth_asking(self, now: float) -> bool:
        """Return whether somebody else may be asked for the rest of what a slow source has begun."""
        rest_s = self._delivery.rest_s(self.end - self.position, now)
        return self._slow_left < SLOW_MAX and now >= self._ask_again_at and rest_s > SLOW_S

    def _leave_for(self, found: Won | None, offset: int, state: State) -> None:
        """Have the current source left, for one that was asked from `offset` on, or for nobody."""
        self._metrics.stalls.inc()
        self._slow_left += state == "slow"
        self._next, self._next_at = found, offset
        self._is_leaving = True
        self._receiving.cancel()

    async def _receive(self, current: Won, buffer: memoryview) -> int:
        """Receive bytes that are wanted; 0 when they were here already."""
        room = buffer[: self._surplus] if self._surplus else buffer[: self.end - self.position]
        self._delivery.waits(trio.current_time())
        gather_s = GATHER_S if self.position - self._began_at >= FIRST_BYTES else 0.0
        count = await current.answer.receive_into(self._meter.room(room), gather_s)
        self._meter.took(count)
        self._metrics.took_from(current.provider.zone, self._sources.options.zone, count)
        if count == 0:
            raise Unreachable("the peer ended early")
        self._delivery.ends_waiting(trio.current_time(), count)
        if self._surplus:
            self._surplus -= count
            return 0
        self.position += count
        return count

    async def _alternative(self, current: NodeId) -> Won | None:
        try:
            return await self._reopen(self.position, self._left | self._resting | {current})
        except NotHere:
            return None

    async def _find_next(self) -> Won:
        """Return the next source after one broke."""
        for without in (self._left | self._resting, self._left):
            try:
                return await self._reopen(self.position, without)
            except NotHere:
                continue
        raise Unreachable(f"no peer is left for {self._content.digest} at byte {self.position} of {self._content.size}")

    def _take(self, won: Won, offset: int) -> None:
        """Go on with a source that was asked from `offset` on."""
        if self.used:
            self._trail.resumes += 1
            self._metrics.resumes.inc()
        self.used.append(won.provider)
        self._trail.peers.append(won.provider.node_id)
        self._current = won
        self._surplus = self.position - offset
        self._began_at = self.position
        self._began_s = trio.current_time()
        self._delivery = Delivery()
        self._sources.scores.began(won.provider.node_id)

    def _break_off(self) -> None:
        """Leave a source that broke; one that gave something may be asked again, after the others."""
        assert self._current is not None
        if self.position == self._began_at:
            self._left.add(self._current.provider.node_id)
        self._sources.broke(self._current.provider)
        self._drop_current()

    def _leave(self) -> None:
        """Leave a source that gives too little, for the one that the watch found; raises `Unreachable` without one."""
        self._is_leaving = False
        if self._current is not None:  # it may have broken meanwhile
            provider = self._current.provider
            (self._left if self.position == self._began_at else self._resting).add(provider.node_id)
            self._sources.broke(provider)
            self._drop_current()
            if self._next is None:
                why = f"next to nothing came at byte {self.position} of {self._content.size}"
                self._sources.scores.ban(provider.node_id, self._content.digest, trio.current_time(), why, GIVEN_UP_S)
                raise Unreachable(why)
        found, self._next = self._next, None
        if found is not None:
            self._take(found, self._next_at)

    def _drop_current(self) -> None:
        if self._current is not None:
            won, self._current = self._current, None
            won.answer.close()
            seconds = trio.current_time() - self._began_s
            self._sources.scores.ended(won.provider.node_id, self.position - self._began_at, seconds)
