"""Tags and manifests are asked of their registry by one node for all that ask at the same moment, whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from p2pmirror.errors import MirrorError, NotHere, PeerMisbehaved, Unreachable, UpstreamRefused
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Digest, mediatype
from p2pmirror.peers.protocol import Answer, Busy, Follow, Question, RegistrySaid
from p2pmirror.resolve.once import FOLLOWED_MAX, WANT_S, WANTS_MAX
from p2pmirror.resolve.want import Content, Found, InHand, Trail, Want
from p2pmirror.routing.protocol import LEASE_S, Grant, Key, Provider, key_of, question_key_of
from p2pmirror.wire.identity import NodeId
from tests.cancellation import cancel_at_every_checkpoint
from tests.resolve.fakes import address, node
from tests.resolve.neighbours import Neighbours, SaidAnswer, neighbours
from tests.resolve.registry import NAME, REGISTRY, REPOSITORY, World, manifest_bytes

OLD, NEW = manifest_bytes("old"), manifest_bytes("new")
DIGEST = Digest.of(OLD)
LIAR = 9
PATIENCE_S = 2.0


async def tag(world: World) -> Found:
    return await world.find_tag("1")


async def document(world: World) -> Found:
    world.trail = Trail()
    return await world.resolver.find(Want("manifest", REGISTRY, REPOSITORY, DIGEST), world.trail)


def waiting(reference: Digest | str, wait_s: float = 1.0) -> Want:
    """Return what a peer asks that waits."""
    is_tag = isinstance(reference, str)
    return Want("manifest", REGISTRY, REPOSITORY, reference, head=is_tag, from_peer=node(1), waits_s=wait_s)


def all_right(outcomes: list[object], data: bytes = OLD) -> bool:
    return all(isinstance(each, InHand) and each.data == data for each in outcomes)


@asynccontextmanager
async def led_by_a_liar(lie: Callable[[Question], Awaitable[Answer]], *, count: int = 2) -> AsyncIterator[Neighbours]:
    """Have a node that is no agent lead everything, and answer as told."""
    async with neighbours(count) as there, trio.open_nursery() as nursery:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.lies[LIAR] = lie
        router = there.routers.router(node(LIAR), address(LIAR))

        async def lead(key: Key) -> None:
            while True:
                router.report(key, 0)
                await trio.sleep(0.4)

        for key in (key_of(DIGEST), question_key_of(NAME)):
            assert (await router.want(key)).leads
            nursery.start_soon(lead, key)
        yield there
        nursery.cancel_scope.cancel()


async def test_one_node_asks_for_all(autojump_clock: Any) -> None:
    """Ten nodes pull a tag at the same moment: one question for the tag, one for its manifest, and it costs no time."""
    async with neighbours(10) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.worlds[1].conduct.latency_s = 0.3
        with trio.fail_after(0.6 + 0.05):
            assert all_right(await there.all(tag))
        assert there.registries.count("resolve") == 1
        assert there.registries.count("document") == 1
        sources = sorted(world.trail.source for world in there.worlds.values())
        assert sources == ["peer"] * 9 + ["upstream"]
        assert all(len(world.trail.peers) == (world.trail.source == "peer") for world in there.worlds.values())
        outcomes = {"asked": 0.0, "told": 0.0, "vain": 0.0}
        for outcome in outcomes:
            counts = (each.count("questions", kind="tag", outcome=outcome) for each in there.worlds.values())
            outcomes[outcome] = sum(counts)
        assert outcomes == {"asked": 1, "told": 9, "vain": 0}


async def test_a_slow_registry_is_still_asked_once(autojump_clock: Any) -> None:
    """A leader that says that it is still asking is waited for, nearly as long as the registry itself would be."""
    async with neighbours(5) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.worlds[1].conduct.latency_s = 1.8
        assert all_right(await there.all(tag))
        assert [there.registries.count(kind) for kind in ("resolve", "document")] == [1, 1]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize("ask", [tag, document])
async def test_a_refusal_is_everybodys(
    ask: Callable[[World], Awaitable[Found]], status: int, autojump_clock: Any
) -> None:
    """What the registry refuses to one it has refused to all who wait, with all consequences; nobody asks again."""
    async with neighbours(6) as there:
        there.worlds[1].conduct.latency_s = 0.2
        there.worlds[1].conduct.status = status
        outcomes = await there.all(ask)
        if status == 404:
            assert all(type(each) is NotHere for each in outcomes)
        else:
            assert [each.status for each in outcomes if isinstance(each, UpstreamRefused)] == [status] * 6
        assert len(there.registries.questions) == 1
        if status in {401, 403, 404}:
            await there.all(ask)
            assert len(there.registries.questions) == 1, "a follower remembers a refusal as if it had met it"


async def test_a_registry_that_only_the_leader_does_not_reach(autojump_clock: Any) -> None:
    """No way to the registry is one node's trouble: the others ask it, one of them for all."""
    async with neighbours(6) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")

        async def unreachable(*_: object) -> None:
            await trio.sleep(0.2)
            raise Unreachable("no route")

        there.worlds[3].through.upstream.resolve = unreachable  # type: ignore[method-assign]
        there.worlds[1].conduct.latency_s = 0.2
        await there.worlds[3].router.want(question_key_of(NAME))
        outcomes = await there.all(tag)
        assert sum(isinstance(each, Unreachable) for each in outcomes) == 1
        assert sum(isinstance(each, InHand) for each in outcomes) == 5
        assert there.registries.count("resolve") <= 2


