"""What nodes say to one another: the shapes of questions and answers, checked throughout while they are decoded.

Laws: a message that exists is valid (types, lengths, counts, ports, ranges); no wall clock is in it: ages and remaining
times only. DESIGN.md section 4, "Membership and DHT".
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from p2pmirror.oci import Digest, Invalid, mediatype
from p2pmirror.routing.protocol import TagClaim
from p2pmirror.wire.address import Address

TTL_S_MAX = 3600  # no record outlives its republishing for longer than an hour
CONTACTS_MAX = 40  # contacts in an answer: 2k for k = 20; an honest answer holds 20
RECORDS_MAX = 16  # records in an answer: a sample; whoever pulls tries 5
ENTRIES_MAX = 64  # keys in a batch: 38 fit without tags
NEWS_MAX = 8  # news riding on a datagram
MEMBERS_MAX = 20  # members in a page: about 16 fit
AGE_S_MAX = 10 * 365 * 86400.0  # a claim older than ten years is a mistake
ZONE_CHARS_MAX = 63  # a Kubernetes label value


class Malformed(ValueError):
    """Not a message; the one error of this module."""


_Id = Annotated[bytes, Meta(min_length=20, max_length=20)]
_Eight = Annotated[bytes, Meta(min_length=8, max_length=8)]
_Cookie = Annotated[bytes, Meta(max_length=32)]
_Home = Annotated[bytes, Meta(min_length=6, max_length=18)]
_Zone = Annotated[str, Meta(max_length=ZONE_CHARS_MAX)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Ttl = Annotated[int, Meta(ge=0, le=TTL_S_MAX)]
_Age = Annotated[float, Meta(ge=0.0, le=AGE_S_MAX)]


class Part(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A part of a message: an array on the wire, its fields in order."""


class Contact(Part, frozen=True):
    """A node and the address of its router; `home` is the packed address."""

    node_id: _Id
    home: _Home

    def __post_init__(self) -> None:
        unpack_address(self.home)


class NodeInfo(Part, frozen=True):
    """All that a node says of itself. An empty `router` is the address that the datagram came from."""

    node_id: _Id
    boot_id: _Eight
    incarnation: _Count
    router: Annotated[bytes, Meta(max_length=18)]
    registry: _Home
    zone: _Zone
    seed: bool = False  # whether it prefers to lead

    def __post_init__(self) -> None:
        unpack_address(self.registry)
        if self.router:
            unpack_address(self.router)


@lru_cache(maxsize=16384)  # entries: ten thousand nodes, each of whom thousands know where all live in one process
def found_at(info: NodeInfo, router: Address) -> NodeInfo:
    """Return what a node says of itself with the address at which it was heard: one object for all that is equal."""
    return replace(info, router=pack_address(router))


class Claim(Part, frozen=True):
    """A tag claim: the digest as algorithm and raw hash, a media type, a size, an age, whether it was confirmed."""

    algorithm: Annotated[int, Meta(ge=0, le=1)]
    hash: Annotated[bytes, Meta(min_length=32, max_length=64)]
    media_type: Annotated[str, Meta(max_length=255)]
    size: _Count
    age_s: _Age
    confirmed: bool

    def __post_init__(self) -> None:
        if len(self.hash) != _HASH_BYTES[self.algorithm]:
            raise ValueError("a hash of the wrong length")
        try:
            mediatype.check(self.media_type)
        except Invalid as error:
            raise ValueError(str(error)) from None

    def as_tag(self) -> TagClaim:
        """Return what it says."""
        digest = Digest(_ALGORITHMS[self.algorithm], self.hash.hex())
        return TagClaim(digest, self.media_type, self.size, self.age_s, self.confirmed)

    @classmethod
    def of(cls, tag: TagClaim) -> "Claim":
        """Say it on the wire."""
        age_s = min(max(tag.age_s, 0.0), AGE_S_MAX)
        algorithm = _ALGORITHMS.index(tag.digest.algorithm)
        return cls(algorithm, bytes.fromhex(tag.digest.hex), tag.media_type, tag.size, age_s, tag.confirmed)


