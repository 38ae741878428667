"""What an earlier try has left of a blob, on its way into the flight that goes on with it.

Laws: nothing of it is read or given to anybody before it was hashed again and is what was noted; what is not, or cannot
be read, is fetched like the rest, and nobody is blamed for it; readers follow from the first piece that is right.
"""

import logging

from p2pmirror.errors import Unreachable
from p2pmirror.resolve.flight import Flight
from p2pmirror.store.cache.protocol import Incoming

_log = logging.getLogger(__name__)


async def resume(flight: Flight) -> None:
    """Hash what was left of an open flight, the beginning first. Cancellation: what was hashed counts."""
    incoming = flight.incoming
    if incoming is None or not flight.unproven:
        return
    try:
        await _prove_prefix(flight, incoming)
        await _prove_pieces(flight, incoming)
    except Unreachable as error:
        _log.debug("what was left of %s cannot be read: %s", flight.digest, error)
    finally:
        flight.disprove([*flight.unproven])


async def _prove_prefix(flight: Flight, incoming: Incoming) -> None:
    first = 0
    for end in incoming.left.prefixes:
        if not await incoming.prove_to(end):
            _log.debug("what was left of %s is wrong before byte %d", flight.digest, end)
            break
        following = -(-end // flight.piece_bytes)
        for index in range(first, following):
            flight.prove(index)
        first = following
    by_themselves = {offset // flight.piece_bytes for offset in incoming.left.pieces}
    flight.disprove(flight.unproven - by_themselves)


async def _prove_pieces(flight: Flight, incoming: Incoming) -> None:
    for offset in incoming.left.pieces:
        index = offset // flight.piece_bytes
        if index in flight.have:
            continue
        found = await incoming.prove_piece(offset)
        if found is not None and flight.hashes.get(index, found) == found:
            flight.prove(index, found)
        else:  # wrong, or not what a peer claims that it is
            flight.disprove([index])
