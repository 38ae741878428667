"""Small blobs from peers: read whole and believed by their digest before the answer begins.

So an error page with a 200 in front of it, a short config or a wrong one is never seen by containerd: the next peer is
asked instead. What is larger is relayed while it arrives (`relay`).
"""

from typing import Final

import trio

from p2pmirror.errors import NotHere, PeerMisbehaved, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.peers.protocol import Answer, Question
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.race import HEAD_S, Sources, Won
from p2pmirror.resolve.want import Content, InHand, Trail
from p2pmirror.wire.identity import NodeId

SMALL_BYTES_MAX: Final = 64 * 1024  # what a relay would withhold until the digest is known: nothing is lost by waiting


async def read_small(
    first: Won, digest: Digest, question: Question, *, sources: Sources, trail: Trail, metrics: ResolveMetrics
) -> InHand | Won:
    """Return the verified bytes that `first` or another peer has, or the next answer that is not small, open.

    Takes `first` over. Raises `NotHere` when nobody gives the right bytes within `HEAD_S`. Cancellation closes what is
    open.
    """
    left: set[NodeId] = set()
    won = first
    with trio.move_on_after(HEAD_S):
        while won.answer.size <= SMALL_BYTES_MAX:
            found = await _read(won, digest, sources, metrics)
            trail.peers.append(won.provider.node_id)
            if found is not None:
                return found
            left.add(won.provider.node_id)
            trail.resumes += 1
            if len(left) >= sources.options.asks_max:
                break
            won = await sources.first(digest, question, trail, without=left)
        else:
            return won
    raise NotHere(f"no peer gives {digest} in time")


async def _read(won: Won, digest: Digest, sources: Sources, metrics: ResolveMetrics) -> InHand | None:
    """Read and close an answer; None when it is not the content, or broke, which its peer is remembered for."""
    try:
        data = await read_verified(won.answer, digest)
    except PeerMisbehaved as error:
        metrics.wrong_digests.inc()
        sources.misbehaved(won.provider, digest, error)
        return None
    except Unreachable:
        sources.broke(won.provider)
        return None
    finally:
        won.answer.close()
    return InHand(Content(digest, len(data), won.answer.media_type), data)


async def read_verified(answer: Answer, digest: Digest) -> bytes:
    """Return all of a body whose length may be believed; raises `PeerMisbehaved` (another digest), `Unreachable`."""
    data = bytearray(answer.size)
    filled = 0
    while filled < len(data):
        count = await answer.receive_into(memoryview(data)[filled:])
        if count == 0:
            raise Unreachable("the peer ended early")
        filled += count
    hasher = digest.hasher()
    hasher.update(data)
    if not digest.matches(hasher):
        raise PeerMisbehaved(f"{digest}: the bytes that came have another digest")
    return bytes(data)
