"""A world of hosts in one process: their links, names, power and partitions, on trio's clock and a given Random.

Laws:
- no task runs for the world and no real time passes in it: a run with the same seed and schedule is the same run;
- a host whose power is off, or that is behind a partition, is silent: nothing is refused and nothing is reset;
- a dial to a host that runs but does not listen is refused after one round trip.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from random import Random

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_datagrams import MemoryDatagrams
from p2pmirror.wire.memory_link import Link, Path, Wakeup
from p2pmirror.wire.memory_pipe import Pipe
from p2pmirror.wire.memory_ports import Ports, is_loopback
from p2pmirror.wire.memory_streams import MemoryListener, MemoryStream

__all__ = ["Link", "MemoryNetwork", "MemoryWorld"]


class MemoryWorld:
    """All hosts; `link` joins every two that have no link of their own. `names` is the name server's table."""

    def __init__(self, random: Random, *, link: Link | None = None) -> None:
        self.names: dict[str, list[str]] = {}
        self.changed = Wakeup()
        self._random = random
        self._link = link or Link()
        self._links: dict[tuple[MemoryNetwork, MemoryNetwork], Link] = {}
        self._owners: dict[str, MemoryNetwork] = {}
        self._hosts: list[MemoryNetwork] = []
        self._off: set[MemoryNetwork] = set()
        self._sides: dict[MemoryNetwork, int] = {}
        self._connections: list[tuple[MemoryNetwork, MemoryStream, MemoryNetwork, MemoryStream]] = []

    def host(self, *hosts: str) -> "MemoryNetwork":
        """Add a host with these numeric hosts; it has 127.0.0.1 and ::1 besides. ValueError when one is taken."""
        plain = [Address.of(host, 0).host for host in hosts]
        taken = [host for host in plain if host in self._owners]
        if taken:
            raise ValueError(f"{taken[0]} already belongs to a host of this world")
        network = MemoryNetwork(self, plain)
        self._hosts.append(network)
        self._owners.update(dict.fromkeys(plain, network))
        return network

    def set_link(self, one: "MemoryNetwork", other: "MemoryNetwork", link: Link) -> None:
        """Join two hosts, in both directions, by a link of their own; what is on its way keeps its time."""
        self._links[one, other] = self._links[other, one] = link

    def power_off(self, network: "MemoryNetwork") -> None:
        """Silence a host: what its tasks send is lost or waits, and nobody hears of it."""
        with self._change():
            self._off.add(network)

    def power_on(self, network: "MemoryNetwork") -> None:
        """Let a host come back without memory: its ports are closed, and its old connections are reset."""
        with self._change():
            self._off.discard(network)
            self._drop_sockets(network, reset_all=True)

    def kill(self, network: "MemoryNetwork") -> None:
        """Close everything that a host has open, as a kernel does for a killed process; the host itself runs on."""
        with self._change():
            self._drop_sockets(network, reset_all=False)

    def partition(self, *groups: "Iterable[MemoryNetwork]") -> None:
        """Cut the world into these groups; hosts that are not named form one more."""
        with self._change():
            self._sides = {network: side for side, group in enumerate(groups, 1) for network in group}

    def heal(self) -> None:
        """End the partition; what waited on connections goes on."""
        with self._change():
            self._sides = {}

    @property
    def open_streams(self) -> int:
        """Ends of connections that nobody has closed."""
        self._forget_closed()
        return sum((not ours.closed) + (not theirs.closed) for _, ours, _, theirs in self._connections)

    def owner(self, host: str, asker: "MemoryNetwork") -> "MemoryNetwork | None":
        """Return the host that has a numeric host, as `asker` sees it; None when nobody has."""
        return self._owners.get(host) or (asker if is_loopback(host) else None)

    def path(self, source: "MemoryNetwork", target: "MemoryNetwork") -> Path:
        """Return the way from one host to another, or to itself."""
        return Path(lambda: self._is_up(source, target), lambda: self._link_between(source, target))

    def carry(self, data: bytes, source: Address, path: Path, port: MemoryDatagrams) -> None:
        """Send a datagram on its way."""
        if path.is_up():
            for at in path.link().deliveries(trio.current_time(), self._random):
                port.arrive(data, source, at, path)

    def join(self, source: "MemoryNetwork", local: Address, target: "MemoryNetwork", remote: Address) -> MemoryStream:
        """Connect two hosts; return the end at `source` and queue the other one. Raises KeyError: nobody listens."""
        listener = target.ports.listener(remote)
        there, back = Pipe(self.path(source, target)), Pipe(self.path(target, source))
        wakeup = Wakeup()
        ours = MemoryStream(local, remote, back, there, wakeup)
        theirs = MemoryStream(remote, local, there, back, wakeup)
        self._forget_closed()
        self._connections.append((source, ours, target, theirs))
        # The dialler's last word of the handshake has yet to arrive: one latency to him and one back.
        ready_at = trio.current_time() + back.path.link().latency_s + there.path.link().latency_s
        listener.enqueue(theirs, ready_at)
        return ours

    def _is_up(self, source: "MemoryNetwork", target: "MemoryNetwork") -> bool:
        if source in self._off or target in self._off:
            return False
        return source is target or self._sides.get(source, 0) == self._sides.get(target, 0)

    def _link_between(self, source: "MemoryNetwork", target: "MemoryNetwork") -> Link:
        return Link() if source is target else self._links.get((source, target), self._link)

    def _drop_sockets(self, network: "MemoryNetwork", *, reset_all: bool) -> None:
        network.ports.close_all()
        for one, ours, other, theirs in list(self._connections):
            for owner, stream in ((one, ours), (other, theirs)):
                if owner is network:
                    stream.close_now(reset=reset_all or stream.has_unread)

    def _forget_closed(self) -> None:
        self._connections = [entry for entry in self._connections if not (entry[1].closed and entry[3].closed)]

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Deliver what has arrived by now, change the world, and let everybody look at it again."""
        now = trio.current_time()
        for network in self._hosts:
            network.ports.settle(now)
        for _, ours, _, _ in self._connections:
            ours.settle(now)
        yield
        for _, ours, _, _ in self._connections:
            ours.wake()
        self.changed.wake()


class MemoryNetwork:
    """One simulated host, as `network.Network` describes it; made by `MemoryWorld.host`."""

    def __init__(self, world: MemoryWorld, hosts: list[str]) -> None:
        self.hosts = hosts
        self.ports = Ports([*hosts, "127.0.0.1", "::1"])
        self._world = world

    async def connect(self, address: Address) -> MemoryStream:
        """Dial. Raises `Unreachable` when nobody listens; waits without end for a silent host. Cancellation: undone."""
        await trio.lowlevel.checkpoint()
        if address.is_unspecified:
            raise Unreachable(f"{address} is an address to listen on, not to dial")
        target, path = await self._way_to(address)
        local = Address(self._source_host(address), self.ports.next_port())
        try:
            stream = self._world.join(self, local, target, address)
        except KeyError:
            await trio.sleep(path.link().latency_s)
            raise Unreachable(f"{address} cannot be dialled: Connection refused") from None
        try:
            await trio.sleep(path.link().latency_s)
        except trio.Cancelled:
            stream.close_now()
            raise
        return stream

    async def listen(self, address: Address) -> MemoryListener:
        """Listen for streams; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
        await trio.lowlevel.checkpoint()
        listener = MemoryListener(self.ports.choose("tcp", address), self.ports.release_listener)
        self.ports.add_listener(listener)
        return listener

    async def open_datagrams(self, address: Address) -> MemoryDatagrams:
        """Bind a datagram port; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
        await trio.lowlevel.checkpoint()
        bound = self.ports.choose("udp", address)
        port = MemoryDatagrams(bound, self._deliver, self.ports.release_datagrams)
        self.ports.add_datagrams(port)
        return port

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return what the world's table says. Raises `Unreachable` for a name that is not in it."""
        await trio.lowlevel.checkpoint()
        try:
            return [Address.of(host, port)]
        except ValueError:
            found = self._world.names.get(host)
        if not found:
            raise Unreachable(f"the name {host!r} has no address")
        return sorted({Address.of(numeric, port) for numeric in found})

    async def source_host(self, towards: Address) -> str:
        """Return this host's first numeric host of the same family. Raises `Unreachable` when it has none."""
        await trio.lowlevel.checkpoint()
        return self._source_host(towards)

    def _source_host(self, towards: Address) -> str:
        if is_loopback(towards.host):
            return "::1" if towards.is_ipv6 else "127.0.0.1"
        for host in self.hosts:
            if (":" in host) == towards.is_ipv6:
                return host
        raise Unreachable(f"there is no route to {towards.host}: this host has no address of that family")

    async def _way_to(self, address: Address) -> tuple["MemoryNetwork", Path]:
        """Wait until a first word has reached the host of `address`; a dialling kernel asks again and again."""
        while True:
            target = self._world.owner(address.host, self)
            if target is not None:
                path = self._world.path(self, target)
                if path.is_up():
                    await trio.sleep(path.link().latency_s)
                if path.is_up():
                    return target, path
            await self._world.changed.wait()

    def _deliver(self, port: MemoryDatagrams, data: bytes, to: Address) -> None:
        target = self._world.owner(to.host, self)
        if target is None or (port.address.host != "::" and port.address.is_ipv6 != to.is_ipv6):
            return
        there = target.ports.datagrams(to)
        try:
            host = self._source_host(to) if port.address.is_unspecified else port.address.host
        except Unreachable:
            return
        if there is not None:
            self._world.carry(data, Address(host, port.address.port), self._world.path(self, target), there)
