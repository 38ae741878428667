"""What a router says of this node is what the store holds and the filters let through, whatever happened before."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from p2pmirror.oci import TagName
from p2pmirror.oci.filters import Filters
from p2pmirror.routing.advertise import advertise
from p2pmirror.routing.memory import MemoryRouter, MemoryRouters
from p2pmirror.routing.protocol import Key, Offer, key_of
from p2pmirror.store.inventory import HeldInventory
from p2pmirror.store.protocol import BlobInfo, TagInfo
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from tests.routing.conformance import digest

NGINX = TagName("docker.io", "library/nginx", "1.27")


def blob(number: int, *names: str) -> BlobInfo:
    return BlobInfo(digest(number), 100, names=frozenset(names))


def tag(name: TagName, number: int) -> TagInfo:
    return TagInfo(name, digest(number), "application/vnd.oci.image.index.v1+json", 100, since=5.0, confirmed=True)


class Recorder(MemoryRouter):
    """Counts what it is told."""

    calls: list[str]

    def advertise(self, offers: Any) -> None:
        self.calls.append(f"+{len(offers)}")
        super().advertise(offers)

    def withdraw(self, keys: Any) -> None:
        keys = list(keys)
        self.calls.append(f"-{len(keys)}")
        super().withdraw(keys)


@asynccontextmanager
async def advertising(inventory: HeldInventory, *patterns: str, **options: Any) -> AsyncIterator[Recorder]:
    router = Recorder(MemoryRouters(), NodeId(bytes(20)), Address("10.0.0.1", 29999), "")
    router.calls = []
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **status: advertise(inventory, router, Filters(patterns), **options, **status))
        yield router
        nursery.cancel_scope.cancel()


def said(router: MemoryRouter) -> set[Key]:
    return set(router.offers)


async def test_what_is_held_is_said_at_the_start(autojump_clock: Any) -> None:
    """Content that was there before is said in one call, before the task says that it has started."""
    inventory = HeldInventory()
    inventory.replace([blob(1), blob(2)], [tag(NGINX, 1)])
    async with advertising(inventory) as router:
        assert said(router) == {key_of(digest(1)), key_of(digest(2)), key_of(NGINX)}
        assert router.calls == ["+3"]
        offer = router.offers[key_of(NGINX)]
        assert offer.since == 5.0
        assert offer.tag is not None
        assert (offer.tag.digest, offer.tag.size, offer.tag.age_s, offer.tag.confirmed) == (digest(1), 100, 0.0, True)
        assert router.offers[key_of(digest(1))] == Offer()


async def test_changes_are_said_and_only_they(autojump_clock: Any) -> None:
    """What comes is said, what goes is withdrawn, what stays is not said again."""
    inventory = HeldInventory()
    async with advertising(inventory) as router:
        inventory.update(blobs=[blob(1), blob(2)])
        await trio.sleep(1)
        inventory.update(blobs=[blob(3)], gone_blobs=[digest(1)])
        await trio.sleep(1)
        assert said(router) == {key_of(digest(2)), key_of(digest(3))}
        assert router.calls == ["+2", "-1", "+1"]


async def test_many_changes_are_gathered(autojump_clock: Any) -> None:
    """A walk that changes the inventory a thousand times is said in two rounds, the first at once."""
    inventory = HeldInventory()
    async with advertising(inventory) as router:
        for number in range(1000):
            inventory.update(blobs=[blob(number)])
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.1)
        assert len(said(router)) == 1000
        assert len(router.calls) == 2


async def test_a_tag_waits_for_its_manifest_and_goes_with_it(autojump_clock: Any) -> None:
    """A tag is said only while the manifest that it names is in hand."""
    inventory = HeldInventory()
    inventory.update(tags=[tag(NGINX, 1)])
    async with advertising(inventory) as router:
        assert said(router) == set()
        inventory.update(blobs=[blob(1)])
        await trio.sleep(1)
        assert said(router) == {key_of(digest(1)), key_of(NGINX)}
        inventory.update(gone_blobs=[digest(1)])
        await trio.sleep(1)
        assert said(router) == set()


async def test_a_moved_tag_is_said_anew(autojump_clock: Any) -> None:
    """A tag that names something else is said again with its new claim, without being withdrawn."""
    inventory = HeldInventory()
    inventory.update(blobs=[blob(1), blob(2)], tags=[tag(NGINX, 1)])
    async with advertising(inventory) as router:
        inventory.update(tags=[tag(NGINX, 2)])
        await trio.sleep(1)
        claim = router.offers[key_of(NGINX)].tag
        assert claim is not None
        assert claim.digest == digest(2)
        assert router.calls == ["+3", "+1"]


async def test_tags_are_not_said_without_resolve_tags(autojump_clock: Any) -> None:
    """`resolve_tags = false` says blobs only."""
    inventory = HeldInventory()
    inventory.update(blobs=[blob(1)], tags=[tag(NGINX, 1)])
    async with advertising(inventory, resolve_tags=False) as router:
        assert said(router) == {key_of(digest(1))}


@pytest.mark.parametrize(
    ("patterns", "numbers", "tagged"),
    [
        ((), {1, 2, 3, 4}, True),
        (("!docker.io/secret/.*",), {1, 3}, True),
        (("ghcr.io/.*",), {3}, False),
        ((r"docker\.io/library/nginx(:.*)?",), {1, 3}, True),
    ],
)
async def test_filters_bind(autojump_clock: Any, patterns: Any, numbers: set[int], tagged: bool) -> None:
    """A blob passes when any of its names does; one without a name only when there is no filter."""
    inventory = HeldInventory()
    nginx, secret, shared = "docker.io/library/nginx", "docker.io/secret/a", "ghcr.io/x/y"
    blobs = [blob(1, nginx), blob(2, secret), blob(3, nginx, secret, shared), blob(4)]
    inventory.replace(blobs, [tag(NGINX, 1)])
    async with advertising(inventory, *patterns) as router:
        expected = {key_of(digest(number)) for number in numbers} | ({key_of(NGINX)} if tagged else set())
        assert said(router) == expected


async def test_a_bug_leaves_nothing_said(autojump_clock: Any) -> None:
    """An advertiser that ends by a bug takes back what it said, which its successor could not know of."""
    inventory = HeldInventory()
    inventory.update(blobs=[blob(1)])
    router: Recorder | None = None

    def broken(offers: Any) -> None:
        raise RuntimeError("a bug")

    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        async with advertising(inventory) as router:
            assert said(router) == {key_of(digest(1))}
            router.advertise = broken  # type: ignore[method-assign]
            inventory.update(blobs=[blob(2)])
            await trio.sleep(1)
    assert router is not None
    assert said(router) == set()
