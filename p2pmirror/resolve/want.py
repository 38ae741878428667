"""What is asked for, and the answers that there are: the values between the front and whoever finds the bytes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from p2pmirror.oci import Digest, TagName
from p2pmirror.wire.http import Sink
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import File

Source = Literal["store", "cache", "flight", "peer", "upstream", "none"]


@dataclass(frozen=True, slots=True)
class Want:
    """One request for content, as containerd or a peer put it.

    `reference` is a digest or a tag. `byte_range` is the Range header as it came; whoever knows the length reads it.
    `from_peer` is the node that asks: it is answered from what is held here, and nobody else is asked. `follows`: it
    can follow another node's flight instead; `waits_s`: it was told that this node is asking a registry for it, and
    waits so long for the answer.
    """

    kind: Literal["manifest", "blob"]
    registry: str
    repository: str
    reference: Digest | str
    head: bool = False
    byte_range: str | None = None
    from_peer: NodeId | None = None
    follows: bool = False
    waits_s: float = 0.0

    @property
    def name(self) -> str:
        """Return `registry/repository`, and `:tag` when a tag is asked for: what filters look at."""
        if isinstance(self.reference, Digest):
            return f"{self.registry}/{self.repository}"
        return str(self.tag_name)

    @property
    def tag_name(self) -> TagName:
        """Return the tag asked for; only when `reference` is one."""
        assert isinstance(self.reference, str)
        return TagName(self.registry, self.repository, self.reference)


@dataclass(frozen=True, slots=True)
class Listing:
    """One request for what a repository has; `from_peer`: only what is held here."""

    registry: str
    repository: str
    from_peer: NodeId | None = None


@dataclass(slots=True)
class Trail:
    """How an answer came about: kept while it happens, written into the request's log line and metrics at its end."""

    source: Source = "none"
    peers: list[NodeId] = field(default_factory=list)  # whose bytes were used, in order
    attempts: int = 0  # peers that were asked
    resumes: int = 0  # times that the same response went on from another peer
    is_stale: bool = False  # whether a tag was answered with what its registry said before, because it did not answer


@dataclass(frozen=True, slots=True)
class Content:
    """What every answer tells before its bytes: enough for a HEAD."""

    digest: Digest
    size: int
    media_type: str | None


@dataclass(frozen=True, slots=True)
class Held:
    """An open file on this node; whoever gets it closes it."""

    content: Content
    file: File


@dataclass(frozen=True, slots=True)
class InHand:
    """A manifest whose bytes are in memory, verified."""

    content: Content
    data: bytes


@dataclass(frozen=True, slots=True)
class Arriving:
    """Content that comes from a peer while it is being sent on: bytes `start` to `end` (exclusive) of it.

    `pump(sink)` writes exactly those bytes or raises `Unreachable` or `PeerMisbehaved`, upon which the response is cut.
    `close()` is called once, also when `pump` never ran; it waits for nothing. After a HEAD there is nothing to pump.
    """

    content: Content
    start: int
    end: int
    pump: Callable[[Sink], Awaitable[None]]
    close: Callable[[], None]


Found = Held | InHand | Arriving
