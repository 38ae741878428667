"""Follows containerd: connects, walks, listens to events, walks again; and begins anew when containerd has gone.

Laws:
- it never gives up: while containerd is away it tries again, 0.1 s later at first and every 2 s at last;
- the subscription stands before the first walk, so that nothing falls between the two; what still does (gRPC does not
  say when a subscription counts, containerd 1.6 has no events of content) is found by a look every `POLL_S`;
- an image's event is acted on at once, a full walk follows a little later and takes many events together.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable

import trio
from google.protobuf.message import DecodeError

from p2pmirror.errors import MirrorError, Unreachable
from p2pmirror.store.containerd.api.containerd_pb2 import ContentEvent, Envelope, ImageEvent
from p2pmirror.store.containerd.client import ContainerdClient
from p2pmirror.store.containerd.grpc import Responses, RpcError
from p2pmirror.store.containerd.walker import Walker, limit

POLL_S = 5.0  # between two looks at images and content; each costs some milliseconds
WALK_AFTER_EVENT_S = 0.3  # one pull makes a handful of events within this time
WALK_SHARE = 10  # pauses between walks last this many times a walk: walking takes a tenth of a core at most
SUBSCRIBED_S = 0.5  # a subscription counts after some milliseconds; what came in them is found by a second look
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
EVENTS_MAX = 1_000  # not yet acted on; more (an import of hundreds of images) are replaced by one full walk

_log = logging.getLogger(__name__)


class Watch:
    """Keeps a `Walker` at work. `waiting_for` is why the inventory is not being followed now, None when it is."""

    def __init__(self, client: ContainerdClient, walker: Walker, address: str) -> None:
        self._client = client
        self._walker = walker
        self._address = address
        self._events: deque[Envelope] = deque()
        self._woken = trio.Event()
        self._walk_at = 0.0
        self._followed = False  # whether a walk has ended since the last connection was made
        self.waiting_for: str | None = f"containerd at {address}: not asked yet"

    async def run(self) -> None:
        """Follow containerd until cancelled."""
        retry_s = RETRY_FIRST_S
        while True:
            why, followed = await self._follow_once()
            self._lost(why)
            retry_s = RETRY_FIRST_S if followed else min(2 * retry_s, RETRY_MAX_S)
            await trio.sleep(retry_s)

    def look_soon(self) -> None:
        """Walk again, trusting nothing: what was listed turned out not to be there."""
        self._walker.distrust()
        self._plan_walk(WALK_AFTER_EVENT_S)
        self._wake()

    async def _follow_once(self) -> tuple[str, bool]:
        """Follow one connection to its end; return why it ended, and whether it had been walked."""
        self._followed = False
        self._events.clear()
        why: list[str] = []
        try:
            with limit():
                await self._walker.begin()
            async with self._client.events() as events, trio.open_nursery() as nursery:

                async def until_it_fails(step: Callable[[], Awaitable[None]]) -> None:
                    try:
                        await step()
                    except (RpcError, MirrorError) as error:
                        why.append(str(error))
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_it_fails, lambda: self._listen(events))
                nursery.start_soon(until_it_fails, self._keep_walking)
        except (RpcError, MirrorError) as error:
            why.append(str(error))
        return why[0] if why else "the events ended", self._followed

    async def _listen(self, events: Responses[Envelope]) -> None:
        async for event in events:
            if len(self._events) < EVENTS_MAX:
                self._events.append(event)
            self._plan_walk(WALK_AFTER_EVENT_S)
            self._wake()
        raise Unreachable("containerd ended its events")

    async def _keep_walking(self) -> None:
        while True:
            began = trio.current_time()
            self._walk_at = began + (POLL_S if self._followed else SUBSCRIBED_S)
            await self._walker.walk()
            self._found()
            now = trio.current_time()
            pause_until = min(now + WALK_SHARE * (now - began), began + POLL_S)
            while self._events or max(self._walk_at, pause_until) > trio.current_time():
                self._woken = trio.Event()
                while self._events:
                    await self._act(self._events.popleft())
                with trio.CancelScope(deadline=max(self._walk_at, pause_until)):
                    await self._woken.wait()

    async def _act(self, event: Envelope) -> None:
        """Do what an event asks for. One that cannot be read is passed over: the walk to come sees what it was."""
        try:
            match event.topic:
                case "/images/create" | "/images/update":
                    if not await self._walker.image_came(ImageEvent.FromString(event.event.value).name):
                        self._plan_walk(0.0)
                case "/images/delete":
                    self._walker.image_went(ImageEvent.FromString(event.event.value).name)
                case "/content/create":
                    await self._walker.content_came(ContentEvent.FromString(event.event.value).digest)
                case "/content/delete":
                    self._walker.content_went(ContentEvent.FromString(event.event.value).digest)
        except DecodeError:
            _log.warning("an event of containerd's about %s cannot be read", event.topic[:100])

    def _plan_walk(self, delay_s: float) -> None:
        self._walk_at = min(self._walk_at, trio.current_time() + delay_s)

    def _wake(self) -> None:
        self._woken.set()

    def _found(self) -> None:
        self._followed = True
        if self.waiting_for is not None:
            self.waiting_for = None
            _log.info("following containerd at %s", self._address)

    def _lost(self, why: str) -> None:
        now = f"containerd at {self._address}: {why}"
        if self.waiting_for != now:
            if self.waiting_for is None or not self.waiting_for.endswith(why):
                _log.warning("waiting for %s", now)
            self.waiting_for = now
