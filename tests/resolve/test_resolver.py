"""Promises of the resolver: where bytes come from, and that they are the right ones, whatever the peers do."""

from collections.abc import Callable
from random import Random

import pytest
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.errors import NotHere, PeerMisbehaved, Unreachable
from p2pmirror.oci import Digest, TagName, mediatype
from p2pmirror.peers.scores import Scores
from p2pmirror.resolve.delivery import GIVE_UP_S
from p2pmirror.resolve.hashing import hashing_inline
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.race import RaceOptions, Sources
from p2pmirror.resolve.relay import BUFFER_BYTES_MIN, GROWS_AFTER_BYTES, TAIL_BYTES
from p2pmirror.resolve.resolver import MirrorResolver, ResolveOptions
from p2pmirror.resolve.tags import TagOptions
from p2pmirror.resolve.want import Arriving, Held, InHand, Trail, Want
from p2pmirror.routing.memory import MemoryRouters
from p2pmirror.routing.protocol import Provider, TagClaim, key_of
from p2pmirror.store.memory import MemoryStore
from p2pmirror.wire.ranges import Unsatisfiable
from tests.cancellation import cancel_at_every_checkpoint
from tests.resolve.fakes import KeptSink, Script, ScriptedPeers, address, node

DATA = Random(7).randbytes(3_000_000)
DIGEST = Digest.of(DATA)
MANIFEST = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
MANIFEST_DIGEST = Digest.of(MANIFEST)
TAG = TagName("docker.io", "library/app", "1")


class World:
    """One node under test among scripted peers that all say that they have everything in `has`."""

    def __init__(
        self, scripts: dict[int, Script], *, has: tuple[Digest, ...] = (DIGEST, MANIFEST_DIGEST), **options: bool
    ) -> None:
        self.routers = MemoryRouters()
        self.router = self.routers.router(node(99), address(99))
        for number in scripts:
            for digest in has:
                self.routers.say(key_of(digest), Provider(node(number), address(number)))
        self.peers = ScriptedPeers(scripts)
        self.scores = Scores(Random(1))
        self.store = MemoryStore()
        self.registry = CollectorRegistry()
        self.trail = Trail()
        self.resolver = MirrorResolver(
            self.store,
            Sources(self.router, self.peers, self.scores, RaceOptions()),
            ResolveOptions(RaceOptions(), TagOptions(**options)),
            ResolveMetrics(self.registry),
            hashing_inline,
        )

    async def find(self, want: Want) -> Held | InHand | Arriving:
        return await self.resolver.find(want, self.trail)

    async def pull(self, want: Want | None = None, sink: KeptSink | None = None) -> bytes:
        """Pull a blob through; closes like the server does, and checks that nothing is left open."""
        sink = sink or KeptSink()
        found = await self.find(want or blob())
        if isinstance(found, InHand):
            assert self.peers.open == 0
            return found.data
        assert isinstance(found, Arriving)
        try:
            await found.pump(sink)
        finally:
            found.close()
            assert self.peers.open == 0
            assert self.resolver.transfers() == []
        return bytes(sink.data)

    def count(self, name: str) -> float:
        return self.registry.get_sample_value(f"p2pmirror_resolve_{name}_total") or 0.0


def blob(**changes: object) -> Want:
    return Want("blob", "docker.io", "library/app", DIGEST, **changes)  # type: ignore[arg-type]


def manifest(reference: Digest | str = MANIFEST_DIGEST, **changes: object) -> Want:
    return Want("manifest", "docker.io", "library/app", reference, **changes)  # type: ignore[arg-type]


async def test_a_blob_arrives_whole_from_a_peer(autojump_clock: trio.testing.MockClock) -> None:
    """Every byte, once, in order; the trail says from whom."""
    world = World({1: Script(DATA)})
    assert await world.pull() == DATA
    assert (world.trail.source, world.trail.peers, world.trail.attempts, world.trail.resumes) == (
        "peer",
        [node(1)],
        1,
        0,
    )


