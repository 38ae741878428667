"""A world of hosts in one process: their links, rates, names, power and faults, on trio's clock and a given Random.

Laws:
- no task runs for the world and no real time passes in it: a run with the same seed and schedule is the same run;
- a host whose power is off, or that is behind a partition, is silent: nothing is refused and nothing is reset;
- a dial to a host that runs but does not listen is refused after one round trip;
- with an agenda nothing here sleeps on trio's clock.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_connection import Connection
from p2pmirror.wire.memory_host import MemoryNetwork
from p2pmirror.wire.memory_link import Agenda, Link, Observe
from p2pmirror.wire.memory_pipe import PIPE_BYTES
from p2pmirror.wire.memory_ports import is_loopback
from p2pmirror.wire.memory_timing import AgendaTiming, Timing, WaitersTiming, Wakeup
from p2pmirror.wire.memory_topology import Topology, Way
from p2pmirror.wire.memory_traffic import Traffic

__all__ = ["Agenda", "Link", "MemoryNetwork", "MemoryWorld", "Observe"]


class MemoryWorld:
    """All hosts; `link` joins every two that have no link of their own. `names` is the name server's table.

    `agenda` keeps the time of everything that happens here; without one, the tasks that wait do. `observe` is told of
    every datagram that is handed over, and of every piece of a stream, FIN and reset that arrives: `kind` is
    "datagram", "stream", "fin" or "reset".
    """

    def __init__(
        self,
        random: Random,
        *,
        link: Link | None = None,
        agenda: Agenda | None = None,
        observe: Observe | None = None,
    ) -> None:
        self.names: dict[str, list[str]] = {}
        self.timing: Timing = WaitersTiming() if agenda is None else AgendaTiming(agenda)
        self.topology = Topology(link or Link())
        self.traffic = Traffic(self.timing)
        self.pipe_bytes = PIPE_BYTES
        self.observe = observe
        self.changed = Wakeup(self.timing)
        self.random = random
        self._owners: dict[str, MemoryNetwork] = {}
        self._connections: dict[Connection, None] = {}  # in the order of dialling

    def host(self, *hosts: str, upload_rate: float | None = None, download_rate: float | None = None) -> MemoryNetwork:
        """Add a host with these numeric hosts; it has 127.0.0.1 and ::1 besides. ValueError when one is taken.

        Its rates are as in `set_rates`.
        """
        plain = [Address.of(host, 0).host for host in hosts]
        taken = [host for host in plain if host in self._owners or is_loopback(host)]
        if taken:
            raise ValueError(f"{taken[0]} already belongs to a host of this world")
        network = MemoryNetwork(self, plain)
        self._owners.update(dict.fromkeys(plain, network))
        if upload_rate is not None or download_rate is not None:
            self.set_rates(network, upload_rate=upload_rate, download_rate=download_rate)
        return network

    def set_rates(
        self, network: MemoryNetwork, *, upload_rate: float | None = None, download_rate: float | None = None
    ) -> None:
        """Let the streams of a host share this many bytes a second, max-min fairly; None is without a limit.

        Holds from now on, also for what is under way. Datagrams pass at once. ValueError unless above 0.
        """
        self.traffic.set_rates(network, upload_rate, download_rate)

    def set_link(self, one: MemoryNetwork, other: MemoryNetwork, link: Link) -> None:
        """Join two hosts, in both directions, by a link of their own; what is on its way keeps its time."""
        self.topology.set_link(one, other, link)

    def power_off(self, network: MemoryNetwork) -> None:
        """Silence a host: what its tasks send is lost or waits, and nobody hears of it."""
        with self._change():
            self.topology.set_power(network, on=False)

    def power_on(self, network: MemoryNetwork) -> None:
        """Let a host come back without memory: what its process had open is gone, its old connections are reset."""
        with self._change():
            self.topology.set_power(network, on=True)
            network.kill()
            for connection in list(self._connections):
                connection.lose_memory(network)

    def kill(self, network: MemoryNetwork) -> None:
        """Close all that a host's process has open, as a kernel does when it dies; the host itself runs on.

        The others hear FIN, or a reset where bytes were unread. The tasks of the dead process wait for ever in what
        they had open or were dialling, until they are cancelled; what is opened from now on belongs to the next one.
        """
        with self._change():
            network.kill()
            for connection in list(self._connections):
                connection.kill(network)

    def partition(self, *groups: Iterable[MemoryNetwork]) -> None:
        """Cut the world into these groups; hosts that are not named form one more."""
        with self._change():
            self.topology.partition(groups)

    def block(self, sources: Iterable[MemoryNetwork], targets: Iterable[MemoryNetwork]) -> None:
        """Let nothing through from the sources to the targets, but all the other way.

        Datagrams are lost, what is sent on streams waits, and nobody can dial either way: a dial needs an answer.
        Acknowledgements are not simulated, so a stream goes on in its open direction.
        """
        with self._change():
            self.topology.block(list(sources), list(targets))

    def unblock(self, sources: Iterable[MemoryNetwork], targets: Iterable[MemoryNetwork]) -> None:
        """Take back a `block` of the same groups; nothing happens when there is none."""
        with self._change():
            self.topology.unblock(list(sources), list(targets))

    def heal(self) -> None:
        """End the partition and every block; what waited on connections goes on."""
        with self._change():
            self.topology.heal()

    def reset(self, one: MemoryNetwork, other: MemoryNetwork) -> None:
        """Break every connection between two hosts, as a box between them may: both ends see a reset at once."""
        with self._change():
            for connection in self._connections:
                if {connection.source, connection.target} == {one, other}:
                    connection.reset()

    @property
    def open_streams(self) -> int:
        """Ends of connections that nobody has closed."""
        return sum(connection.open_ends for connection in self._connections)

    def owner(self, host: str, asker: MemoryNetwork) -> MemoryNetwork | None:
        """Return the host that has a numeric host, as `asker` sees it; None when nobody has."""
        return self._owners.get(host) or (asker if is_loopback(host) else None)

    def way(self, source: MemoryNetwork, target: MemoryNetwork) -> Way:
        """Return the way from one host to another, or to itself."""
        return Way(self.topology, source, target)

    def carry(self, data: bytes, source: Address, home: MemoryNetwork, to: Address) -> None:
        """Send a datagram on its way from a host, which calls itself `source`."""
        target = self._owners.get(to.host)
        if target is None:
            if not is_loopback(to.host):
                return
            target = home
        topology = self.topology
        if not (topology.whole or topology.is_up(home, target)):
            return
        link = topology.link(home, target)
        arrive = partial(self._arrive, data, source, home, target, to)
        if link.steady:
            self.timing.at(trio.current_time() + link.latency_s, arrive)
        else:
            for at in link.deliveries(trio.current_time(), self.random):
                self.timing.at(at, arrive)

    def join(self, source: MemoryNetwork, local: Address, target: MemoryNetwork, remote: Address) -> Connection | None:
        """Connect two hosts, and queue the end of the one that was dialled; None when nobody listens there."""
        listener = target.listeners.at(remote)
        if listener is None:
            return None
        connection = Connection(self, source, local, target, remote)
        self._connections[connection] = None
        # The dialler's last word of the handshake has yet to arrive: one latency to him and one back.
        listener.enqueue(connection.theirs, trio.current_time() + connection.latency_s)
        return connection

    def forget(self, connection: Connection) -> None:
        """Let go of a connection whose ends are both closed."""
        self._connections.pop(connection, None)

    def _arrive(self, data: bytes, source: Address, home: MemoryNetwork, target: MemoryNetwork, to: Address) -> None:
        if self.topology.whole or self.topology.is_up(home, target):
            port = target.datagrams.at(to)
            if port is not None:
                port.arrive(data, source, to)

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Deliver what has arrived by now, change the world, and let everybody look at it again."""
        self.timing.catch_up()
        yield
        for connection in list(self._connections):
            connection.advance()
        self.changed.wake()
