"""Who a node is on the wire: its id and the headers that say so."""

from typing import NewType

NODE_ID_BYTES = 20  # 160 bits: the width of kademlia's XOR distance

NodeId = NewType("NodeId", bytes)
"""20 random bytes, drawn at a node's first start and kept in its `data_dir`."""

PEER_HEADER = "P2PMirror-Peer"  # the sender's node id in hexadecimal: answer from what you hold, do not fan out
FOLLOWS_HEADER = "P2PMirror-Follows"  # the sender can follow another node's flight, and may be told to
WAITS_HEADER = "P2PMirror-Waits"  # the sender was told that the receiver is asking for this: how long it waits, in ms
PIECE_HEADER = "P2PMirror-Piece"  # the sha256 that the sender claims for the piece that it gives
LEADER_HEADER = "P2PMirror-Leader"  # with a 503: the node id to follow instead; the receiver's: it is still asking
HOLDERS_HEADER = "P2PMirror-Holders"  # with a 503: node ids to ask instead, separated by commas
UPSTREAM_HEADER = "P2PMirror-Upstream"  # with a 404: the status that the registry gave to a question waited for


def parse_node_id(text: str) -> NodeId:
    """Read 40 hexadecimal digits; ValueError for anything else."""
    raw = bytes.fromhex(text) if len(text) == 2 * NODE_ID_BYTES and text.isascii() and text.isalnum() else b""
    if len(raw) != NODE_ID_BYTES:
        raise ValueError(f"a node id is {2 * NODE_ID_BYTES} hexadecimal digits, not {text[:60]!r}")
    return NodeId(raw)
