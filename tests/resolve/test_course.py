"""Where a blob comes from: over a border by one node of a zone, which the others follow, and where nobody gives it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.oci import Digest
from p2pmirror.peers.scores import Scores
from p2pmirror.resolve.course import ALONE_S, BlobCourse
from p2pmirror.resolve.flight import Flight
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.race import HEAD_S, RaceOptions, Sources
from p2pmirror.resolve.steering import Step
from p2pmirror.resolve.want import Trail, Want
from p2pmirror.routing.memory import MemoryRouters
from p2pmirror.routing.protocol import Offer, Provider, border_key_of, key_of
from tests.cancellation import cancel_at_every_checkpoint
from tests.resolve.fakes import Script, ScriptedPeers, address, node

DATA = Random(1).randbytes(100_000)
DIGEST = Digest.of(DATA)
BORDER = border_key_of(DIGEST, "b")


class Border:
    """Node 9 of zone b, which wants a blob; the others are nodes of zones, as a test says."""

    def __init__(
        self, zones: dict[int, str], *, mute: frozenset[int] = frozenset(), has_registry: bool = False
    ) -> None:
        self.routers = MemoryRouters()
        self.others = {
            number: self.routers.router(node(number), address(number), zone) for number, zone in zones.items()
        }
        self.router = self.routers.router(node(9), address(9), "b")
        self.peers = ScriptedPeers({each: Script(DATA, head_s=60 if each in mute else 0.0) for each in zones})
        sources = Sources(self.router, self.peers, Scores(Random(1)), RaceOptions(zone="b"))
        want = Want("blob", "registry.example", "app", DIGEST)
        metrics = ResolveMetrics(CollectorRegistry())
        registry = _never_opened if has_registry else None
        self.course = BlobCourse(want, DIGEST, sources, metrics, trail=Trail(), from_registry=registry)
        self.flight = Flight(DIGEST, "registry.example/app", 0.0)

    def offers(self, number: int, *, complete: bool = True, leading: bool = False) -> None:
        self.others[number].advertise({key_of(DIGEST): Offer(complete, leading)})

    async def next(self, *company: int) -> Step:
        step = await self.course.next(self.flight, {node(number) for number in company})
        if step.stream is not None:
            step.stream.close()
        assert self.peers.open == 0
        return step


def _never_opened(start: int) -> Any:
    raise AssertionError(f"a course only says that the registry is to be asked, from byte {start}")


def nodes_of(step: Step) -> list[int]:
    return [each.node_id[0] for each in step.providers]


async def test_the_first_of_a_zone_takes_a_far_peers_stream(autojump_clock: Any) -> None:
    """It does so under the lease of its zone's border."""
    border = Border({1: "a"})
    border.offers(1)
    step = await border.next()
    assert (step.stream is not None, step.border) == (True, BORDER)


async def test_while_something_comes_nobody_else_is_looked_for(autojump_clock: Any) -> None:
    """A leader that is slow is followed on; once nothing came, or he is gone, a peer that has all of it is asked."""
    border = Border({1: "b", 2: "b"})
    border.offers(2, complete=False, leading=True)
    assert set(nodes_of(await border.next())) == {2}
    border.offers(1)
    border.flight.moved = 7
    step = await border.next(2)
    assert (step.stream, nodes_of(step)) == (None, [])
    assert (await border.next(2)).stream is not None, "nothing came meanwhile"
    border.flight.moved = 8
    assert (await border.next()).stream is not None, "nobody is left who could send more"


async def test_the_next_one_follows_it(autojump_clock: Any) -> None:
    """Where another node of the zone has that lease the far peer's answer is let go of, and that node followed."""
    border = Border({1: "a", 2: "b"})
    border.offers(1)
    assert (await border.others[2].want(BORDER)).leads
    step = await border.next()
    assert (step.stream, nodes_of(step), step.border) == (None, [2], None)


async def test_a_near_peers_stream_needs_no_lease(autojump_clock: Any) -> None:
    """What is in the zone already crosses nothing."""
    border = Border({1: "b"})
    border.offers(1)
    step = await border.next()
    assert (step.stream is not None, step.border, border.router.wants) == (True, None, 0)