_ALGORITHMS = ("sha256", "sha512")
_HASH_BYTES = (32, 64)

WITHDRAWN, PARTIAL, COMPLETE, LEADING = range(4)  # what a provider says of a key

_State = Annotated[int, Meta(ge=WITHDRAWN, le=LEADING)]


class Entry(Part, frozen=True):
    """What a provider says of one key, under a sequence number of which the higher wins."""

    key: _Id
    sequence: _Count
    state: _State
    tag: Claim | None = None


class Found(Part, frozen=True):
    """A record as a holder hands it out."""

    node_id: _Id
    router: _Home
    registry: _Home
    zone: _Zone
    state: Annotated[int, Meta(ge=PARTIAL, le=LEADING)]
    ttl_s: _Ttl
    tag: Claim | None = None

    def __post_init__(self) -> None:
        unpack_address(self.router)
        unpack_address(self.registry)


ALIVE, SUSPECT, GONE, LEFT = range(4)  # what news can be about a member


class News(Part, frozen=True):
    """Something about a member that rides on any datagram; who is alive is introduced in full."""

    about: _Id
    boot_id: _Eight
    incarnation: _Count
    state: Annotated[int, Meta(ge=ALIVE, le=LEFT)]
    info: NodeInfo | None = None

    def __post_init__(self) -> None:
        if self.info is not None and (self.info.node_id != self.about or not self.info.router):
            raise ValueError("news with somebody else's introduction")


class Question(Part, frozen=True):
    """Something that is answered."""


class Ping(Question, frozen=True, tag=1):
    """Are you there: this is me. Ask me with this cookie, bound to this life of mine and to what my clock says."""

    info: NodeInfo
    cookie: _Eight
    clock_ms: _Count


class PingThrough(Question, frozen=True, tag=2):
    """Ping this node for me."""

    target: Contact


class FindNode(Question, frozen=True, tag=3):
    """Who is closest to this."""

    target: _Id


class FindProviders(Question, frozen=True, tag=4):
    """Who has this? `zone` is the asker's."""

    key: _Id
    zone: _Zone


class Store(Question, frozen=True, tag=5):
    """Keep these records about me, for `ttl_s` seconds."""

    boot_id: _Eight
    registry: _Home
    zone: _Zone
    ttl_s: _Ttl
    entries: Annotated[tuple[Entry, ...], Meta(max_length=ENTRIES_MAX)]

    def __post_init__(self) -> None:
        unpack_address(self.registry)


class MembersAfter(Question, frozen=True, tag=6):
    """Which members do you know, in the order of ids, after this one."""

    node_id: _Id


class Goodbye(Question, frozen=True, tag=7):
    """I leave; forget what I said."""

    boot_id: _Eight


class DialFailed(Question, frozen=True, tag=8):
    """A node that you handed out could not be dialled."""

    node_id: _Id


class Knock(Question, frozen=True, tag=9):
    """Give me a cookie: what is sent in place of every first question, which would be answered by a cookie alone."""


class Want(Question, frozen=True, tag=10):
    """Who fetches this from upstream? This is me, and the number of my lease in this life if I am to."""

    key: _Id
    info: NodeInfo
    term: _Count


class Report(Question, frozen=True, tag=11):
    """I lead this, and have so many bytes of it."""

    key: _Id
    info: NodeInfo
    term: _Count
    count: _Count


class Resign(Question, frozen=True, tag=12):
    """I lead this no more."""

    key: _Id
    term: _Count


class Led(Question, frozen=True, tag=13):
    """Somebody leads this, or is to: a holder tells the others. An empty `router` is the teller's own."""

    key: _Id
    leader: NodeInfo
    term: _Count


class Answer(Part, frozen=True):
    """What a question gets."""


class Pong(Answer, frozen=True, tag=32):
    """I am here. This is me, and what my monotonic clock says."""

    info: NodeInfo
    clock_ms: _Count


