"""Whole blobs on their way from this node to peers: one peer at a time has a large one from its first byte.

Laws: whoever else asks for it, and can follow that peer's flight, is sent there, so that this node's link carries each
byte once and the peers' links the rest; whoever cannot, or says that he has tried, is served.

DESIGN.md section 4, "Spreading from a scarce source".
"""

from collections.abc import Callable
from functools import partial

from p2pmirror.oci import Digest
from p2pmirror.peers.protocol import Follow
from p2pmirror.wire.identity import NodeId


class Giving:
    """Who is being given what."""

    def __init__(self) -> None:
        """Nobody is."""
        self._given: dict[Digest, dict[NodeId, int]] = {}

    def begin(self, digest: Digest, to: NodeId) -> Callable[[], None]:
        """Return what is to be called once that response has ended. Raises `Follow` when another peer is given it."""
        given = self._given.setdefault(digest, {})
        for other in given:
            if other != to:
                raise Follow(f"{digest} is being given to another node", other)
        given[to] = given.get(to, 0) + 1
        return partial(self._end, digest, to)

    def _end(self, digest: Digest, to: NodeId) -> None:
        given = self._given[digest]
        given[to] -= 1
        if not given[to]:
            del given[to]
        if not given:
            del self._given[digest]