async def test_who_leads_in_the_zone_is_followed_alone(autojump_clock: Any) -> None:
    """A leader elsewhere is not asked then, and counts neither as followed nor as one who let this node down."""
    border = Border({1: "a", 2: "b", 3: "a"})
    border.offers(1, complete=False, leading=True)
    border.offers(2, complete=False, leading=True)
    border.offers(3, complete=False)
    for _ in range(3):
        assert set(nodes_of(await border.next())) == {2}
        border.course._followed.pop(node(2), None)
    assert border.course._followed == {}


async def test_a_far_leader_is_followed_under_the_lease(autojump_clock: Any) -> None:
    """By the first of the zone, who takes all that others have; the second is sent to the first."""
    border = Border({1: "a", 2: "b", 3: "a"})
    border.offers(1, complete=False, leading=True)
    border.offers(3, complete=False)
    step = await border.next()
    assert (set(nodes_of(step)), step.border) == ({1, 3}, BORDER)
    assert set(nodes_of(await border.next(1))) <= {1, 3}
    other = Border({1: "a", 2: "b"})
    other.offers(1, complete=False, leading=True)
    assert (await other.others[2].want(BORDER)).leads
    step = await other.next()
    assert (nodes_of(step), step.border) == ([2], None)


async def test_a_lease_in_far_hands_is_no_reason_to_wait(autojump_clock: Any) -> None:
    """Who holds it is not of this zone, a seed for one: this node crosses by itself."""
    border = Border({1: "a"})
    border.offers(1)
    assert (await border.others[1].want(BORDER)).leads
    step = await border.next()
    assert (step.stream is not None, step.border) == (True, None)


async def test_who_was_followed_in_vain_is_followed_no_more(autojump_clock: Any) -> None:
    """However long he keeps the lease: after two tries this node crosses by itself."""
    border = Border({1: "a", 2: "b"})
    border.offers(1)
    seen = []
    for _ in range(3):
        border.others[2].report(BORDER, 0)
        step = await border.next()
        seen.append(nodes_of(step))
    assert seen == [[2], [2], []]
    assert step.stream is not None


@pytest.mark.parametrize("is_led", [True, False])
async def test_cancelled_at_the_border(is_led: bool, autojump_clock: Any) -> None:
    """Whoever leaves while he asks for the lease leaves no peer's answer open."""
    border = Border({1: "a", 2: "b"})
    far = Provider(node(1), address(1), "a")

    async def cross() -> None:
        if is_led:
            border.others[2].report(BORDER, trio.current_time())
        won = await border.course.again(0, set())
        step = await border.course.across(won)
        assert (step.stream is None) == is_led
        if step.stream is not None:
            step.stream.close()

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        assert border.peers.open == 0
        border.course._followed.clear()
        border.router.resign(BORDER)

    border.routers.say(key_of(DIGEST), far)
    assert await cancel_at_every_checkpoint(cross, check) > 2


@pytest.mark.parametrize("since_s", [0.9, 1.9])
@pytest.mark.parametrize("meanwhile", [None, Offer(complete=False, leading=True), Offer(), Offer(complete=False)])
async def test_whoever_has_it_gives_nothing(meanwhile: Offer | None, since_s: float, autojump_clock: Any) -> None:
    """The registry is asked, unless somebody else leads by then, or has it; who is mute makes that look no longer."""
    border = Border({1: "b", 2: "b"}, mute=frozenset({1}), has_registry=True)
    border.offers(1)
    step: Step | None = None

    async def look() -> None:
        nonlocal step
        step = await border.next()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.sleep(since_s)
        if meanwhile is not None:
            border.others[2].advertise({key_of(DIGEST): meanwhile})
    assert step is not None
    assert trio.current_time() < 2 * HEAD_S + ALONE_S
    if meanwhile is not None and meanwhile.leading:
        assert (step.stream, set(nodes_of(step))) == (None, {2})
        assert border.course._followed == {node(2): 1}
    else:
        assert step.stream is not None
        assert step.stream.is_registry == (meanwhile is None or not meanwhile.complete)


async def test_cancelled_where_nobody_gives_it(autojump_clock: Any) -> None:
    """Whoever leaves before it is known whom to ask leaves nothing open."""
    border = Border({1: "b"}, mute=frozenset({1}), has_registry=True)
    border.offers(1)

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        assert border.peers.open == 0

    assert await cancel_at_every_checkpoint(border.next, check) > 2
