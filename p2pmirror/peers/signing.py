"""How a question to a peer shows that it comes from a member: with the cluster's key, or not at all without one."""

from collections.abc import Callable
from typing import Protocol

from p2pmirror.errors import Unreachable
from p2pmirror.wire.binding import UNBOUND, Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.keyring import KeyRing
from p2pmirror.wire.peer_auth import AUTH_HEADER, Asked, prove


class Signer(Protocol):
    """Makes the fields that prove who asks."""

    def fields(self, node_id: NodeId, asked: Asked) -> dict[str, str]:
        """Return the header fields to add to a question to `node_id`. Raises `Unreachable` when it cannot be asked."""
        ...


class Unsigned:
    """A cluster without a key: nothing is proved."""

    def fields(self, node_id: NodeId, asked: Asked) -> dict[str, str]:  # noqa: ARG002 - see Signer
        """Return none."""
        return {}


class Signed:
    """A cluster with a key: `binding_of` says what a node's boot id and clock are now, or `UNBOUND`."""

    def __init__(self, ring: KeyRing, binding_of: Callable[[NodeId], Binding]) -> None:
        """Sign with the first key of `ring`."""
        self._ring = ring
        self._binding_of = binding_of

    def fields(self, node_id: NodeId, asked: Asked) -> dict[str, str]:
        """Return the proof. Raises `Unreachable` for a node that never answered a ping: it would refuse us."""
        binding = self._binding_of(node_id)
        if binding == UNBOUND:
            raise Unreachable(f"peer {node_id.hex()[:8]} has not told its boot id and clock yet")
        return {AUTH_HEADER: prove(self._ring, asked, binding)}
