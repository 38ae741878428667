"""Sources that drip, stall again and again, or answer with something else: the response goes on from better ones."""

from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.peers.protocol import Busy
from p2pmirror.resolve.delivery import GIVE_UP_S, RATE_MIN, SLOW_S
from p2pmirror.resolve.supply import GIVEN_UP_S
from p2pmirror.resolve.want import Arriving, InHand, Want
from p2pmirror.routing.protocol import Provider, key_of
from tests.cancellation import cancel_at_every_checkpoint
from tests.resolve.fakes import KeptSink, Script, address, node
from tests.resolve.test_resolver import DATA, DIGEST, World, blob

KIB = 1024
PAGE = b"<html>502 Bad Gateway</html>"
SMALL = Random(9).randbytes(2_000)


def drip(rate: int) -> Script:
    """Make a peer that gives so many bytes a second, in ten parts."""
    return Script(DATA, chunk=rate // 10, chunk_s=0.1)


async def test_a_source_that_drips_is_left(autojump_clock: MockClock) -> None:
    """1 KiB/s is slow although bytes come: within seconds somebody else sends the rest, each byte once."""
    world = World({1: drip(KIB), 2: Script(DATA, head_s=0.04)})
    assert await world.pull() == DATA
    assert world.trail.peers == [node(1), node(2)]
    assert trio.current_time() < SLOW_S + 2


async def test_every_source_that_drips_is_left(autojump_clock: MockClock) -> None:
    """However many give next to nothing, the one that gives more is found."""
    world = World({number: drip(KIB) for number in range(1, 5)})
    await world_with_latecomer(world)
    assert await world.pull() == DATA
    assert world.trail.peers[-1] == node(9)


async def world_with_latecomer(world: World) -> None:
    """Add a quick peer that is found last: its head takes longest."""
    world.peers.scripts[9] = Script(DATA, head_s=0.3)
    world.routers.say(key_of(DIGEST), Provider(node(9), address(9)))


async def test_a_lone_source_that_drips_is_given_up(autojump_clock: MockClock) -> None:
    """Next to nothing for 10 s is cut, so that containerd can go elsewhere, and is not asked again for a minute."""
    world, sink = World({1: drip(KIB)}), KeptSink()
    with pytest.raises(Unreachable, match="next to nothing"):
        await world.pull(sink=sink)
    assert trio.current_time() < GIVE_UP_S + 2
    assert DATA.startswith(sink.data)
    with pytest.raises(NotHere):
        await world.find(blob(byte_range=f"bytes={len(sink.data)}-"))
    await trio.sleep(GIVEN_UP_S)
    (await world.find(blob())).close()


async def test_a_lone_source_that_is_slow_is_kept(autojump_clock: MockClock) -> None:
    """Without anybody else a source that gives something is better than none."""
    world = World({1: drip(4 * RATE_MIN)})
    assert await world.pull() == DATA
    assert world.trail.resumes == 0


async def test_a_source_under_a_tenth_of_the_usual_rate_is_left(autojump_clock: MockClock) -> None:
    """What is slow is judged by what peers have given lately."""
    world = World({1: drip(4 * RATE_MIN), 2: Script(DATA, head_s=0.04)})
    world.scores.ended(node(7), 40_000_000, 1.0)
    assert await world.pull() == DATA
    assert world.trail.peers == [node(1), node(2)]


async def test_when_all_are_slow_it_is_not_the_sources(autojump_clock: MockClock) -> None:
    """A node whose own link is the limit changes its source twice at most."""
    world = World({number: drip(4 * RATE_MIN) for number in range(1, 6)})
    world.scores.ended(node(7), 40_000_000, 1.0)
    assert await world.pull() == DATA
    assert world.trail.resumes == 2


async def test_a_busy_source_is_asked_again(autojump_clock: MockClock) -> None:
    """A peer without a free slot is nobody who failed: half a second later it is asked again, and gives."""
    world = World({1: Script(DATA, fails=Busy("no slot"), fails_until=trio.current_time() + 0.5)})
    assert await world.pull() == DATA
    assert world.router.reported == []


async def test_a_source_that_stays_busy_is_a_miss(autojump_clock: MockClock) -> None:
    """Within a second, as any other; and it has not been asked more often than five times a second."""
    world = World({1: Script(DATA, fails=Busy("no slot"))})
    began = trio.current_time()
    with pytest.raises(NotHere):
        await world.find(blob())
    assert trio.current_time() - began <= 1.1
    assert len(world.peers.scripts[1].asked) <= 6


async def test_whom_a_busy_source_names_is_asked(autojump_clock: MockClock) -> None:
    """At once, where it is a member of the cluster; somebody of whom nobody has heard is not dialled."""
    busy = Busy("no slot", [node(7), node(2)])
    world = World({1: Script(DATA, fails=busy)})
    world.peers.scripts |= {2: Script(DATA), 7: Script(DATA)}
    world.routers.router(node(2), address(2))
    assert await world.pull() == DATA
    assert world.trail.peers == [node(2)]
    assert world.peers.scripts[7].asked == []


async def test_a_client_that_reads_slowly_makes_no_source_slow(autojump_clock: MockClock) -> None:
    """Ten bytes a second are the client's pace, not the source's."""
    world = World({1: Script(DATA), 2: Script(DATA)})
    world.scores.ended(node(7), 40_000_000, 1.0)
    assert await world.pull(sink=KeptSink(step_s=3.0)) == DATA
    assert world.trail.resumes == 0


async def test_who_stalled_is_asked_again_when_nobody_else_is_left(autojump_clock: MockClock) -> None:
    """A peer that was frozen for two seconds is better than a cut response."""
    world = World({1: Script(DATA, stall_at=1_000_000, stall_s=2.0), 2: Script(DATA, head_s=0.04, break_at=1_500_000)})
    assert await world.pull() == DATA
    assert world.trail.peers[:2] == [node(1), node(2)]
    assert world.trail.peers[-1] == node(1)


async def test_what_a_slow_source_sent_meanwhile_is_not_sent_twice(autojump_clock: MockClock) -> None:
    """A source that drips while the next one is being asked: the overlap is thrown away."""
    world = World({1: drip(10 * KIB), 2: Script(DATA, head_s=0.9)})
    assert await world.pull() == DATA
    assert world.trail.peers == [node(1), node(2)]


async def test_a_small_blob_is_verified_before_it_is_answered(autojump_clock: MockClock) -> None:
    """An error page with a 200 is never seen: its peer is banned and the next one asked."""
    digest = Digest.of(SMALL)
    world = World({1: Script(PAGE), 2: Script(SMALL, head_s=0.04)}, has=(digest,))
    want = Want("blob", "docker.io", "library/app", digest)
    found = await world.find(want)
    assert isinstance(found, InHand)
    assert (found.data, world.scores.banned(node(1), digest, trio.current_time())) == (SMALL, True)
    assert world.peers.open == 0


async def test_an_error_page_in_place_of_a_layer(autojump_clock: MockClock) -> None:
    """The answer has not begun when the page is found out: the layer comes whole from the next peer."""
    world = World({1: Script(PAGE), 2: Script(DATA, head_s=0.04)})
    found = await world.find(blob())
    assert isinstance(found, Arriving)
    assert found.content.size == len(DATA)
    found.close()
    assert world.peers.open == 0


@pytest.mark.parametrize("script", [Script(PAGE), Script(SMALL, break_at=10), Script(SMALL, stall_at=10)])
async def test_nobody_has_the_small_blob_right(script: Script, autojump_clock: MockClock) -> None:
    """Wrong, broken or stalled, a small blob is a miss within 1 s."""
    digest = Digest.of(SMALL)
    world = World({1: script}, has=(digest,))
    with pytest.raises(NotHere):
        await world.find(Want("blob", "docker.io", "library/app", digest))
    assert trio.current_time() <= 1.1
    assert world.peers.open == 0


async def test_a_range_from_peers_of_different_lengths(autojump_clock: MockClock) -> None:
    """The end of a range goes by the answer that its bytes come from."""
    world = World({1: Script(DATA, size=100_000), 2: Script(DATA, head_s=0.04)})
    for _ in range(4):
        found = await world.find(blob(byte_range="bytes=10-"))
        assert isinstance(found, Arriving)
        assert found.end == found.content.size
        found.close()


async def test_cancelling_a_small_blob_anywhere_leaves_nothing_open() -> None:
    """A client that leaves while a small blob is read, or the next peer asked, leaves no answer open."""
    digest = Digest.of(SMALL)
    worlds: list[World] = []

    async def pull() -> None:
        worlds.append(World({1: Script(PAGE), 2: Script(SMALL, chunk=500)}, has=(digest,)))
        await worlds[-1].find(Want("blob", "docker.io", "library/app", digest))

    async def check() -> None:
        assert worlds[-1].peers.open == 0

    assert await cancel_at_every_checkpoint(pull, check) > 3
