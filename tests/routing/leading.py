"""What every router promises of leaders, as tests that the memory twin and the DHT both run, on virtual time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio

from p2pmirror.routing.protocol import LEASE_S, Grant, Key, Offer, Router
from tests.routing.conformance import SETTLE_S, Cluster, key


async def want_all(routers: Sequence[Router], wanted: Key) -> list[Grant]:
    """Have everybody want a key in one moment; return what each is answered, in order."""
    grants: dict[int, Grant] = {}

    async def want(number: int) -> None:
        grants[number] = await routers[number].want(wanted)

    async with trio.open_nursery() as nursery:
        for number in range(len(routers)):
            nursery.start_soon(want, number)
    return [grants[number] for number in range(len(routers))]


async def lead(router: Router, wanted: Key) -> None:
    """Report without end, as a leader does."""
    count = 0
    while True:
        router.report(wanted, count)
        count += 1 << 20
        await trio.sleep(0.5)


class LeaderConformance:
    """Subclasses give `cluster(count, zones, seeds)`; at its entry everybody has joined and knows everybody."""

    def cluster(
        self, count: int, zones: list[str] | None = None, *, seeds: Sequence[int] = ()
    ) -> AbstractAsyncContextManager[Cluster]:
        raise NotImplementedError

    @pytest.fixture
    async def three(self, autojump_clock: Any) -> AsyncIterator[Cluster]:
        async with self.cluster(3) as cluster:
            yield cluster

    async def test_a_node_alone_leads_at_once(self, autojump_clock: Any) -> None:
        """With nobody else to ask, a node leads, without a pause worth the name."""
        async with self.cluster(1) as cluster:
            with trio.fail_after(0.1):
                assert await cluster.routers[0].want(key(1)) == Grant(leads=True, leader=None, providers=())

    @pytest.mark.parametrize("count", [2, 3, 30])
    async def test_one_of_all_who_want_a_key_leads(self, autojump_clock: Any, count: int) -> None:
        """Everybody asks in one moment: one leads, all others are told who, where, and that it has not all of it."""
        async with self.cluster(count) as cluster:
            for number in range(5):
                grants = await want_all(cluster.routers, key(number))
                (leader,) = [here for here, grant in enumerate(grants) if grant.leads]
                told = {grant.leader for here, grant in enumerate(grants) if here != leader}
                (provider,) = told
                assert provider is not None
                assert provider.node_id == cluster.routers[leader].node_id
                assert provider.address == cluster.addresses[leader]
                assert (provider.complete, provider.leading) == (False, True)
                assert grants[leader].leader is None

    async def test_a_want_takes_some_milliseconds(self, autojump_clock: Any) -> None:
        """When all is well the answer costs a round trip or two, asked for the first time or again."""
        async with self.cluster(30) as cluster:
            for number in range(10):
                with trio.fail_after(0.030):
                    await cluster.routers[number].want(key(number % 3))

    async def test_who_leads_and_asks_again_leads_on(self, three: Cluster, autojump_clock: Any) -> None:
        """The answer may have been lost: the same node is told the same."""
        assert (await three.routers[0].want(key(1))).leads
        assert (await three.routers[0].want(key(1))).leads
        assert not (await three.routers[1].want(key(1))).leads

    async def test_a_leader_that_reports_leads_on(self, three: Cluster, autojump_clock: Any) -> None:
        """For as long as it reports every 500 ms nobody else leads, also when it has no byte yet."""
        assert (await three.routers[0].want(key(1))).leads
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lead, three.routers[0], key(1))
            for _ in range(10):
                await trio.sleep(1.0)
                for router in three.routers[1:]:
                    grant = await router.want(key(1))
                    assert not grant.leads
                    assert grant.leader is not None
                    assert grant.leader.node_id == three.routers[0].node_id
            nursery.cancel_scope.cancel()

    async def test_a_leader_that_says_nothing_leads_no_more(self, three: Cluster, autojump_clock: Any) -> None:
        """The next one who asks after the lease has ended leads, and the former leader is told of it."""
        assert (await three.routers[0].want(key(1))).leads
        await trio.sleep(LEASE_S + 0.1)
        assert (await three.routers[1].want(key(1))).leads
        grant = await three.routers[0].want(key(1))
        assert grant.leader is not None
        assert grant.leader.node_id == three.routers[1].node_id

    async def test_a_leader_that_resigns_frees_the_key(self, three: Cluster, autojump_clock: Any) -> None:
        """What was resigned is granted at once; other keys are led on, and the key may be led again."""
        for number in (1, 2):
            assert (await three.routers[0].want(key(number))).leads
            three.routers[0].report(key(number), 5)
        three.routers[0].resign(key(1))
        await trio.sleep(0.1)
        assert (await three.routers[1].want(key(1))).leads
        assert not (await three.routers[1].want(key(2))).leads
        three.routers[1].resign(key(1))
        await trio.sleep(0.1)
        assert (await three.routers[0].want(key(1))).leads
        assert not (await three.routers[2].want(key(1))).leads

    async def test_nobody_ends_or_prolongs_what_another_leads(self, three: Cluster, autojump_clock: Any) -> None:
        """Reports and resignations of a node that does not lead change nothing."""
        assert (await three.routers[0].want(key(1))).leads
        three.routers[1].resign(key(1))
        three.routers[1].report(key(1), 7)
        await trio.sleep(LEASE_S - 0.5)
        grant = await three.routers[2].want(key(1))
        assert grant.leader is not None
        assert grant.leader.node_id == three.routers[0].node_id
        await trio.sleep(0.6)
        assert (await three.routers[2].want(key(1))).leads

    async def test_when_the_leader_dies_the_next_asker_leads(self, autojump_clock: Any) -> None:
        """Everybody goes on asking after the leader's silent death: within some two seconds one of them leads."""
        async with self.cluster(10) as cluster:
            grants = await want_all(cluster.routers, key(1))
            (dead,) = [here for here, grant in enumerate(grants) if grant.leads]
            cluster.routers[dead].report(key(1), 1)
            await trio.sleep(0.3)
            cluster.kill(dead)
            others = [router for here, router in enumerate(cluster.routers) if here != dead]
            with trio.fail_after(LEASE_S + 1.0):
                while not any(leads := [grant.leads for grant in await want_all(others, key(1))]):  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.25)
            assert leads.count(True) == 1
            again = [grant.leads for grant in await want_all(others, key(1))]
            assert again == leads

    async def test_when_the_leader_leaves_the_next_asker_leads(self, three: Cluster, autojump_clock: Any) -> None:
        """A goodbye frees what the node led, at once."""
        assert (await three.routers[0].want(key(1))).leads
        await three.routers[0].leave()
        assert (await three.routers[1].want(key(1))).leads

    async def test_who_has_all_of_it_wins_over_a_grant(self, three: Cluster, autojump_clock: Any) -> None:
        """Where somebody has the content nobody leads: the asker is told who has it."""
        three.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        grant = await three.routers[1].want(key(1))
        assert (grant.leads, grant.leader) == (False, None)
        assert [(each.node_id, each.complete) for each in grant.providers] == [(three.routers[0].node_id, True)]
        await trio.sleep(60)
        assert not (await three.routers[2].want(key(1))).leads

    async def test_who_has_a_part_is_named_beside_the_leader(self, three: Cluster, autojump_clock: Any) -> None:
        """A part is not all of it: the asker leads, or learns the leader, and is told who has a part."""
        three.routers[0].advertise({key(1): Offer(complete=False)})
        await trio.sleep(SETTLE_S)
        grants = [await router.want(key(1)) for router in three.routers[1:]]
        assert [grant.leads for grant in grants] == [True, False]
        for grant in grants:
            assert [each.node_id for each in grant.providers] == [three.routers[0].node_id]

    async def test_a_seed_leads_in_place_of_who_asks(self, autojump_clock: Any) -> None:
        """Where seeds are known one of them is named, the same to all who ask, and leads as soon as it asks itself."""
        async with self.cluster(8, seeds=[2, 5]) as cluster:
            seeds = {cluster.routers[number].node_id: cluster.routers[number] for number in (2, 5)}
            named = set()
            for number in range(8):
                grants = [await cluster.routers[here].want(key(number)) for here in (0, 1, 7)]
                assert not any(grant.leads for grant in grants)
                (leader,) = {grant.leader for grant in grants}
                assert leader is not None
                assert leader.leading
                named.add(leader.node_id)
                (other,) = [router for router in seeds.values() if router.node_id != leader.node_id]
                grant = await other.want(key(number))
                assert grant.leader is not None
                assert grant.leader.node_id == leader.node_id
                assert (await seeds[leader.node_id].want(key(number))).leads
            assert named == set(seeds)

    async def test_a_seed_that_asks_first_leads(self, autojump_clock: Any) -> None:
        """A seed is not sent to another seed."""
        async with self.cluster(5, seeds=[1, 2]) as cluster:
            for number in range(4):
                assert (await cluster.routers[1].want(key(number))).leads

    async def test_a_seed_that_does_not_lead_is_passed_over(self, autojump_clock: Any) -> None:
        """A seed that was named and said nothing for a lease costs that time: then the next asker leads."""
        async with self.cluster(5, seeds=[4]) as cluster:
            assert not (await cluster.routers[0].want(key(1))).leads
            await trio.sleep(LEASE_S + 0.1)
            assert (await cluster.routers[0].want(key(1))).leads

    async def test_a_want_that_is_cancelled_leaves_nothing(self, three: Cluster, autojump_clock: Any) -> None:
        """Cancelled at its first await, the next one is answered as if it had not been."""
        with trio.CancelScope() as scope:
            scope.cancel()
            await three.routers[0].want(key(1))
        assert scope.cancelled_caught
        await trio.sleep(LEASE_S + 0.1)
        assert (await three.routers[1].want(key(1))).leads
