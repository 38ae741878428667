"""One agent: builds the rooms, says who runs inside whom, and in which order all of it starts and stops.

Laws:
- what is shown first comes first: the status page answers while the store is still being walked;
- a stop is: not ready and withdrawn; no new connections; running responses finished within their grace; the DHT; the
  store;
- a bug in one task is logged, and that task begins anew; the agent goes on.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import trio

from p2pmirror.config import BadSetting, Config
from p2pmirror.config.metrics import KeyMetrics
from p2pmirror.config.nodeid import load_node_id
from p2pmirror.config.trust import Trust, load_trust
from p2pmirror.errors import Unreachable
from p2pmirror.rooms import Content, Rooms, Running, Seams, Situation, build
from p2pmirror.routing.advertise import advertise
from p2pmirror.routing.dht.node import DhtOptions, DhtRouter
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import BOOT_ID_BYTES, Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import Listener

RESTART_S: Final = 1.0  # after a bug: short beside a pull, long beside a busy loop
LEAVE_S: Final = 1.5  # for the goodbye, which waits 1 s by itself
SOMEWHERE: Final = Address("192.0.2.1", 9)  # RFC 5737's documentation net: asking for the route to it sends nothing

_log = logging.getLogger(__name__)


class Node:
    """One agent, from its settings to its end."""

    def __init__(self, config: Config, seams: Seams) -> None:
        """Nothing is opened before `run`."""
        self._config = config
        self._seams = seams
        self._stopping = False
        self._boot_id = seams.random.randbytes(BOOT_ID_BYTES)
        self._content = Content(config, seams)
        setting = config.bootstrap
        self._bootstrap = setting.on(seams.network, seams.files, seams.random) if setting is not None else None

    async def run(self, stop: trio.Event, *, task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop` is set and everything has ended in order; `started` once the ports answer.

        Raises `BadSetting` when an address cannot be listened on, or the data directory or the key file cannot be used.
        Cancellation ends everything at once.
        """
        try:
            async with AsyncExitStack() as closing:
                await self._run(stop, closing, task_status)
        except ExceptionGroup as group:
            raise _sole(group) from None

    async def _run(self, stop: trio.Event, closing: AsyncExitStack, task_status: trio.TaskStatus[Running]) -> None:
        config, seams = self._config, self._seams
        trust = await load_trust(config, seams.files)
        node_id = await load_node_id(config.data_dir, seams.files, seams.random)
        # Asking for names may take seconds; until then the ports refuse, upon which containerd goes elsewhere at once.
        host = await self._advertised_host()
        registry = await _bound(closing, "registry_addr", config.registry_addr, seams.network.listen)
        page = await _bound(closing, "observability_addr", config.observability_addr, seams.network.listen)
        async with trio.open_nursery() as nursery:
            router = self._router(node_id, Address(host, registry.address.port), trust)
            await nursery.start(self._kept_up, "router", partial(self._route, router))
            assert router.address is not None, "the router has started, so it has a port"
            running = Running(
                node_id,
                registry_address=Address(host, registry.address.port),
                router_address=Address(host, router.address.port),
                observability_address=page.address,
            )
            rooms = build(config, seams, self._content, Situation(running, router, trust, self._binding, self.reasons))
            closing.push_async_callback(rooms.client.aclose)
            closing.push_async_callback(self._content.upstream.aclose)
            await nursery.start(rooms.web.run, page)
            await nursery.start(self._kept_up, "kept connections", rooms.client.let_go_of_old)
            await nursery.start(self._kept_up, "registries' connections", self._content.upstream.let_go_of_old)
            await nursery.start(self._kept_up, "store", self._content.store.run)
            await nursery.start(self._kept_up, "fetching", rooms.through.questions.run)
            if rooms.flights is not None:
                await nursery.start(self._kept_up, "flights", rooms.flights.run)
            advertising = trio.CancelScope()
            await nursery.start(self._advertise, router, advertising)
            await nursery.start(rooms.front.run, registry)
            await nursery.start(self._kept_up, "key file", partial(trust.run, KeyMetrics(seams.registry)))
            task_status.started(running)
            await stop.wait()
            await self._stop(router, rooms, advertising)
            nursery.cancel_scope.cancel()

    def reasons(self) -> list[str]:
        """Return why this node is not ready; nothing when it is."""
        reasons = ["the agent is stopping"] if self._stopping else []
        if self._content.store.waiting_for is not None:
            reasons.append(self._content.store.waiting_for)
        elif not self._content.store.inventory.walked:
            reasons.append("the store has not been walked yet")
        return reasons

    def _binding(self) -> Binding:
        """Return what ties a request to this life of this node, now."""
        return Binding(self._boot_id, self._seams.clock_ms())

    def _router(self, node_id: NodeId, registry_address: Address, trust: Trust) -> DhtRouter:
        config, seams = self._config, self._seams
        options = DhtOptions(
            node_id=node_id,
            boot_id=self._boot_id,
            listen=config.router_addr,
            registry=registry_address,
            zone=config.zone,
            bootstrap=self._bootstrap,
            seed=config.seed,
        )
        return DhtRouter(
            options,
            seams.network,
            random=seams.random,
            metrics=RoutingMetrics(seams.registry),
            seal=trust.seal(),
            clock_ms=seams.clock_ms,
        )

    async def _route(self, router: DhtRouter, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await router.run(task_status=task_status)
        except OSError as error:
            raise _cannot_listen("router_addr", self._config.router_addr, error) from None

    async def _advertise(
        self, router: DhtRouter, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]
    ) -> None:
        config = self._config
        inventory = self._content.store.inventory
        saying = partial(advertise, inventory, router, config.filters, resolve_tags=config.resolve_tags)
        with scope:
            await self._kept_up("advertiser", saying, task_status=task_status)

    async def _stop(self, router: DhtRouter, rooms: Rooms, advertising: trio.CancelScope) -> None:
        """Stop in order; see the module."""
        self._stopping = True
        deadline = trio.current_time() + self._config.shutdown_grace_s
        advertising.cancel()
        with trio.move_on_after(LEAVE_S):
            await router.leave()
        await rooms.front.drain(deadline)
        await rooms.web.drain(trio.current_time())

    async def _kept_up(
        self,
        name: str,
        run: Callable[..., Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run a task, and again `RESTART_S` after each bug; what goes wrong before it has started is raised."""
        once = _Once(task_status)
        while True:
            try:
                await run(task_status=once)
            except Exception:
                if not once.happened:
                    raise
                _log.exception("%s: a bug ended it; it begins anew", name)
            await trio.sleep(RESTART_S)

    async def _advertised_host(self) -> str:
        """Return the host that peers are told: the one set, listened on, or on the route to the first peer."""
        config, network = self._config, self._seams.network
        if config.advertise_host is not None:
            return config.advertise_host
        if not config.registry_addr.is_unspecified:
            return config.registry_addr.host
        peers = await self._bootstrap.addresses() if self._bootstrap is not None else []
        for towards in (*peers[:1], SOMEWHERE):
            try:
                return await network.source_host(towards)
            except Unreachable:
                continue
        return "127.0.0.1"


class _Once:
    """A task status that passes on the first start of a task that may start again."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self.happened = False
        self._status = status

    def started(self, value: None = None) -> None:
        """Say so, the first time."""
        if not self.happened:
            self.happened = True
            self._status.started(value)


def _sole(group: ExceptionGroup[Exception]) -> Exception:
    """Return the one error that a group was made of; the group when there are several."""
    error: Exception = group
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _bound(
    closing: AsyncExitStack, key: str, address: Address, listen: Callable[[Address], Awaitable[Listener]]
) -> Listener:
    try:
        listener = await listen(address)
    except OSError as error:
        raise _cannot_listen(key, address, error) from None
    closing.push_async_callback(listener.aclose)
    return listener


def _cannot_listen(key: str, address: Address, error: OSError) -> BadSetting:
    return BadSetting(key, str(address), f"an address that can be listened on ({error.strerror or error})")