class Reached(Answer, frozen=True, tag=33):
    """Whether the node that was to be pinged answered."""

    alive: bool


class Contacts(Answer, frozen=True, tag=34):
    """Nodes, closest first."""

    closer: Annotated[tuple[Contact, ...], Meta(max_length=CONTACTS_MAX)]


class Providers(Answer, frozen=True, tag=35):
    """Records and closer nodes; unless `final`, more comes under the same id once providers have been pinged."""

    final: bool
    found: Annotated[tuple[Found, ...], Meta(max_length=RECORDS_MAX)]
    closer: Annotated[tuple[Contact, ...], Meta(max_length=CONTACTS_MAX)]


class Stored(Answer, frozen=True, tag=36):
    """How many entries of a batch were taken."""

    count: Annotated[int, Meta(ge=0, le=ENTRIES_MAX)]


class Members(Answer, frozen=True, tag=37):
    """A page of members in the order of their ids; `last` when none follow."""

    last: bool
    infos: Annotated[tuple[NodeInfo, ...], Meta(max_length=MEMBERS_MAX)]


class Noted(Answer, frozen=True, tag=38):
    """Understood."""


class Challenge(Answer, frozen=True, tag=39):
    """Ask again with this cookie, which proves that you receive where you send from, and bound to this life of mine."""

    cookie: _Eight
    boot_id: _Eight
    clock_ms: _Count


class Granted(Answer, frozen=True, tag=40):
    """You fetch it (`leads`), or this one does; these have it, or a part. Neither: one of these has all of it."""

    leads: bool
    leader: Found | None
    found: Annotated[tuple[Found, ...], Meta(max_length=RECORDS_MAX)]


AnyQuestion = (
    Ping
    | PingThrough
    | FindNode
    | FindProviders
    | Store
    | MembersAfter
    | Goodbye
    | DialFailed
    | Knock
    | Want
    | Report
    | Resign
    | Led
)
AnyAnswer = Pong | Reached | Contacts | Providers | Stored | Members | Noted | Challenge | Granted

_News = Annotated[tuple[News, ...], Meta(max_length=NEWS_MAX)]


NO_COOKIE = bytes(27)  # so long that no challenge is longer than a knock


class Request(Part, frozen=True, tag="q"):
    """A question, with an id that the reply repeats and the cookie that the receiver gave, or `NO_COOKIE`."""

    id: _Eight
    sender: _Id
    cookie: _Cookie
    question: AnyQuestion
    news: _News = ()


class Reply(Part, frozen=True, tag="r"):
    """An answer to the request of this id."""

    id: _Eight
    sender: _Id
    answer: AnyAnswer
    news: _News = ()


Message = Request | Reply


@lru_cache(maxsize=16384)  # entries: the addresses of ten thousand nodes; parsing one costs more than all else
def unpack_address(packed: bytes) -> Address:
    """Read 4 or 16 bytes of host and 2 of port. Raises `Malformed` for what cannot be sent to."""
    if len(packed) not in {6, 18}:
        raise Malformed("an address has 6 or 18 bytes")
    ip = IPv4Address(packed[:4]) if len(packed) == 6 else IPv6Address(packed[:16])
    port = int.from_bytes(packed[-2:], "big")
    if ip.is_unspecified or ip.is_multicast or port == 0 or ip == IPv4Address(0xFFFFFFFF):
        raise Malformed("an address that nothing can be sent to")
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        raise Malformed("an IPv4 address in IPv6's clothes")
    return Address.of(str(ip), port)


@lru_cache(maxsize=16384)  # entries: as above
def pack_address(address: Address) -> bytes:
    """Return an address as bytes; the scope of a link-local one is this host's own affair and is left out."""
    host = address.host.partition("%")[0]
    packed = IPv6Address(host).packed if ":" in host else IPv4Address(host).packed
    return packed + address.port.to_bytes(2, "big")
