"""Who a node is on the wire: its id and the header that says so."""

from typing import NewType

NODE_ID_BYTES = 20  # 160 bits: the width of kademlia's XOR distance

NodeId = NewType("NodeId", bytes)
"""20 random bytes, drawn at a node's first start and kept in its `data_dir`."""

PEER_HEADER = "P2PMirror-Peer"  # the sender's node id in hexadecimal: answer from what you hold, do not fan out


def parse_node_id(text: str) -> NodeId:
    """Read 40 hexadecimal digits; ValueError for anything else."""
    raw = bytes.fromhex(text) if len(text) == 2 * NODE_ID_BYTES and text.isascii() and text.isalnum() else b""
    if len(raw) != NODE_ID_BYTES:
        raise ValueError(f"a node id is {2 * NODE_ID_BYTES} hexadecimal digits, not {text[:60]!r}")
    return NodeId(raw)
