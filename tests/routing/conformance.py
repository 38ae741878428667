"""What every router promises, as tests that the memory twin and the DHT both run.

A subclass says how a cluster comes to be (`cluster`); everything here runs on virtual time.
"""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from p2pmirror.oci import Digest, TagName
from p2pmirror.routing.protocol import CHECKING, Key, Offer, Provider, Router, TagClaim, key_of
from p2pmirror.wire.address import Address

SETTLE_S = 2.0  # within this an advertised key is known everywhere: the promise of the end-to-end test


def digest(number: int) -> Digest:
    return Digest.of(f"content {number}".encode())


def key(number: int) -> Key:
    return key_of(digest(number))


def claim(number: int, *, age_s: float = 0.0, confirmed: bool = True) -> TagClaim:
    return TagClaim(digest(number), "application/vnd.oci.image.index.v1+json", 700 + number, age_s, confirmed)


@dataclass
class Cluster:
    routers: list[Router]
    addresses: list[Address]  # of their registries
    kill: Callable[[int], None]
    zones: list[str] = field(default_factory=list)


async def find_all(router: Router, wanted: Key) -> list[Provider]:
    async with router.find(wanted) as providers:
        return [provider async for provider in providers if provider is not CHECKING]


async def find_first(router: Router, wanted: Key) -> Provider | None:
    async with router.find(wanted) as providers:
        async for provider in providers:
            if provider is not CHECKING:
                return provider
    return None


async def ids(router: Router, wanted: Key) -> set[bytes]:
    return {provider.node_id for provider in await find_all(router, wanted)}


