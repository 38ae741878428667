"""Manifests from peers: fetched whole, believed only by their digest, and kept in memory for a moment.

containerd asks for one manifest twice (HEAD, then GET) and stores it only after that; what a HEAD answered must be
there for the GET.
"""

from collections import OrderedDict
from dataclasses import dataclass

import trio

from p2pmirror.errors import NotHere, PeerMisbehaved, Unreachable
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Digest, Invalid, manifest_path, media_type_of
from p2pmirror.peers.protocol import Answer, Question
from p2pmirror.resolve.race import HEAD_S, Sources, Won
from p2pmirror.resolve.small import read_verified
from p2pmirror.resolve.want import Content, InHand, Trail, Want
from p2pmirror.routing.protocol import Provider
from p2pmirror.wire.identity import NodeId

RECENT_BYTES_MAX = 4 * 1024 * 1024  # some hundreds of manifests, or one of the largest
RECENT_S = 60.0  # between a HEAD and its GET lies a moment; a minute covers a paused containerd


@dataclass(frozen=True, slots=True)
class _Recent:
    found: InHand
    until: float


class Manifests:
    """Fetches manifests by digest."""

    def __init__(self, sources: Sources) -> None:
        """Ask `sources`."""
        self.sources = sources
        self._recent: OrderedDict[Digest, _Recent] = OrderedDict()
        self._recent_bytes = 0

    def recent(self, digest: Digest, now: float) -> InHand | None:
        """Return a manifest that was fetched within the last minute."""
        entry = self._recent.get(digest)
        if entry is None:
            return None
        if entry.until <= now:
            self._forget(digest)
            return None
        return entry.found

    async def fetch(self, want: Want, digest: Digest, trail: Trail) -> InHand:
        """Fetch a manifest from whoever has it. Raises `NotHere` when nobody gives the right bytes within 1 s."""
        left: set[NodeId] = set()
        with trio.move_on_after(HEAD_S):
            while len(left) < self.sources.options.asks_max:
                found = await self._try(want, digest, trail, left)
                if found is not None:
                    trail.source = "peer"
                    return self.keep(found)
        raise NotHere(f"no peer gives {digest} in time")

    async def _try(self, want: Want, digest: Digest, trail: Trail, left: set[NodeId]) -> InHand | None:
        """Fetch once; None when a peer was tried in vain, which is then in `left`."""
        question = Question(manifest_path(want.repository, digest), want.registry)
        won = await self.sources.first(digest, question, trail, check=_check_size, without=left)
        left.add(won.provider.node_id)
        try:
            found = await _read(digest, won)
        except PeerMisbehaved as error:
            self.sources.misbehaved(won.provider, digest, error)
            return None
        except Unreachable:
            self.sources.broke(won.provider)
            return None
        finally:
            won.answer.close()
        trail.peers.append(won.provider.node_id)
        return found

    async def of_peer(self, want: Want, digest: Digest, provider: Provider, wait_s: float) -> InHand:
        """Fetch a manifest from one peer, which is waited for so long while it asks a registry.

        Raises `NotHere`, `Follow`, `RegistrySaid`, and `Unreachable` and `PeerMisbehaved`, which are remembered.
        """
        sources = self.sources
        if sources.scores.banned(provider.node_id, digest, trio.current_time()):
            raise NotHere("it is banned for this manifest")
        question = Question(manifest_path(want.repository, digest), want.registry, waits_s=wait_s)
        answer = await sources.waited_for(provider, question)
        try:
            _check_size(answer)
            return await _read(digest, Won(provider, answer))
        except PeerMisbehaved as error:
            sources.misbehaved(provider, digest, error)
            raise
        except Unreachable:
            sources.broke(provider)
            raise
        finally:
            answer.close()

    def keep(self, found: InHand) -> InHand:
        """Keep a manifest for a moment, and return it."""
        digest = found.content.digest
        self._forget(digest)
        self._recent[digest] = _Recent(found, trio.current_time() + RECENT_S)
        self._recent_bytes += len(found.data)
        while self._recent_bytes > RECENT_BYTES_MAX and len(self._recent) > 1:
            self._forget(next(iter(self._recent)))
        return found

    def _forget(self, digest: Digest) -> None:
        entry = self._recent.pop(digest, None)
        if entry is not None:
            self._recent_bytes -= len(entry.found.data)


def _check_size(answer: Answer) -> None:
    if answer.size > DOCUMENT_BYTES_MAX:
        raise PeerMisbehaved(f"a manifest of {answer.size} bytes")


async def _read(digest: Digest, won: Won) -> InHand:
    """Read and verify; raises `PeerMisbehaved` when the bytes or the media type are not the manifest's."""
    content = await read_verified(won.answer, digest)
    return InHand(Content(digest, len(content), checked_media_type(content, won.answer.media_type)), content)


def checked_media_type(data: bytes, claimed: str | None) -> str:
    """Return the claimed media type, or what the document says; raises `PeerMisbehaved` when they contradict."""
    try:
        return media_type_of(data, claimed)
    except Invalid as error:
        raise PeerMisbehaved(f"a manifest that is none: {error}") from None