@pytest.mark.parametrize("trouble", ["down", "silent"])
async def test_a_registry_that_nobody_reaches(trouble: str, autojump_clock: Any) -> None:
    """Everybody fails, after half as long again as without followers at most."""
    async with neighbours(5) as there:
        there.worlds[1].misbehave(trouble)
        with trio.fail_after(1.5 * PATIENCE_S + 0.1):
            outcomes = await there.all(tag)
        assert all(isinstance(each, Unreachable) for each in outcomes)


async def test_an_answer_is_never_that_of_a_question_that_has_ended(autojump_clock: Any) -> None:
    """An image that was pushed again under its tag is seen by the next pull of any node, at once."""
    async with neighbours(3) as there:
        for data in (OLD, NEW, OLD, NEW):
            there.registries.put_document(REGISTRY, REPOSITORY, data, mediatype.OCI_MANIFEST, "1")
            for world in there.worlds.values():
                found = await tag(world)
                assert found.content.digest == Digest.of(data)
                with pytest.raises(NotHere):
                    await world.resolver.find(waiting("1"), Trail())


async def test_a_manifest_is_given_to_those_who_come_later(autojump_clock: Any) -> None:
    """As long as the lease of its last question lasts who asks next is sent to who has it, without a cache as well."""
    async with neighbours(3) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        for number in (1, 2, 3):
            assert all_right([await document(there.worlds[number])])
            await trio.sleep(0.4 * LEASE_S)
        assert there.registries.count("document") == 1
        assert all_right([await there.worlds[1].resolver.find(waiting(DIGEST), Trail())])
        await trio.sleep(70)
        with pytest.raises(NotHere):
            await there.worlds[1].resolver.find(waiting(DIGEST), Trail())


async def test_a_peer_that_waits_causes_no_question(autojump_clock: Any) -> None:
    """What is not being asked here is not here, for a tag, a manifest, a GET by tag, and without a registry at all."""
    async with neighbours(1) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        get_by_tag = Want("manifest", REGISTRY, REPOSITORY, "1", from_peer=node(2), waits_s=1.0)
        for want in (waiting("1"), waiting(DIGEST), get_by_tag):
            with pytest.raises(NotHere) as refused, trio.fail_after(0.1):
                await there.worlds[1].resolver.find(want, Trail())
            assert type(refused.value) is NotHere
        assert there.registries.questions == []


async def test_a_peer_that_waits_is_told_in_time_that_there_is_no_answer_yet(autojump_clock: Any) -> None:
    """After what he is ready to wait, and after 2 s whatever he says, he is told to go on waiting."""
    async with neighbours(1) as there:
        there.worlds[1].misbehave("silent")
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Unreachable):
                    await tag(there.worlds[1])

            nursery.start_soon(ask)
            await trio.sleep(0.01)
            for wait_s, limit_s in ((0.3, 0.31), (900.0, 2.01)):
                with pytest.raises(Follow) as told, trio.fail_after(limit_s):
                    await there.worlds[1].resolver.find(waiting("1", wait_s), Trail())
                assert told.value.leader == node(1)


