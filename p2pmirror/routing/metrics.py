"""What routing counts; one object a node, because a simulation runs many nodes in one process."""

from prometheus_client import CollectorRegistry, Gauge

from p2pmirror.telemetry.metrics import Tally


class RoutingMetrics:
    """The metrics of one node, registered with `registry`.

    Labels: `kind` is a message's class name in lower case; `direction` in, out; `reason` undecodable, too_large,
    unasked, too_small; `outcome` of a lookup found, nobody, abandoned, of a want led, follows, provided, alone; `state`
    alive, suspect, gone.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them; ValueError when the registry has them already."""
        self.datagrams = Tally(
            "p2pmirror_routing_datagrams", "Datagrams by kind and direction", ["kind", "direction"], registry=registry
        )
        self.dropped = Tally(
            "p2pmirror_routing_dropped", "Datagrams that were dropped, by reason", ["reason"], registry=registry
        )
        self.lookups = Tally("p2pmirror_routing_lookups", "Lookups by outcome", ["outcome"], registry=registry)
        self.members = Gauge("p2pmirror_routing_members", "Other members by state", ["state"], registry=registry)
        self.wants = Tally("p2pmirror_routing_wants", "Wants by what was answered", ["outcome"], registry=registry)
        self.leases = Gauge("p2pmirror_routing_leases", "Keys of which this node knows who leads", registry=registry)
        self.advertised = Gauge("p2pmirror_routing_advertised_keys", "Keys that this node has", registry=registry)

    def datagram(self, kind: type, direction: str) -> None:
        """Count a datagram by the class of its question or answer."""
        self.datagrams.counts[kind, direction] += 1

    def drop(self, reason: str) -> None:
        """Count a datagram that was dropped."""
        self.dropped.counts[reason,] += 1

    def lookup(self, outcome: str) -> None:
        """Count a lookup that has ended."""
        self.lookups.counts[outcome,] += 1

    def want(self, outcome: str) -> None:
        """Count a want that was answered: this node leads, another does, somebody has it, or nobody else is there."""
        self.wants.counts[outcome,] += 1
