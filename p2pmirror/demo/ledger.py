"""Who got how many bytes from whom, from what the agents say of their last requests.

Laws: it only thinks; what a node received is what its own agent says that it passed on; how an answer that came from
several peers is divided is what those of them that still live say that they sent, and the rest is the dead one's.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

Requests = Iterable[Mapping[str, Any]]
"""Entries of `/api/v1/requests`: `method`, `repository`, `source`, `digest`, `peer` (ids, comma-separated, in the order
in which they were used), `bytes`, and `from_peer` (the id of the node that asked) where a peer asked."""


def received(node: str, requests: Mapping[str, Requests], repository: str) -> Counter[str]:
    """Return the bytes that `node` got for its client, by the node that they came from (ids).

    `requests` are those of every agent that can still be asked, by its id.
    """
    own = [each for each in requests[node] if each["repository"] == repository and "from_peer" not in each]
    fetched = {each["digest"]: each["peer"] for each in own if each["source"] == "peer"}
    totals: Counter[str] = Counter()
    for request in own:
        peers = list(dict.fromkeys(filter(None, _came_from(request, fetched).split(","))))
        sent = {peer: _sent(requests[peer], node, request["digest"]) for peer in peers if peer in requests}
        totals.update(divide(request["bytes"], peers, sent))
    return +totals


def divide(total: int, peers: list[str], sent: Mapping[str, int]) -> dict[str, int]:
    """Divide `total` bytes between the peers that gave them, the last one first.

    `sent` is what those that can be asked say that they sent: more than was used, where they were left early.
    """
    parts: dict[str, int] = {}
    left = total
    for peer in reversed(peers):
        parts[peer] = min(left, sent.get(peer, left)) if peer != peers[0] else left
        left -= parts[peer]
    return parts


def _came_from(request: Mapping[str, Any], fetched: Mapping[str, str]) -> str:
    """Return the peers behind an answer; a manifest in the agent's memory was fetched for an earlier question."""
    if request["source"] == "cache":
        return fetched.get(request["digest"], "")
    return str(request["peer"]) if request["source"] == "peer" else ""


def _sent(requests: Requests, to: str, digest: str) -> int:
    """Return how much an agent sent of some content to a node."""
    return sum(
        request["bytes"]
        for request in requests
        if request.get("from_peer") == to and request["digest"] == digest and request["method"] == "GET"
    )
