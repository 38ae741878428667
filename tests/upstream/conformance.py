"""The laws of `upstream.protocol`, as tests that the real client and its twin pass.

A test module makes a class of its own from `UpstreamConformance` and gives it `world`, an async fixture.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest
import trio

from p2pmirror.errors import NotHere, Unreachable, UpstreamRefused
from p2pmirror.oci import Digest, mediatype
from p2pmirror.upstream.protocol import Document, Download, Upstream
from tests.cancellation import cancel_at_every_checkpoint
from tests.registries.holdings import Holdings

REGISTRY = "registry.test"
ABSENT = Digest.of(b"no registry has this")


class World(Protocol):
    """An upstream whose registry `REGISTRY` has the holdings."""

    upstream: Upstream
    holdings: Holdings

    async def be_away(self) -> None:
        """Let the registry be out of reach."""

    async def be_back(self) -> None:
        """Let it be there again."""


async def read(download: Download) -> bytes:
    """Return all that is left of a download."""
    data = b""
    while part := await download.receive():
        data += part
    assert await download.receive() == b"", "the end stays the end"
    return data


async def read_into(download: Download, data: bytearray) -> None:
    """Keep what comes of a download, also when it breaks."""
    while part := await download.receive():
        data += part


def every_question(upstream: Upstream, registry: str, repository: str) -> list[Callable[[], Awaitable[object]]]:
    """Return each method as a question for what is not there."""

    async def blob() -> None:
        async with upstream.blob(registry, repository, ABSENT):
            pass

    return [
        lambda: upstream.resolve(registry, repository, "nothing"),
        lambda: upstream.document(registry, repository, ABSENT),
        lambda: upstream.blob_size(registry, repository, ABSENT),
        blob,
        lambda: upstream.tags(registry, repository),
    ]


class UpstreamConformance:
    """Subclass it beside an async fixture `world`."""

    async def test_a_tag_is_resolved(self, world: World) -> None:
        """A tag names a digest, its media type and its size."""
        held = world.holdings
        assert await world.upstream.resolve(REGISTRY, held.repository, "v1") == held.root
        index = await world.upstream.resolve(REGISTRY, held.repository, "multi")
        assert (index.digest, index.media_type) == (Digest.of(held.index), mediatype.OCI_INDEX)

    async def test_a_document_comes_whole(self, world: World) -> None:
        """A document comes by its digest, byte for byte, with its media type; an index as well as a manifest."""
        held = world.holdings
        for data, media_type, _ in held.documents:
            digest = Digest.of(data)
            found = await world.upstream.document(REGISTRY, held.repository, digest)
            assert found == Document(digest, media_type, data)

    @pytest.mark.parametrize("start", [0, 1, 65_536, 299_999, 300_000])
    async def test_a_blob_comes_from_any_byte_on(self, world: World, start: int) -> None:
        """A blob has its whole length and the bytes from the start that was asked for, to its very end."""
        held = world.holdings
        async with world.upstream.blob(REGISTRY, held.repository, held.layer_digest, start=start) as download:
            assert download.size == len(held.layer)
            assert await read(download) == held.layer[start:]

    async def test_a_start_beyond_the_end_is_refused(self, world: World) -> None:
        """There is no byte behind the last."""
        held = world.holdings
        with pytest.raises(UpstreamRefused) as caught:
            async with world.upstream.blob(REGISTRY, held.repository, held.layer_digest, start=300_001):
                pass
        assert caught.value.status == 416

    async def test_a_blob_says_its_length(self, world: World) -> None:
        """The length is told without the bytes."""
        held = world.holdings
        assert await world.upstream.blob_size(REGISTRY, held.repository, held.layer_digest) == len(held.layer)

    async def test_an_empty_looking_download_may_be_left(self, world: World) -> None:
        """Whoever leaves a download early leaves nothing behind: the next one comes whole."""
        held = world.holdings
        for _ in range(3):
            async with world.upstream.blob(REGISTRY, held.repository, held.layer_digest) as download:
                assert await download.receive()
        async with world.upstream.blob(REGISTRY, held.repository, held.layer_digest) as download:
            assert await read(download) == held.layer

    async def test_tags_are_listed(self, world: World) -> None:
        """All tags of a repository are told."""
        tags = await world.upstream.tags(REGISTRY, world.holdings.repository)
        assert {"v1", "latest", "multi"} <= set(tags)

    async def test_referrers_are_listed(self, world: World) -> None:
        """What refers to a manifest is told with its type; nothing, where nothing does."""
        held = world.holdings
        (found,) = await world.upstream.referrers(REGISTRY, held.repository, held.manifest_digest)
        assert found.digest == Digest.of(held.signature)
        assert found.artifact_type == "application/vnd.example.signature"
        assert await world.upstream.referrers(REGISTRY, held.repository, Digest.of(held.index)) == ()

    async def test_what_is_absent_is_not_here(self, world: World) -> None:
        """A tag, a digest, a repository that the registry does not have is not here; the registry was reached."""
        for repository in (world.holdings.repository, "nobody/nothing"):
            for ask in every_question(world.upstream, REGISTRY, repository)[: 4 if "library" in repository else 5]:
                with pytest.raises(NotHere):
                    await ask()
        assert world.upstream.is_reachable(REGISTRY)

    async def test_an_unknown_registry_is_not_fetched_from(self, world: World) -> None:
        """A name that stands in no table is not here, and nothing is dialled for it."""
        assert world.upstream.is_through(REGISTRY)
        for name in ("127.0.0.1:9", "169.254.169.254", "other.test", "[::1]", "localhost"):
            assert not world.upstream.is_through(name)
            assert world.upstream.is_reachable(name)
            for ask in every_question(world.upstream, name, world.holdings.repository):
                with pytest.raises(NotHere):
                    await ask()

    async def test_a_registry_that_is_away_is_unreachable(self, world: World) -> None:
        """Without an answer a question is Unreachable, and the registry is, until it answers again."""
        held = world.holdings
        assert world.upstream.is_reachable(REGISTRY)
        await world.be_away()
        with pytest.raises(Unreachable):
            await world.upstream.resolve(REGISTRY, held.repository, "v1")
        assert not world.upstream.is_reachable(REGISTRY)
        await world.be_back()
        await trio.sleep(1.1)  # longer than the pause after a failure
        assert await world.upstream.resolve(REGISTRY, held.repository, "v1") == held.root
        assert world.upstream.is_reachable(REGISTRY)

    async def test_cancelled_questions_leave_nothing_behind(self, world: World) -> None:
        """Every question, cancelled at any checkpoint, leaves an upstream that answers the next, and no task."""
        held, upstream = world.holdings, world.upstream
        where = REGISTRY, held.repository
        tasks = trio.lowlevel.current_statistics().tasks_living

        async def download() -> None:
            assert await upstream.blob_size(*where, held.layer_digest) == len(held.layer)
            async with upstream.blob(*where, held.layer_digest) as arriving:
                assert await arriving.receive()

        async def documents() -> None:
            assert await upstream.resolve(*where, "v1") == held.root
            await upstream.document(*where, held.root.digest)

        async def lists() -> None:
            assert "v1" in await upstream.tags(*where)
            await upstream.referrers(*where, held.root.digest)

        async def check() -> None:
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
            assert await upstream.resolve(*where, "v1") == held.root

        for question in (download, documents, lists):
            assert await cancel_at_every_checkpoint(question, check) > 1