async def test_an_empty_blob_and_a_tiny_one_arrive(autojump_clock: trio.testing.MockClock) -> None:
    """Contents shorter than the withheld tail are sent when they are verified."""
    for data in (b"", b"x"):
        digest = Digest.of(data)
        world = World({1: Script(data, size=len(data))}, has=(digest,))
        assert await world.pull(Want("blob", "docker.io", "library/app", digest)) == data


async def test_nobody_has_it(autojump_clock: trio.testing.MockClock) -> None:
    """A miss is quick when the lookup finds nobody."""
    world = World({})
    began = trio.current_time()
    with pytest.raises(NotHere):
        await world.find(blob())
    assert trio.current_time() - began <= 0.04
    assert world.trail.source == "none"


async def test_a_lookup_that_hangs_costs_30_ms(autojump_clock: trio.testing.MockClock) -> None:
    """A slow network of holders does not make a miss dear."""
    world = World({1: Script(DATA)})
    world.routers.find_latency_s = 5.0
    began = trio.current_time()
    with pytest.raises(NotHere):
        await world.find(blob())
    assert trio.current_time() - began == pytest.approx(0.03)


async def test_providers_that_are_being_checked_are_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """A provider that nobody heard lately is found when it answers its ping, for blobs, manifests and tags."""
    world = World({1: Script(DATA)})
    world.peers.scripts[2] = Script(MANIFEST)
    world.routers.say(key_of(MANIFEST_DIGEST), Provider(node(2), address(2)))
    world.routers.unsay(key_of(MANIFEST_DIGEST), node(1))
    world.routers.say(key_of(TAG), Provider(node(2), address(2), tag=claim(MANIFEST, 5.0)))
    world.routers.checking_s = 0.06
    assert await world.pull() == DATA
    assert (await world.find(manifest("1"))).content.digest == MANIFEST_DIGEST


async def test_headers_or_a_miss_come_within_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """Peers that never answer do not hold containerd up."""
    world = World({number: Script(DATA, head_s=3600) for number in range(1, 9)})
    began = trio.current_time()
    with pytest.raises(NotHere):
        await world.find(blob())
    assert trio.current_time() - began == pytest.approx(1.0)
    assert world.trail.attempts == 5
    assert world.peers.open == 0


async def test_the_first_peer_that_answers_wins(autojump_clock: trio.testing.MockClock) -> None:
    """A slow head is raced by another dial 50 ms later; the loser's answer is closed."""
    world = World({1: Script(DATA, head_s=0.06), 2: Script(DATA, head_s=0.06)})
    assert await world.pull() == DATA
    assert world.trail.attempts == 2


async def test_peers_that_fail_are_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    """Refused, absent and lying peers cost no time when somebody else answers."""
    world = World(
        {
            1: Script(fails=Unreachable("x")),
            2: Script(fails=NotHere("x")),
            3: Script(fails=PeerMisbehaved("x")),
            4: Script(DATA),
        }
    )
    began = trio.current_time()
    found = await world.find(blob())
    assert trio.current_time() - began < 0.01
    assert isinstance(found, Arriving)
    found.close()
    assert world.peers.open == 0


async def test_whom_our_own_records_name_is_asked_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """A provider that this node's own records name answers before any lookup could."""
    world = World({1: Script(DATA), 2: Script(DATA)})
    world.routers.known, world.routers.find_latency_s = 1, 5.0
    began = trio.current_time()
    found = await world.find(blob())
    assert trio.current_time() == began
    assert world.trail.attempts == 1
    assert isinstance(found, Arriving)
    found.close()


@pytest.mark.parametrize(
    "make",
    [lambda: Script(fails=Unreachable("gone")), lambda: Script(fails=NotHere("not here")), lambda: Script(head_s=9)],
)
async def test_others_are_learnt_of_when_the_known_one_fails(
    make: Callable[[], Script], autojump_clock: trio.testing.MockClock
) -> None:
    """When the one whom our own records name refuses, or takes long, the lookup's providers are asked."""
    first = make()
    world = World({1: first, 2: Script(DATA)})
    world.routers.known, world.routers.find_latency_s = 1, 0.01
    began = trio.current_time()
    assert await world.pull() == DATA
    assert (len(first.asked), world.trail.peers) == (1, [node(2)])
    assert trio.current_time() - began < 1.0


