"""What the streams of a simulated world send where hosts have rates: a fluid that leaves in steps.

Laws:
- rates are shared max-min fairly (`memory_rates`) among the flows that have something to send on a way that is up; they
  are shared anew, once for all changes of one moment, when a flow begins or stops, or a host's rate changes;
- a flow's progress is exact at every moment; what arrives does so in steps of at most `step_bytes`, so a byte comes up
  to `step_bytes` / rate later than it would in the fluid, and the last byte of a transfer on time;
- only streams have rates: datagrams are small (at most 1,200 bytes each, 50 a second) and pass at once;
- a host has its rate towards all others together, and none towards itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import trio

from p2pmirror.wire.memory_rates import UNLIMITED, share
from p2pmirror.wire.memory_timing import NEVER, Timing

if TYPE_CHECKING:
    from p2pmirror.wire.memory_host import MemoryNetwork
    from p2pmirror.wire.memory_topology import Way

STEP_BYTES = 128 << 10  # 128 KiB, half of what a pipe holds: the next step is in hand when one leaves
SOON_S = 1e-9  # a step that ends within this ends now: far above the rounding of times, far below any wait


class Sender(Protocol):
    """Where a flow's bytes come from."""

    way: Way

    def launch(self, data: bytes, at: float) -> None:
        """Let `data` leave the host at a time."""
        ...


class Flow:
    """What one direction of a connection has to send."""

    __slots__ = ("_left", "_queue", "_sender", "_step", "_ticks_at", "_timing", "_traffic", "_updated_at", "rate")

    def __init__(self, sender: Sender, traffic: Traffic, timing: Timing) -> None:
        self.rate = 0.0  # bytes a second; 0 while it has nothing to send, cannot, or has not been given a share
        self._sender = sender
        self._traffic = traffic
        self._timing = timing
        self._queue: deque[bytes] = deque()
        self._step: list[bytes] = []  # what leaves next, together
        self._left = 0.0  # bytes of it
        self._updated_at = 0.0  # when `_left` was right
        self._ticks_at = NEVER

    @property
    def is_empty(self) -> bool:
        """Whether everything has left."""
        return not (self._step or self._queue)

    @property
    def ends(self) -> tuple[MemoryNetwork, MemoryNetwork]:
        """From where to where."""
        return self._sender.way.source, self._sender.way.target

    def add(self, data: bytes) -> None:
        """Send `data` after what is here; b"" is FIN, which takes no time."""
        self._queue.append(data)
        self.review()

    def review(self) -> None:
        """Begin or stop, as what there is to send and the way demand."""
        if not self.is_empty and self._sender.way.is_up:
            self._traffic.begin(self)
        else:
            self._progress(trio.current_time())
            self._traffic.end(self)

    def clear(self) -> None:
        """Throw away what has not left."""
        self._queue.clear()
        self._step.clear()
        self.review()

    def set_rate(self, rate: float) -> None:
        """Go on at another rate."""
        if rate != self.rate:
            self._progress(trio.current_time())
            self.rate = rate
            self._go_on()

    def _progress(self, now: float) -> None:
        if self.rate and self._step and now > self._updated_at:
            self._left = 0.0 if self.rate == UNLIMITED else self._left - self.rate * (now - self._updated_at)
        self._updated_at = now

    def _go_on(self) -> None:
        """Let leave what is due, and come back for the next."""
        now = trio.current_time()
        while self.rate:
            if not self._step and not self._load():
                self._traffic.end(self)
                return
            due = self._updated_at + max(self._left, 0.0) / self.rate
            if due > now + SOON_S:
                if due < self._ticks_at:
                    self._ticks_at = due
                    self._timing.at(due, self._tick)
                return
            self._updated_at = min(due, now)
            self._left = 0.0
            step, self._step = self._step, []
            for data in step:
                self._sender.launch(data, self._updated_at)

    def _tick(self) -> None:
        now = trio.current_time()
        if now + SOON_S < self._ticks_at:
            return  # the entry of a step that went faster than was thought when it was made
        self._ticks_at = NEVER
        if self.rate:
            self._go_on()

    def _load(self) -> bool:
        """Make a step of what comes first in the queue."""
        size = 0
        step_bytes = self._traffic.step_bytes
        while self._queue and size < step_bytes:
            data = self._queue.popleft()
            room = step_bytes - size
            if len(data) > room:
                self._queue.appendleft(data[room:])
                data = data[:room]
            self._step.append(data)
            size += len(data)
        self._left = size
        return bool(self._step)


class Traffic:
    """All flows, and the rates of hosts in bytes a second."""

    def __init__(self, timing: Timing) -> None:
        self.step_bytes = STEP_BYTES  # less where rates are scaled down: a head must not wait for a body behind it
        self._timing = timing
        self._upload: dict[MemoryNetwork, float] = {}
        self._download: dict[MemoryNetwork, float] = {}
        self._from: dict[MemoryNetwork, dict[Flow, None]] = {}
        self._to: dict[MemoryNetwork, dict[Flow, None]] = {}
        self._changed: dict[MemoryNetwork, None] = {}  # hosts whose flows are to be shared anew

    def set_rates(self, host: MemoryNetwork, upload: float | None, download: float | None) -> None:
        """Set what a host sends and receives at most; None is without a limit. ValueError unless above 0."""
        for rates, rate in ((self._upload, upload), (self._download, download)):
            if rate is None:
                rates.pop(host, None)
            elif 0 < rate < UNLIMITED:
                rates[host] = rate
            else:
                raise ValueError(f"a rate is above 0 bytes a second, or None: {rate}")
        if host in self._from or host in self._to:
            self._plan(host)

    def limits(self, way: Way) -> bool:
        """Whether what goes this way has a rate."""
        if not (self._upload or self._download):
            return False
        return way.source is not way.target and (way.source in self._upload or way.target in self._download)

    def begin(self, flow: Flow) -> None:
        """Give a flow its share, from this moment on."""
        source, target = flow.ends
        if flow not in self._from.setdefault(source, {}):
            self._from[source][flow] = None
            self._to.setdefault(target, {})[flow] = None
            self._plan(source, target)

    def end(self, flow: Flow) -> None:
        """Leave a flow's share to the others."""
        flow.rate = 0.0
        source, target = flow.ends
        if flow in self._from.get(source, ()):
            for flows, host in ((self._from, source), (self._to, target)):
                del flows[host][flow]
                if not flows[host]:
                    del flows[host]
            self._plan(source, target)

    def _plan(self, *hosts: MemoryNetwork) -> None:
        if not self._changed:
            self._timing.at(trio.current_time(), self._share)
        self._changed.update(dict.fromkeys(hosts))

    def _share(self) -> None:
        flows = list(self._concerned())
        self._changed.clear()
        for flow, rate in zip(flows, share([flow.ends for flow in flows], self._upload, self._download), strict=True):
            flow.set_rate(rate)

    def _concerned(self) -> Iterator[Flow]:
        """Every flow whose share may change: those of hosts that changed, and of all with whom they share a rate."""
        seen: set[Flow] = set()
        hosts = list(self._changed)
        known = set(hosts)
        for host in hosts:  # which grows meanwhile
            for flow in (*self._from.get(host, ()), *self._to.get(host, ())):
                if flow in seen:
                    continue
                seen.add(flow)
                yield flow
                source, target = flow.ends
                for other, rates in ((source, self._upload), (target, self._download)):
                    if other in rates and other not in known:
                        known.add(other)
                        hosts.append(other)