class RouterConformance:
    """Subclasses give `cluster(count, zones)`; at its entry everybody has joined and knows everybody."""

    def cluster(
        self, count: int, zones: list[str] | None = None, *, seeds: Sequence[int] = ()
    ) -> AbstractAsyncContextManager[Cluster]:
        raise NotImplementedError

    @pytest.fixture
    async def three(self, autojump_clock: Any) -> AsyncIterator[Cluster]:
        async with self.cluster(3) as cluster:
            yield cluster

    async def test_nobody_found_is_an_empty_channel(self, three: Cluster, autojump_clock: Any) -> None:
        """A key that nobody has ends the channel without a provider, and without an error."""
        assert await find_all(three.routers[0], key(1)) == []

    async def test_a_node_alone(self, autojump_clock: Any) -> None:
        """A cluster of one is joined, finds nobody, and never finds itself."""
        async with self.cluster(1) as cluster:
            (router,) = cluster.routers
            assert router.joined
            assert router.members() == []
            router.advertise({key(1): Offer()})
            await trio.sleep(SETTLE_S)
            assert await find_all(router, key(1)) == []
            assert router.advertised == 1

    @pytest.mark.parametrize("count", [3, 30])
    async def test_what_one_advertises_all_others_find(self, autojump_clock: Any, count: int) -> None:
        """Every other node finds the provider with its registry address; the provider does not find itself."""
        async with self.cluster(count) as cluster:
            cluster.routers[0].advertise({key(1): Offer()})
            await trio.sleep(SETTLE_S)
            for router in cluster.routers[1:]:
                (found,) = await find_all(router, key(1))
                assert (found.node_id, found.address) == (cluster.routers[0].node_id, cluster.addresses[0])
                assert found.complete
                assert found.tag is None
            assert await find_all(cluster.routers[0], key(1)) == []

    async def test_everybody_knows_everybody(self, autojump_clock: Any) -> None:
        """Members are all the others, alive, with the addresses of their registries."""
        async with self.cluster(5) as cluster:
            for here, router in enumerate(cluster.routers):
                members = {member.node_id: member for member in router.members()}
                others = {each.node_id: at for n, each in enumerate(cluster.routers) for at in [cluster.addresses[n]]}
                del others[cluster.routers[here].node_id]
                assert {node_id: member.address for node_id, member in members.items()} == others
                assert {member.state for member in members.values()} == {"alive"}

    async def test_the_first_provider_comes_at_once(self, three: Cluster, autojump_clock: Any) -> None:
        """The first provider is there within the 30 ms that a pull waits for it."""
        three.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        with trio.fail_after(0.030):
            found = await find_first(three.routers[2], key(1))
        assert found is not None

    async def test_two_providers_come_once_each(self, three: Cluster, autojump_clock: Any) -> None:
        """Both providers of a key are found, each once, however many nodes keep their records."""
        for router in three.routers[:2]:
            router.advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        found = [provider.node_id for provider in await find_all(three.routers[2], key(1))]
        assert sorted(found) == sorted(router.node_id for router in three.routers[:2])

    async def test_partial_is_said(self, three: Cluster, autojump_clock: Any) -> None:
        """A node that holds a part is found as such, and as complete once it has said that."""
        three.routers[0].advertise({key(1): Offer(complete=False)})
        await trio.sleep(SETTLE_S)
        assert [each.complete for each in await find_all(three.routers[1], key(1))] == [False]
        three.routers[0].advertise({key(1): Offer(complete=True)})
        await trio.sleep(SETTLE_S)
        assert [each.complete for each in await find_all(three.routers[1], key(1))] == [True]

    async def test_many_keys_at_once(self, three: Cluster, autojump_clock: Any) -> None:
        """Five hundred keys said in one call are all found."""
        three.routers[0].advertise({key(number): Offer() for number in range(500)})
        assert three.routers[0].advertised == 500
        await trio.sleep(SETTLE_S)
        for number in range(0, 500, 7):
            assert await ids(three.routers[1], key(number)) == {three.routers[0].node_id}

    async def test_withdrawn_is_not_found(self, three: Cluster, autojump_clock: Any) -> None:
        """What was withdrawn is found nowhere any more; the other keys are."""
        three.routers[0].advertise({key(1): Offer(), key(2): Offer()})
        await trio.sleep(SETTLE_S)
        three.routers[0].withdraw([key(1), key(99)])
        assert three.routers[0].advertised == 1
        await trio.sleep(SETTLE_S)
        for router in three.routers[1:]:
            assert await ids(router, key(1)) == set()
            assert await ids(router, key(2)) == {three.routers[0].node_id}

    async def test_withdrawn_and_said_again_is_found(self, three: Cluster, autojump_clock: Any) -> None:
        """The last word counts."""
        three.routers[0].advertise({key(1): Offer()})
        three.routers[0].withdraw([key(1)])
        three.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        assert await ids(three.routers[1], key(1)) == {three.routers[0].node_id}

    async def test_a_tag_comes_with_its_claim_and_its_age(self, three: Cluster, autojump_clock: Any) -> None:
        """A tag's provider says what it names, since when, and whether an upstream confirmed it."""
        name = TagName("docker.io", "library/nginx", "1.27")
        since = trio.current_time()
        three.routers[0].advertise({key_of(name): Offer(tag=claim(7), since=since)})
        await trio.sleep(SETTLE_S + 60)
        (found,) = await find_all(three.routers[1], key_of(name))
        assert found.tag is not None
        assert (found.tag.digest, found.tag.media_type, found.tag.size) == (digest(7), claim(7).media_type, 707)
        assert found.tag.confirmed
        assert math.isclose(found.tag.age_s, trio.current_time() - since, abs_tol=2.0)

    async def test_the_newest_claim_replaces_the_old_one(self, three: Cluster, autojump_clock: Any) -> None:
        """A provider that says something new of a tag is found with that; another provider keeps its own claim."""
        name = key_of(TagName("ghcr.io", "a/b", "latest"))
        for number in (0, 1):
            three.routers[number].advertise({name: Offer(tag=claim(1), since=trio.current_time())})
        await trio.sleep(SETTLE_S)
        three.routers[0].advertise({name: Offer(tag=claim(2, confirmed=False), since=trio.current_time())})
        await trio.sleep(SETTLE_S)
        found = {each.node_id: each.tag for each in await find_all(three.routers[2], name)}
        tags = [found[router.node_id] for router in three.routers[:2]]
        assert [(tag.digest, tag.confirmed) for tag in tags if tag] == [(digest(2), False), (digest(1), True)]

    async def test_a_node_that_left_is_not_found(self, three: Cluster, autojump_clock: Any) -> None:
        """A node that says goodbye is out of the answers at once, and no member any more, within its second."""
        three.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        with trio.fail_after(1.1):
            await three.routers[0].leave()
        for router in three.routers[1:]:
            assert await ids(router, key(1)) == set()
            left = [member.state for member in router.members() if member.node_id == three.routers[0].node_id]
            assert left in ([], ["gone"])

    async def test_a_dead_node_is_not_found_after_ten_seconds(self, three: Cluster, autojump_clock: Any) -> None:
        """A node that dies silently is handed out no more after 10 s; a living provider still is."""
        for router in three.routers[:2]:
            router.advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        three.kill(0)
        await trio.sleep(10)
        assert await ids(three.routers[2], key(1)) == {three.routers[1].node_id}

    async def test_a_failed_dial_is_believed_at_once(self, three: Cluster, autojump_clock: Any) -> None:
        """A dead provider that a dial failed to is not handed out again, well before ten seconds have passed."""
        three.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        assert await ids(three.routers[2], key(1)) == {three.routers[0].node_id}
        three.kill(0)
        three.routers[2].failed(three.routers[0].node_id)
        await trio.sleep(0.2)
        assert await ids(three.routers[2], key(1)) == set()

    async def test_a_false_report_does_no_harm(self, three: Cluster, autojump_clock: Any) -> None:
        """A living provider that is reported as failed is found again at once."""
        three.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        three.routers[2].failed(three.routers[0].node_id)
        await trio.sleep(0.2)
        assert await ids(three.routers[2], key(1)) == {three.routers[0].node_id}

    async def test_the_same_zone_comes_first(self, autojump_clock: Any) -> None:
        """Of two providers the one in the asker's own zone is handed out first."""
        async with self.cluster(3, ["far", "near", "near"]) as cluster:
            for router in cluster.routers[:2]:
                router.advertise({key(1): Offer()})
            await trio.sleep(SETTLE_S)
            first, second = await find_all(cluster.routers[2], key(1))
            assert (first.zone, second.zone) == ("near", "far")

    async def test_leaving_the_block_ends_the_lookup(self, three: Cluster, autojump_clock: Any) -> None:
        """A find that is left early, or cancelled at its first await, leaves the router as it was."""
        three.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        async with three.routers[2].find(key(1)):
            pass
        with trio.CancelScope() as scope:
            scope.cancel()
            await find_all(three.routers[2], key(1))
        assert await ids(three.routers[2], key(1)) == {three.routers[0].node_id}

    async def test_leading_is_said(self, three: Cluster, autojump_clock: Any) -> None:
        """A node that fetches from upstream is found as such: in part, and leading."""
        three.routers[0].advertise({key(1): Offer(complete=False, leading=True)})
        await trio.sleep(SETTLE_S)
        assert [(each.complete, each.leading) for each in await find_all(three.routers[1], key(1))] == [(False, True)]
        three.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        assert [(each.complete, each.leading) for each in await find_all(three.routers[1], key(1))] == [(True, False)]
