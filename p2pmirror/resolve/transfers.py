"""What is under way, as the status page and `status` show it: one line for each blob that arrives or is passed on."""

from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.passing import Passage
from p2pmirror.resolve.protocol import Origin, Transfer
from p2pmirror.resolve.relay import Relay
from p2pmirror.resolve.want import Want


def of_passage(passage: Passage, began: float, now: float) -> Transfer:
    """Tell of a blob that a registry sends to one reader."""
    count, registry = passage.position - passage.start, passage.name.partition("/")[0]
    origins = (Origin(None, count, registry),)
    return Transfer(passage.digest, passage.name, passage.size, count, None, 0, now - began, registry, origins)


def of_relay(relay: Relay, want: Want, now: float) -> Transfer:
    """Tell of a blob that a peer sends to one reader."""
    content = relay.content
    return Transfer(
        content.digest, want.name, content.size, relay.position, relay.peer, relay.trail.resumes, now - relay.began
    )


def of_flight(flight: Flight, now: float) -> Transfer:
    """Tell of a blob that is shared while it arrives; its peer is whose stream it is, else whoever gave most."""
    streaming = flight.streams_from() if flight.streaming is not None else ()
    peer = streaming[-1] if streaming else max(flight.used, key=lambda node_id: flight.used[node_id], default=None)
    registry = flight.registry if flight.leads and flight.is_from_registry else ""
    return Transfer(
        flight.digest,
        flight.name,
        flight.size,
        flight.arrived,
        peer,
        0,
        now - flight.began,
        registry,
        tuple(_origins(flight)),
        flight.readers,
        len(flight.follows_now(now)),
    )


def _origins(flight: Flight) -> list[Origin]:
    """Return whose bytes are in a flight; what came as a stream is told from pieces by what is left of them."""
    counts = {node_id: count for node_id, count in flight.used.items() if count}
    streamed = max(0, flight.arrived - sum(counts.values()) - flight.resumed)
    peers = flight.streams_from()
    if streamed and peers and not flight.is_from_registry:
        counts[peers[-1]] = counts.get(peers[-1], 0) + streamed
    origins = [Origin(node_id, count) for node_id, count in counts.items()]
    if streamed and flight.is_from_registry:
        origins.append(Origin(None, streamed, flight.registry))
    return sorted(origins, key=lambda origin: -origin.count)
