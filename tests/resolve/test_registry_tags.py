"""Tags and manifests of registries that are asked through this node: who is believed, and how often he is asked."""

from typing import Any

import pytest
import trio

from p2pmirror.errors import NotHere, Unreachable, UpstreamRefused
from p2pmirror.oci import Digest, mediatype
from p2pmirror.resolve.want import InHand
from p2pmirror.routing.protocol import TagClaim
from tests.resolve.registry import NAME, REGISTRY, REPOSITORY, World, manifest_bytes

OLD, NEW = manifest_bytes("old"), manifest_bytes("new")


async def test_a_tag_is_asked_of_its_registry_each_time(autojump_clock: Any) -> None:
    """An image that was pushed again under its tag is seen by the next pull, whatever is held or remembered."""
    async with World() as world:
        for data in (OLD, NEW, NEW):
            world.push(data, "1")
            found = await world.find_tag("1")
            assert isinstance(found, InHand)
            assert found.data == data
        assert world.registries.count("resolve") == 3
        assert world.registries.count("document") == 2


async def test_all_who_ask_at_once_share_one_question(autojump_clock: Any) -> None:
    """A hundred pulls of one tag at the same moment ask the registry twice: for the tag, and for its manifest."""
    async with World() as world:
        world.push(OLD, "1")
        world.conduct.latency_s = 0.5
        results: list[bytes] = []

        async def pull() -> None:
            found = await world.find_tag("1")
            assert isinstance(found, InHand)
            results.append(found.data)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(pull)
        assert results == [OLD] * 100
        assert [each.kind for each in world.registries.questions] == ["resolve", "document"]


async def test_an_asker_that_leaves_takes_nothing_from_the_others(autojump_clock: Any) -> None:
    """The first of two askers is cancelled; the second gets the answer to the same question."""
    async with World() as world:
        world.push(OLD, "1")
        world.conduct.latency_s = 0.5
        async with trio.open_nursery() as nursery:

            async def leave_early() -> None:
                with trio.move_on_after(0.1):
                    await world.find_tag("1")

            nursery.start_soon(leave_early)
            await trio.sleep(0.05)
            assert isinstance(await world.find_tag("1"), InHand)
        assert world.registries.count("resolve") == 1


@pytest.mark.parametrize("trouble", ["down", "silent", "429", "503"])
async def test_a_registry_that_does_not_answer(autojump_clock: Any, trouble: str) -> None:
    """What it confirmed last is answered, marked as stale; what it never confirmed is an error, within 2 s."""
    async with World() as world:
        world.push(OLD, "1")
        await world.find_tag("1")
        world.misbehave(trouble)
        with trio.fail_after(2.2):
            found = await world.find_tag("1")
        assert isinstance(found, InHand)
        assert (found.data, world.trail.is_stale, world.count("stale_tags")) == (OLD, True, 1)
        with pytest.raises((Unreachable, UpstreamRefused)), trio.fail_after(2.2):
            await world.find_tag("2")


async def test_what_was_confirmed_too_long_ago_is_not_believed(autojump_clock: Any) -> None:
    """After `tag_stale_max` a silent registry's tag is an error."""
    async with World(stale_max_s=3600) as world:
        world.push(OLD, "1")
        await world.find_tag("1")
        world.store.put_blob(OLD, mediatype.OCI_MANIFEST)
        world.misbehave("down")
        await trio.sleep(3500)
        await world.find_tag("1")
        await trio.sleep(200)
        with pytest.raises(Unreachable):
            await world.find_tag("1")


@pytest.mark.parametrize("kept", [False, True])
async def test_a_tag_that_is_gone(autojump_clock: Any, kept: bool) -> None:
    """A registry's 404 is believed, and the tag forgotten; with `keep_on_upstream_404` it lives on."""
    async with World(keep_on_upstream_404=kept) as world:
        world.push(OLD, "1")
        await world.find_tag("1")
        world.registries.remove_tag(REGISTRY, REPOSITORY, "1")
        if kept:
            assert isinstance(await world.find_tag("1"), InHand)
            assert world.trail.is_stale
            return
        with pytest.raises(NotHere):
            await world.find_tag("1")
        world.misbehave("down")
        await trio.sleep(1)
        with pytest.raises(Unreachable):
            await world.find_tag("1")


async def test_an_absent_tag_is_not_asked_for_again_at_once(autojump_clock: Any) -> None:
    """A 404 counts for half a second; then the registry is asked again, since the image may have been pushed."""
    async with World() as world:
        for _ in range(5):
            with pytest.raises(NotHere):
                await world.find_tag("1")
        assert world.registries.count("resolve") == 1
        world.push(OLD, "1")
        await trio.sleep(0.6)
        assert isinstance(await world.find_tag("1"), InHand)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_repository_that_is_denied(autojump_clock: Any, status: int) -> None:
    """Clients are sent there at once, with secrets of their own; nobody stands in, and later it is asked again."""
    async with World() as world:
        world.say_peer("1", TagClaim(Digest.of(OLD), mediatype.OCI_MANIFEST, len(OLD), 5.0, confirmed=True))
        world.conduct.status = status
        for _ in range(3):
            with pytest.raises(UpstreamRefused) as refused:
                await world.find_tag("1")
            assert refused.value.status == status
        assert world.registries.count("resolve") == 1
        world.conduct.status = None
        world.push(NEW, "1")
        await trio.sleep(31)
        assert isinstance(await world.find_tag("1"), InHand)


async def test_a_tag_counts_for_its_ttl(autojump_clock: Any) -> None:
    """With `tag_ttl` the registry's word counts so long without another question; another registry has its own."""
    async with World(ttl_s=60, ttls_s={"other.example": 0.0}) as world:
        world.push(OLD, "1")
        for seconds in (0, 30, 29):
            await trio.sleep(seconds)
            await world.find_tag("1")
        assert world.registries.count("resolve") == 1
        await trio.sleep(2)
        await world.find_tag("1")
        assert world.registries.count("resolve") == 2


async def test_a_local_name_never_stands_in_for_a_registry_that_answers(autojump_clock: Any) -> None:
    """`ctr tag` names something here; the registry says otherwise. Only when it is silent does the local name count."""
    async with World() as world:
        world.push(NEW, "1")
        local = Digest.of(OLD)
        world.store.put({local: (OLD, mediatype.OCI_MANIFEST)}, {NAME: local})
        found = await world.find_tag("1")
        assert found.content.digest == Digest.of(NEW)
        world.misbehave("down")
        assert (await world.find_tag("1")).content.digest == Digest.of(NEW), "what was confirmed comes first"


async def test_a_peer_is_told_what_is_held_and_the_registry_is_left_alone(autojump_clock: Any) -> None:
    """A request from a peer never goes on to the registry."""
    async with World() as world:
        world.push(OLD, "1")
        with pytest.raises(NotHere):
            await world.find_tag("1", from_peer=world.router.node_id)
        assert world.registries.questions == []


async def test_lists_come_from_the_registry_else_from_here(autojump_clock: Any) -> None:
    """`tags/list` says what the registry says; when it does not answer, what is held here; a peer gets only that."""
    async with World() as world:
        world.push(OLD, "1")
        world.push(NEW, "2")
        assert (await world.tags(), world.trail.source) == (["1", "2"], "upstream")
        world.store.put({Digest.of(OLD): (OLD, mediatype.OCI_MANIFEST)}, {NAME: Digest.of(OLD)})
        assert (await world.tags(from_peer=world.router.node_id), world.trail.source) == (["1"], "store")
        world.misbehave("down")
        assert (await world.tags(), world.trail.source) == (["1"], "store")