async def test_the_leader_dies(autojump_clock: Any) -> None:
    """One of those who waited leads, the others wait for that one; everybody is answered."""
    async with neighbours(8) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.worlds[1].conduct.latency_s = 1.0
        dead: list[int] = []

        async def dies(_: Question) -> Answer:
            await trio.sleep(0.3)
            raise Unreachable("no connection")

        async def kill() -> None:
            await trio.sleep(0.2)
            dead.append(there.leader)
            there.lies[dead[0]] = dies
            there.routers.kill(node(dead[0]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            outcomes = await there.all(tag)
        assert all_right(outcomes)
        assert there.registries.count("resolve") == 2
        assert all(node(dead[0]) in each.router.reported for at, each in there.worlds.items() if at not in {*dead, 9})


async def lost(_: Question) -> Answer:
    raise Unreachable("cut")


async def mute(_: Question) -> Answer:
    await trio.sleep_forever()
    raise AssertionError


async def absent(_: Question) -> Answer:
    raise NotHere("404")


async def busy(_: Question) -> Answer:
    raise Busy("503")


async def no_answer(_: Question) -> Answer:
    raise PeerMisbehaved("no HTTP")


async def sends_on(_: Question) -> Answer:
    raise Follow("another", node(7))


async def still_at_it_at_once(_: Question) -> Answer:
    raise Follow("I am", node(LIAR))


async def for_ever_at_it(question: Question) -> Answer:
    await trio.sleep(question.waits_s)
    raise Follow("I am", node(LIAR))


def says(digest: str | None, size: int, media_type: str | None, data: bytes = b"") -> Callable[..., Awaitable[Answer]]:
    async def say(_: Question) -> Answer:
        await trio.lowlevel.checkpoint()
        return SaidAnswer(digest, size, media_type, data, count=size)

    return say


class _Dripping(SaidAnswer):
    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        await trio.sleep(0.3)
        return await super().receive_into(buffer[:1], gather_s)


async def drips(question: Question) -> Answer:
    assert question.method == "GET"
    return _Dripping(str(DIGEST), len(OLD), mediatype.OCI_MANIFEST, OLD, count=len(OLD))


SILENT = [lost, mute, absent, busy, no_answer, sends_on, still_at_it_at_once, for_ever_at_it]
BAD_TAGS = [
    says(None, 10, mediatype.OCI_MANIFEST),
    says("sha256:xyz", 10, mediatype.OCI_MANIFEST),
    says("../../etc/passwd", 10, mediatype.OCI_MANIFEST),
    says(str(DIGEST), 0, mediatype.OCI_MANIFEST),
    says(str(DIGEST), DOCUMENT_BYTES_MAX + 1, mediatype.OCI_MANIFEST),
    says(str(DIGEST), 10, None),
    says(str(DIGEST), 10, "text/html"),
]
BAD_DOCUMENTS = [
    says(str(DIGEST), len(NEW), mediatype.OCI_MANIFEST, NEW),
    says(str(DIGEST), len(OLD), mediatype.OCI_MANIFEST, OLD[:50]),
    says(str(DIGEST), len(OLD), mediatype.OCI_INDEX, OLD),
    says(str(DIGEST), 1 << 40, mediatype.OCI_MANIFEST, OLD),
    drips,
]


@pytest.mark.parametrize("lie", SILENT + BAD_TAGS)
async def test_a_leader_that_is_no_good_for_a_tag(
    lie: Callable[[Question], Awaitable[Answer]], autojump_clock: Any
) -> None:
    """Whatever a leader answers, or does not, each node has the registry's word in time, and asked him rarely."""
    async with led_by_a_liar(lie) as there:
        there.worlds[1].conduct.latency_s = 0.05
        with trio.fail_after(2 * (PATIENCE_S + 0.2)):
            assert all_right(await there.all(tag))
        assert there.registries.count("resolve") <= 2
        assert there.asked[LIAR] <= 2 * 2 * (WANTS_MAX * FOLLOWED_MAX)
        assert not any(answer.is_open for answer in there.answers)


@pytest.mark.parametrize("lie", SILENT + BAD_DOCUMENTS)
async def test_a_leader_that_is_no_good_for_a_manifest(
    lie: Callable[[Question], Awaitable[Answer]], autojump_clock: Any
) -> None:
    """The same for a manifest, whose bytes are believed by their digest alone; who sent others is banned for it."""
    async with led_by_a_liar(lie) as there:
        there.worlds[1].conduct.latency_s = 0.05
        with trio.fail_after(PATIENCE_S + 0.2):
            assert all_right(await there.all(document))
        banned = [each.scores.banned(node(LIAR), DIGEST, trio.current_time()) for each in there.worlds.values()]
        assert banned == [lie in BAD_DOCUMENTS and lie not in {drips, BAD_DOCUMENTS[1]}] * 2


async def test_what_a_leader_says_that_lies_about_refusals(autojump_clock: Any) -> None:
    """A member is believed that the registry refused: containerd is then sent there, and finds out by itself."""

    async def refuse(_: Question) -> Answer:
        raise RegistrySaid("403", 403)

    async with led_by_a_liar(refuse) as there:
        outcomes = await there.all(tag)
        assert all(isinstance(each, UpstreamRefused) and each.status == 403 for each in outcomes)


@pytest.mark.parametrize("status", [None, 403, 404])
async def test_a_seed_asks_for_all(status: int | None, autojump_clock: Any) -> None:
    """Who wants something is sent to the seed, which nobody has asked yet: it asks then, once, and tells the answer."""
    async with neighbours(4) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.worlds[1].conduct.latency_s, there.worlds[1].conduct.status = 0.1, status
        seed = World(number=5, registries=there.registries, routers=there.routers, peers=there, seed=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(seed.through.questions.run)
            others = list(there.worlds)
            there.worlds[5] = seed
            with trio.fail_after(0.3):
                outcomes = await there.all(tag, numbers=others)
            if status is None:
                assert all_right(outcomes)
                assert [there.registries.count(kind) for kind in ("resolve", "document")] == [1, 1]
                asked = seed.count("questions", kind="tag", outcome="asked")
                assert asked == seed.count("questions", kind="manifest", outcome="asked") == 1
            else:
                assert all(type(each) in {NotHere, UpstreamRefused} for each in outcomes)
                with pytest.raises(RegistrySaid):
                    await seed.resolver.find(waiting("1"), Trail())
                assert there.registries.count("resolve") == 1, "it remembers the refusal as well"
            nursery.cancel_scope.cancel()


async def test_two_that_are_sent_to_one_another_do_not_wait_for_one_another(autojump_clock: Any) -> None:
    """Nobody is made to wait for one who waits: both find at once that the other asks nobody, and ask themselves."""
    async with neighbours(2) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        for number, other in ((1, 2), (2, 1)):

            async def want(_: Key, other: int = other) -> Grant:
                await trio.sleep(0.01)
                return Grant(leads=False, leader=Provider(node(other), address(other), leading=True), providers=())

            there.worlds[number].router.want = want  # type: ignore[method-assign]
        with trio.fail_after(0.3):
            assert all_right(await there.all(tag))


async def test_who_is_about_to_ask_is_waited_for(autojump_clock: Any) -> None:
    """A follower may learn of a lease before the node that it was granted to: it waits for that one all the same."""
    async with neighbours(2) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        router = there.worlds[1].router
        granted = router.want

        async def late(key: Key) -> Grant:
            grant = await granted(key)
            await trio.sleep(0.2)
            return grant

        router.want = late  # type: ignore[method-assign]

        async def one_after_the_other(world: World) -> Found:
            await trio.sleep(0.0 if world is there.worlds[1] else 0.01)
            return await tag(world)

        assert all_right(await there.all(one_after_the_other))
        assert [there.registries.count(kind) for kind in ("resolve", "document")] == [1, 1]


async def test_a_router_that_does_not_say_who_asks(autojump_clock: Any) -> None:
    """Half a second is lost, and then this node asks."""
    async with neighbours(1) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.routers.want_latency_s = 60.0
        with trio.fail_after(WANT_S + 0.01):
            await there.worlds[1].through.questions.tag(Want("manifest", REGISTRY, REPOSITORY, "1"), Trail())


async def test_somebody_who_has_it_is_asked_before_the_registry(autojump_clock: Any) -> None:
    """Whoever a grant names as having all of a manifest gives it, where the lookup before did not find him."""
    async with neighbours(2) as there:
        there.worlds[2].through.manifests.keep(InHand(Content(DIGEST, len(OLD), mediatype.OCI_MANIFEST), OLD))
        grant = Grant(False, None, (Provider(node(3), address(3)), Provider(node(2), address(2))))
        there.lies[3] = absent

        async def want(_: Key) -> Grant:
            await trio.lowlevel.checkpoint()
            return grant

        there.worlds[1].router.want = want  # type: ignore[method-assign]
        assert all_right([await document(there.worlds[1])])
        assert (there.worlds[1].trail.source, there.worlds[1].trail.peers) == ("peer", [node(2)])
        assert there.registries.count("document") == 0


async def test_tags_that_are_not_shared(autojump_clock: Any) -> None:
    """With `share_tags = false` each node asks what a tag names; what it names is still fetched once."""
    async with neighbours(4, share_tags=False) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.worlds[1].conduct.latency_s = 0.2
        assert all_right(await there.all(tag))
        assert [there.registries.count(kind) for kind in ("resolve", "document")] == [4, 1]


async def test_another_repository_is_another_question(autojump_clock: Any) -> None:
    """One repository's refusal is not another one's: who may not read the first gets the digest from the second."""
    async with neighbours(2) as there:
        there.registries.put_document(REGISTRY, "free/app", OLD, mediatype.OCI_MANIFEST)
        there.worlds[1].conduct.latency_s = 0.2

        async def anywhere(world: World) -> Found:
            repository = REPOSITORY if world is there.worlds[1] else "free/app"
            return await world.resolver.find(Want("manifest", REGISTRY, repository, DIGEST), Trail())

        first, second = await there.all(anywhere)
        assert isinstance(first, NotHere)
        assert all_right([second])


async def test_a_node_that_stops_leads_nothing(autojump_clock: Any) -> None:
    """What was being asked ends with the node, and its lease with it; its askers are told."""
    async with neighbours(2) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.worlds[1].conduct.latency_s = 0.5
        stopped: list[MirrorError] = []
        world = World(number=3, registries=there.registries, routers=there.routers, peers=there)

        async def ask() -> None:
            with pytest.raises(Unreachable) as error:
                await tag(world)
            stopped.append(error.value)

        async with trio.open_nursery() as asking, trio.open_nursery() as nursery:
            await nursery.start(world.through.questions.run)
            asking.start_soon(ask)
            await trio.sleep(0.1)
            assert world.router.led
            nursery.cancel_scope.cancel()
        assert (len(stopped), world.router.led) == (1, {})
        with trio.fail_after(1.1):
            assert all_right(await there.all(tag))


@pytest.mark.parametrize("ask", [tag, document])
async def test_cancelling_whoever_follows(ask: Callable[[World], Awaitable[Found]], autojump_clock: Any) -> None:
    """Cancelled anywhere, a follower leaves no task and no answer open; the leader's question goes on, and so do we."""
    async with neighbours(2) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.worlds[1].conduct.latency_s = 0.05
        tasks = trio.lowlevel.current_statistics().tasks_living

        async def pull() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, there.worlds[1])
                await trio.sleep(0.02)
                await ask(there.worlds[2])

        async def check() -> None:
            await trio.sleep(65)
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            assert not any(answer.is_open for answer in there.answers)
            asked = len(there.registries.questions)
            assert all_right(await there.all(ask))
            kinds = [each.kind for each in there.registries.questions[asked:]]
            assert len(kinds) <= 2, kinds
            await trio.sleep(65)

        assert await cancel_at_every_checkpoint(pull, check) > 5


@pytest.mark.parametrize("ask", [tag, document])
async def test_cancelling_what_nodes_ask_one_another(
    ask: Callable[[World], Awaitable[Found]], autojump_clock: Any
) -> None:
    """Cancelled anywhere, who waits at a leader, and his question, leave nothing; the leader's answer is the same."""
    async with neighbours(2) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.worlds[1].conduct.latency_s = 0.05
        tasks = trio.lowlevel.current_statistics().tasks_living
        manifests, leader = there.worlds[2].through.manifests, Provider(node(1), address(1), leading=True)

        async def wait() -> None:
            await trio.sleep(0.02)
            if ask is tag:
                found: Found = await there.worlds[1].resolver.find(waiting("1"), Trail())
            else:
                found = await manifests.of_peer(waiting(DIGEST), DIGEST, leader, 1.0)
            assert found.content.digest == DIGEST

        async def check() -> None:
            await trio.sleep(65)
            assert trio.lowlevel.current_statistics().tasks_living <= tasks + 1
            assert not any(answer.is_open for answer in there.answers)

        async def operation() -> None:
            background.start_soon(answered)
            await wait()

        async def answered() -> None:
            assert all_right([await ask(there.worlds[1])])

        async with trio.open_nursery() as background:
            assert await cancel_at_every_checkpoint(operation, check) > 1


async def test_who_began_a_question_leaves_it_to_the_others(autojump_clock: Any) -> None:
    """The client that made this node ask leaves; the nodes that wait here are answered, by the same question."""
    async with neighbours(4) as there:
        there.registries.put_document(REGISTRY, REPOSITORY, OLD, mediatype.OCI_MANIFEST, "1")
        there.worlds[1].conduct.latency_s = 0.5
        with trio.move_on_after(0.1):
            await tag(there.worlds[1])
        assert all_right(await there.all(tag, numbers=(2, 3, 4)))
        assert there.registries.count("resolve") == 1


def test_the_key_of_a_question_is_no_keys_of_content() -> None:
    """Nobody who holds a tag, or content, is taken for one who asks what the tag names."""
    assert question_key_of(NAME) not in {key_of(NAME), key_of(DIGEST)}
    assert len(question_key_of(NAME)) == len(NodeId(bytes(20)))
