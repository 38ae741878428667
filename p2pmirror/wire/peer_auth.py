"""The proof that a peer's request comes from somebody with the cluster's key: made by who asks, checked by who answers.

Laws:
- the proof covers what is asked for (method, target, Range), who asks, and the receiver's binding: it is of no use for
  anything else, from anybody else, to anybody else, after a restart of the receiver or `AGE_MAX_MS` later;
- the receiver's own clock decides: the sender says what that clock must be showing, as it learnt from a ping;
- nothing that a tag covers is looked at before the tag was found right.

`P2PMirror-Auth: <receiver's boot id, hex>.<receiver's monotonic ms>.<tag, hex>`; DESIGN.md, section 4, "Ports and
endpoints". This module only thinks.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from p2pmirror.wire.binding import AGE_MAX_MS, BOOT_ID_BYTES, Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.keyring import TAG_BYTES, KeyRing

AUTH_HEADER: Final = "P2PMirror-Auth"

Doubt = Literal["unsigned", "wrong_key", "other_boot", "stale"]

_DOMAIN: Final = b"p2pmirror-http"
_PROOF: Final = re.compile(
    rf"(?P<boot>[0-9a-f]{{{2 * BOOT_ID_BYTES}}})\.(?P<clock>[0-9]{{1,20}})\.(?P<tag>[0-9a-f]{{{2 * TAG_BYTES}}})"
)


class Unproven(Exception):
    """A request without a proof that holds; `doubt` is which law it breaks."""

    def __init__(self, doubt: Doubt, message: str) -> None:
        """`message` is for whoever asked, and tells nothing that a stranger may not know."""
        super().__init__(message)
        self.doubt = doubt


@dataclass(frozen=True, slots=True)
class Asked:
    """What a proof is for: `target` is path and query as sent, `byte_range` the Range field's value or empty."""

    method: str
    target: str
    byte_range: str
    sender: NodeId


def prove(ring: KeyRing, asked: Asked, receiver: Binding) -> str:
    """Return the header's value for a request to the node whose binding, as it is now, is `receiver`."""
    bound = f"{receiver.boot_id.hex()}.{receiver.clock_ms}"
    return f"{bound}.{ring.tag(_DOMAIN, *_parts(bound, asked)).hex()}"


def check(ring: KeyRing, asked: Asked, proof: str | None, own: Binding) -> None:
    """Check the header's value (None: there is none) against this node's own binding now. Raises `Unproven`."""
    if proof is None:
        raise Unproven("unsigned", f"a peer's request needs {AUTH_HEADER}: set peer_key_file on that node")
    match = _PROOF.fullmatch(proof)
    if match is None:
        raise Unproven("unsigned", f"{AUTH_HEADER} is a boot id, a time and a tag")
    bound = f"{match['boot']}.{match['clock']}"
    if not ring.verifies(bytes.fromhex(match["tag"]), _DOMAIN, *_parts(bound, asked)):
        raise Unproven("wrong_key", "signed with a key that this node does not have, or for another request")
    if match["boot"] != own.boot_id.hex():
        raise Unproven("other_boot", "signed for another node, or for this one before it was restarted")
    if abs(own.clock_ms - int(match["clock"])) > AGE_MAX_MS:
        raise Unproven("stale", f"signed more than {AGE_MAX_MS // 1000} s ago by this node's clock, or ahead of it")


def _parts(bound: str, asked: Asked) -> tuple[bytes, ...]:
    return (bound.encode(), asked.method.encode(), asked.target.encode(), asked.byte_range.encode(), asked.sender)
