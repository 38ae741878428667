"""What every router offers: find who has a key, say what this node has, know the members.

Laws, which the conformance suite in `tests/routing` holds every router to:
- `find` yields a provider once, never this node itself, the first one as soon as it is known;
- what was withdrawn is not found again, whatever arrives late;
- a node that left or died is not handed out: after 10 s at most when it died silently, at once when it left;
- a provider is a member that answered a ping at the address of its router, and its registry is where it says itself;
- of all who want a key that nobody has one leads, as far as nodes can agree: while it reports, everybody who wants the
  key is told of it; a further leader costs a copy, so that whoever gets no answer leads.
"""

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NewType, Protocol, Self

import trio

from p2pmirror.oci import Digest, TagName
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import Binding
from p2pmirror.wire.identity import NODE_ID_BYTES, NodeId

Key = NewType("Key", bytes)
"""20 bytes: where in the node id space the records of a digest or a tag are kept."""


def key_of(subject: Digest | TagName) -> Key:
    """Return the first 20 bytes of sha256 of the digest string or of `registry/repository:tag` (DESIGN: Membership)."""
    return Key(hashlib.sha256(str(subject).encode()).digest()[:NODE_ID_BYTES])


def question_key_of(tag: TagName) -> Key:
    """Return the key under which nodes agree on who asks a registry what a tag names; nobody advertises it."""
    return Key(hashlib.sha256(f"question {tag}".encode()).digest()[:NODE_ID_BYTES])


def border_key_of(digest: Digest, zone: str) -> Key:
    """Return the key under which the nodes of a zone agree who of them fetches a blob from other zones.

    Nothing is ever advertised under it.
    """
    return Key(hashlib.sha256(f"{digest} into {zone}".encode()).digest()[:NODE_ID_BYTES])


@dataclass(frozen=True, slots=True)
class TagClaim:
    """What a provider says a tag names; it learnt so `age_s` ago, `confirmed` by an upstream registry or not."""

    digest: Digest
    media_type: str
    size: int
    age_s: float
    confirmed: bool


@dataclass(frozen=True, slots=True)
class Provider:
    """A node that is said to hold a key's content, whole or (`complete` False) in part."""

    node_id: NodeId
    address: Address  # of its registry port
    zone: str = ""
    complete: bool = True
    leading: bool = False  # it fetches the content from upstream; it is not complete then
    tag: TagClaim | None = None


class Checking(Enum):
    """Stands for providers that somebody named and that are being pinged before they are handed out."""

    CHECKING = "checking"


CHECKING: Final = Checking.CHECKING


@dataclass(frozen=True, slots=True)
class Offer:
    """What this node says of itself under a key; `since` is trio's clock when a tag was learnt."""

    complete: bool = True
    leading: bool = False  # this node fetches it from upstream; `complete` is False then
    tag: TagClaim | None = None
    since: float = 0.0


LEASE_S = 2.0  # a leader that said nothing for so long leads no more; it reports four times as often
STANDSTILL_S = 6.0  # nor does one that says much and has no more bytes: a registry may think for seconds, and whoever
# follows holds its client for 10 s: two until it asks who leads now, and two for the next one's first byte


@dataclass(frozen=True, slots=True)
class Grant:
    """What a want is answered with: who is to fetch from upstream, and whom to fetch from meanwhile.

    `leads`: this node is, under a lease of `LEASE_S` that each report prolongs while bytes come. `leader`: who does in
    its place, or is to, when it is a seed. Neither: somebody has all of it. `providers`: who has all of it or a part,
    as `find` says.
    """

    leads: bool
    leader: Provider | None
    providers: tuple[Provider, ...]


MemberState = Literal["alive", "suspect", "gone"]


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the cluster as this node sees it; `last_seen_s` seconds ago it was heard."""

    node_id: NodeId
    address: Address  # of its registry port
    router_address: Address
    zone: str
    state: MemberState
    last_seen_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """One question of a lookup; times are seconds since it began."""

    node_id: NodeId
    address: Address  # of its router
    hop: int  # 0 this node itself, 1 a contact, h + 1 somebody whom an answer at hop h named
    asked_s: float
    answered_s: float | None  # None: no answer
    records: int  # that it gave
    closer: int  # nodes that it named


@dataclass(frozen=True, slots=True)
class Trace:
    """The way of a lookup, in the order of asking; `holders` are the closest nodes that answered, nearest first."""

    key: Key
    seconds: float
    steps: tuple[Step, ...]
    holders: tuple[NodeId, ...]


class Providers(Protocol):
    """What a lookup learns, in the order in which it does; a memory channel is one."""

    def receive_nowait(self) -> Provider | Checking:
        """Return the next that is known already. Raises `trio.WouldBlock`, `trio.EndOfChannel`.

        Who asks so has nobody asked for him yet: a node's own records may name all that he needs.
        """
        ...

    def __aiter__(self) -> Self:
        """Return itself."""
        ...

    async def __anext__(self) -> Provider | Checking:
        """Wait for the next; cancellation loses none."""
        ...


class Router(Protocol):
    """Who has it."""

    @property
    def node_id(self) -> NodeId:
        """This node's id."""
        ...

    @property
    def joined(self) -> bool:
        """Whether the first join has ended: members are known, or there is nobody else to know."""
        ...

    def find(self, key: Key) -> AbstractAsyncContextManager[Providers]:
        """Look a key up; providers come as they are learnt and the channel ends when no more will come.

        `CHECKING` comes at most once, when there are providers that are still being pinged: who waits may be rewarded.
        Leaving the block ends the lookup. Nobody found is an empty channel, not an error.
        """
        ...

    def advertise(self, offers: Mapping[Key, Offer]) -> None:
        """Say that this node has these keys, until they are withdrawn; replaces what was said of the same keys."""
        ...

    def withdraw(self, keys: Iterable[Key]) -> None:
        """Say that this node no longer has these keys."""
        ...

    async def want(self, key: Key) -> Grant:
        """Ask who fetches a key from upstream, of the closest node that answers; it may be this one.

        Takes some milliseconds when all is well and 2 s at most. Raises nothing: when nobody answers this node leads.
        A node whose first join has not ended waits for it, 1 s at most. Cancellation: nothing is left here; a lease
        that was granted meanwhile ends by itself.
        """
        ...

    def report(self, key: Key, count: int) -> None:
        """Say that this node, which leads a key, got so many bytes of it: to be said every 500 ms at least.

        When they have not grown for `STANDSTILL_S` somebody else may lead. Who has all of it, and gives it to whoever
        comes, may fall silent: everybody is sent there until the lease ends.
        """
        ...

    def resign(self, key: Key) -> None:
        """Say that this node leads a key no more: it has all of it, or has failed. Nothing is said of other keys."""
        ...

    @property
    def advertised(self) -> int:
        """How many keys this node says it has."""
        ...

    async def trace(self, key: Key) -> Trace:
        """Look a key up by itself, until every holder was asked, and return the way. Cancellation: nothing is left."""
        ...

    @property
    def records_held(self) -> int:
        """How many records this node keeps, its own among them."""
        ...

    def binding(self, node_id: NodeId) -> Binding:
        """Return a member's boot id and what its clock says now; `UNBOUND` when it did not tell."""
        ...

    def failed(self, node_id: NodeId) -> None:
        """Report that a dial to this node failed: whoever handed it out checks it at once."""
        ...

    def members(self) -> list[Member]:
        """Every member but this node, in no order."""
        ...

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join, answer, republish and watch the members until cancelled; `started()` once the port answers."""
        ...

    async def leave(self) -> None:
        """Withdraw everything and say goodbye to the members; waits 1 s at most."""
        ...