async def test_a_known_provider_alone_that_fails_is_a_miss(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody else is named: the end of the lookup is the end of the race."""
    world = World({1: Script(fails=Unreachable("gone"))})
    world.routers.known = 1
    with pytest.raises(NotHere):
        await world.find(blob())
    assert world.trail.attempts == 1


async def test_a_banned_peer_is_not_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    """Who gave a nonsense answer for a digest is left alone for it."""
    world = World({1: Script(fails=PeerMisbehaved("x"))})
    for _ in range(2):
        with pytest.raises(NotHere):
            await world.find(blob())
    assert len(world.peers.scripts[1].asked) == 1


async def test_incomplete_providers_are_not_asked(autojump_clock: trio.testing.MockClock) -> None:
    """A node that holds a part is no source for the whole."""
    world = World({})
    world.peers.scripts[1] = Script(DATA)
    world.routers.say(key_of(DIGEST), Provider(node(1), address(1), complete=False))
    with pytest.raises(NotHere):
        await world.find(blob())


@pytest.mark.parametrize("at", [1, 999_999, 2_999_999])
async def test_the_response_goes_on_when_a_source_breaks(at: int, autojump_clock: trio.testing.MockClock) -> None:
    """The next source is asked from the very next byte; the bytes are exact."""
    world = World({1: Script(DATA, break_at=at), 2: Script(DATA, break_at=at)})
    world.peers.scripts[3] = Script(DATA, head_s=0.2)
    world.routers.say(key_of(DIGEST), Provider(node(3), address(3)))
    assert await world.pull() == DATA
    assert world.trail.peers[-1] == node(3)
    assert world.peers.scripts[3].asked[-1].offset == at
    assert world.trail.resumes == world.count("resumes") >= 1


async def test_a_source_that_broke_once_may_be_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    """A single peer whose connection was cut serves the rest over a new one."""
    world = World({1: Script(DATA, break_at=1_000_000, break_once=True)})
    assert await world.pull() == DATA
    assert [question.offset for question in world.peers.scripts[1].asked] == [0, 1_000_000]


async def test_a_source_that_breaks_at_the_same_byte_again_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """No endless loop with a peer whose file is truncated: the response is cut."""
    world, sink = World({1: Script(DATA, break_at=1_000_000)}), KeptSink()
    with pytest.raises(Unreachable, match="no peer is left"):
        await world.pull(sink=sink)
    assert bytes(sink.data) == DATA[: len(sink.data)]
    assert len(sink.data) <= 1_000_000
    assert len(world.peers.scripts[1].asked) == 2


async def test_the_response_goes_on_when_a_source_stalls(autojump_clock: trio.testing.MockClock) -> None:
    """A second without a byte, and somebody else is asked for the rest."""
    world = World({1: Script(DATA, stall_at=1_000_000)})
    world.peers.scripts[2] = Script(DATA, head_s=0.3)
    world.routers.say(key_of(DIGEST), Provider(node(2), address(2)))
    world.scores.failed(node(2), trio.current_time())
    began = trio.current_time()
    assert await world.pull() == DATA
    assert trio.current_time() - began < 4
    assert world.trail.peers == [node(1), node(2)]
    assert world.count("stalls") == 1


async def test_a_lone_source_may_stall_for_some_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """Without anybody else it is waited for, and goes on where it was."""
    world = World({1: Script(DATA, stall_at=1_000_000, stall_s=GIVE_UP_S - 2)})
    world.peers.scripts[1].chunk = 2_000_000
    assert await world.pull() == DATA
    assert world.trail.resumes == 0


async def test_a_lone_source_that_stalls_for_good_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    """The wait ends, so that containerd can go elsewhere."""
    world, sink = World({1: Script(DATA, stall_at=1_000_000)}), KeptSink()
    began = trio.current_time()
    with pytest.raises(Unreachable, match="nothing came"):
        await world.pull(sink=sink)
    assert trio.current_time() - began < GIVE_UP_S + 3
    assert bytes(sink.data) == DATA[: len(sink.data)]


async def test_a_slow_client_is_no_stalled_source(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever reads slowly gets everything from the one source."""
    world = World({1: Script(DATA), 2: Script(DATA)})
    assert await world.pull(sink=KeptSink(step_s=3.0)) == DATA
    assert world.trail.resumes == 0


async def test_wrong_bytes_never_end_cleanly(autojump_clock: trio.testing.MockClock) -> None:
    """The tail is withheld when the digest is wrong, and the peer is banned for that digest."""
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    world, sink = World({1: Script(wrong)}), KeptSink()
    with pytest.raises(PeerMisbehaved, match="another digest"):
        await world.pull(sink=sink)
    assert len(sink.data) == len(DATA) - TAIL_BYTES
    with pytest.raises(NotHere):
        await world.find(blob())


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
async def test_a_peer_with_another_length_is_not_taken_for_the_rest(
    size: int, autojump_clock: trio.testing.MockClock
) -> None:
    """What does not fit what was begun is not stitched to it; which is wrong is not known: nobody is banned."""
    world = World({1: Script(DATA, break_at=1_000_000), 2: Script(DATA, break_at=1_000_000)})
    world.peers.scripts[3] = Script(DATA, size=size, head_s=0.1)
    world.routers.say(key_of(DIGEST), Provider(node(3), address(3)))
    with pytest.raises(Unreachable):
        await world.pull()
    assert not any(world.scores.banned(node(number), DIGEST, trio.current_time()) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("bytes=100-", 100, len(DATA)),
        ("bytes=0-", 0, len(DATA)),
        ("bytes=5-9", 5, 10),
        ("bytes=-70000", len(DATA) - 70_000, len(DATA)),
    ],
)
async def test_a_range_is_fetched_as_a_range(
    text: str, start: int, end: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Only the bytes that are wanted are sent, and the peer is asked from the first of them."""
    world = World({1: Script(DATA, chunk=1_000)})
    assert await world.pull(blob(byte_range=text)) == DATA[start:end]
    assert world.peers.scripts[1].asked[-1].offset == start


async def test_a_range_outside_says_so(autojump_clock: trio.testing.MockClock) -> None:
    """It is the client's mistake, not a miss."""
    world = World({1: Script(DATA)})
    with pytest.raises(Unsatisfiable):
        await world.find(blob(byte_range=f"bytes={len(DATA)}-"))
    assert world.peers.open == 0


async def test_a_head_asks_a_head(autojump_clock: trio.testing.MockClock) -> None:
    """Size and type without a body."""
    world = World({1: Script(DATA, media_type=mediatype.OCI_LAYER_GZIP)})
    found = await world.find(blob(head=True))
    assert (found.content.size, found.content.media_type) == (len(DATA), mediatype.OCI_LAYER_GZIP)
    assert [question.method for question in world.peers.scripts[1].asked] == ["HEAD"]
    assert world.peers.open == 0


async def test_what_is_held_is_answered_from_here(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody is asked for what the store has."""
    world = World({1: Script(DATA)})
    world.store.put_blob(DATA, "application/x")
    found = await world.find(blob())
    assert isinstance(found, Held)
    assert await found.file.read_at(0, len(DATA)) == DATA
    found.file.close()
    assert (world.trail.source, world.trail.attempts) == ("store", 0)


async def test_a_peer_is_answered_from_what_is_held_only(autojump_clock: trio.testing.MockClock) -> None:
    """Questions do not fan out."""
    world = World({1: Script(DATA)})
    for want in (blob(from_peer=node(5)), manifest(from_peer=node(5)), manifest("1", from_peer=node(5))):
        with pytest.raises(NotHere):
            await world.find(want)
    assert world.peers.scripts[1].asked == []


async def test_a_manifest_is_believed_by_its_digest(autojump_clock: trio.testing.MockClock) -> None:
    """Liars are passed over and banned; the bytes come whole; the second request needs nobody."""
    world = World(
        {
            1: Script(MANIFEST[:-1] + b" }"),
            2: Script(MANIFEST, media_type=mediatype.OCI_MANIFEST, head_s=0.01),
            3: Script(MANIFEST, media_type=mediatype.OCI_INDEX, head_s=0.1),
        }
    )
    found = await world.find(manifest())
    assert isinstance(found, InHand)
    assert (found.data, found.content.media_type) == (MANIFEST, mediatype.OCI_INDEX)
    assert world.trail.peers == [node(3)]
    asked = sum(len(script.asked) for script in world.peers.scripts.values())
    again = await world.find(manifest(head=True))
    assert isinstance(again, InHand)
    assert sum(len(script.asked) for script in world.peers.scripts.values()) == asked
    assert world.peers.open == 0


async def test_a_manifest_is_remembered_for_a_minute_only(autojump_clock: trio.testing.MockClock) -> None:
    """Memory is no store."""
    world = World({1: Script(MANIFEST, media_type=mediatype.OCI_INDEX)})
    await world.find(manifest())
    await trio.sleep(61)
    await world.find(manifest())
    assert len(world.peers.scripts[1].asked) == 2


async def test_a_peer_that_breaks_within_a_manifest_is_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    """The next one is asked for the whole."""
    world = World(
        {1: Script(MANIFEST, break_at=10), 2: Script(MANIFEST, break_at=10), 3: Script(MANIFEST, head_s=0.05)}
    )
    found = await world.find(manifest())
    assert isinstance(found, InHand)


async def test_a_manifest_of_absurd_length_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing is allocated for it."""
    world = World({1: Script(MANIFEST, size=1 << 40)})
    with pytest.raises(NotHere):
        await world.find(manifest())
    assert world.scores.banned(node(1), MANIFEST_DIGEST, trio.current_time())


async def test_a_manifest_that_drips_is_given_up_in_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """A 404 in time is worth more than a manifest."""
    world = World({1: Script(MANIFEST, chunk=1, chunk_s=0.5)})
    began = trio.current_time()
    with pytest.raises(NotHere):
        await world.find(manifest())
    assert trio.current_time() - began == pytest.approx(1.0)
    assert world.peers.open == 0


def claim(data: bytes, age_s: float, *, confirmed: bool = False) -> TagClaim:
    return TagClaim(Digest.of(data), mediatype.OCI_INDEX, len(data), age_s, confirmed)


@pytest.mark.parametrize(
    "claims",
    [
        [claim(MANIFEST, 10.0)],
        [claim(b"old", 100.0), claim(MANIFEST, 10.0)],
        [claim(MANIFEST, 100.0, confirmed=True), claim(b"local", 1.0)],
    ],
)
async def test_a_tag_names_what_is_confirmed_then_what_is_newest(
    claims: list[TagClaim], autojump_clock: trio.testing.MockClock
) -> None:
    """Of several claims the best one is believed, and its manifest fetched by digest."""
    world = World({1: Script(MANIFEST)})
    for number, each in enumerate(claims, 10):
        world.routers.say(key_of(TAG), Provider(node(number), address(number), tag=each))
    found = await world.find(manifest("1"))
    assert found.content.digest == MANIFEST_DIGEST


async def test_a_tag_held_here_is_one_claim_among_others(autojump_clock: trio.testing.MockClock) -> None:
    """A newer claim of a peer wins over what this node learnt long ago."""
    world = World({1: Script(MANIFEST)})
    world.store.put(
        {Digest.of(b"{}"): (b"{}", mediatype.OCI_INDEX)}, {TAG: Digest.of(b"{}")}, since=trio.current_time()
    )
    assert (await world.find(manifest("1"))).content.digest == Digest.of(b"{}")
    await trio.sleep(100)
    world.routers.say(key_of(TAG), Provider(node(1), address(1), tag=claim(MANIFEST, 5.0)))
    assert (await world.find(manifest("1"))).content.digest == MANIFEST_DIGEST


async def test_tags_can_be_switched_off(autojump_clock: trio.testing.MockClock) -> None:
    """With `resolve_tags` off a tag is a miss, a digest is not."""
    world = World({1: Script(MANIFEST)}, enabled=False)
    world.routers.say(key_of(TAG), Provider(node(1), address(1), tag=claim(MANIFEST, 5.0)))
    with pytest.raises(NotHere):
        await world.find(manifest("1"))
    assert (await world.find(manifest())).content.digest == MANIFEST_DIGEST


async def test_an_unknown_tag_is_a_miss(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody's tag is nobody's."""
    with pytest.raises(NotHere):
        await World({}).find(manifest("1"))


async def test_a_held_manifest_without_a_name_says_its_own_type(autojump_clock: trio.testing.MockClock) -> None:
    """What the document declares is used when no descriptor is at hand; what is no manifest has no type."""
    world = World({})
    world.store.put_blob(MANIFEST, None)
    world.store.put_blob(b"no manifest", None)
    found = await world.find(manifest())
    assert found.content.media_type == mediatype.OCI_INDEX
    other = await world.find(manifest(Digest.of(b"no manifest")))
    assert other.content.media_type is None


async def test_running_relays_are_listed(autojump_clock: trio.testing.MockClock) -> None:
    """The status page sees what is under way, and from whom."""
    world = World({1: Script(DATA, chunk_s=1.0)})
    found = await world.find(blob())
    assert isinstance(found, Arriving)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.pump, KeptSink())
        await trio.sleep(5.5)
        (transfer,) = world.resolver.transfers()
        assert (transfer.digest, transfer.peer, transfer.size, transfer.name) == (
            DIGEST,
            node(1),
            len(DATA),
            "docker.io/library/app",
        )
        assert 0 < transfer.sent_bytes < len(DATA)
        nursery.cancel_scope.cancel()
    found.close()
    assert world.resolver.transfers() == []


class MeasuringSink(KeptSink):
    """A sink that notes where each send began and how long it was."""

    def __init__(self) -> None:
        super().__init__()
        self.sends: list[tuple[int, int]] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sends.append((self.sent, len(data)))
        await super().send_all(data)


async def test_buffers_grow_only_for_a_client_that_takes(autojump_clock: trio.testing.MockClock) -> None:
    """What the kernel takes for a client that reads nothing passes through small buffers; then they grow."""
    data = Random(8).randbytes(12_000_000)
    world = World({1: Script(data, chunk=1 << 20)}, has=(Digest.of(data),))
    found = await world.find(Want("blob", "docker.io", "library/app", Digest.of(data)))
    assert isinstance(found, Arriving)
    sink = MeasuringSink()
    await found.pump(sink)
    found.close()
    assert bytes(sink.data) == data
    assert max(count for start, count in sink.sends if start < GROWS_AFTER_BYTES) <= BUFFER_BYTES_MIN
    assert max(count for _, count in sink.sends) > BUFFER_BYTES_MIN


@pytest.mark.parametrize("make", [blob, manifest, lambda: manifest("1"), lambda: blob(byte_range="bytes=1000-")])
async def test_cancelling_anywhere_leaves_nothing_open(
    make: Callable[[], Want], autojump_clock: trio.testing.MockClock
) -> None:
    """A client that leaves at any moment leaves no answer open and no transfer listed."""
    worlds: list[World] = []

    async def operation() -> None:
        world = World(
            {1: Script(DATA[:300_000], break_at=100_000), 2: Script(DATA[:300_000], head_s=0.01)}
            if make().kind == "blob"
            else {1: Script(MANIFEST, head_s=0.01), 2: Script(MANIFEST)}
        )
        world.routers.say(key_of(TAG), Provider(node(1), address(1), tag=claim(MANIFEST, 5.0)))
        worlds.append(world)
        found = await world.find(make())
        if isinstance(found, Arriving):
            try:
                await found.pump(KeptSink())
            except PeerMisbehaved:  # the data is a part of what the digest names
                pass
            finally:
                found.close()

    async def check() -> None:
        assert worlds[-1].peers.open == 0
        assert worlds[-1].resolver.transfers() == []

    await cancel_at_every_checkpoint(operation, check)
