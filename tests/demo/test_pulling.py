"""The demo's client: pulls whole images, goes on after cuts, believes nothing."""

import json

import pytest

from p2pmirror.demo.failed import DemoFailed
from p2pmirror.demo.image import put_image
from p2pmirror.demo.pulling import LAYERS_AT_ONCE, TRIES_MAX
from p2pmirror.demo.scenario import NAME
from p2pmirror.oci import mediatype
from tests.demo.registry import NODE, pulling


async def small(writer):
    return await put_image(writer, NAME, 6 << 20, "small")


def blob(digest):
    return NODE.layout / "blobs" / digest.algorithm / digest.hex


async def fails(puller):
    """Pull, and return the texts of what went wrong."""
    with pytest.raises((DemoFailed, BaseExceptionGroup)) as caught:
        await puller.pull(NAME)
    error = caught.value
    return " ".join(str(each) for each in error.exceptions) if isinstance(error, BaseExceptionGroup) else str(error)


async def test_pulls_everything_that_this_machine_needs(autojump_clock):
    """Index, this platform's manifest, config and layers come, byte for byte; the tag stands for the index."""
    async with pulling(small) as (registry, puller, files):
        pulled = await puller.pull(NAME)
        assert [each.digest for each in pulled] == [each.digest for each in registry.image.pulled]
        for each in pulled:
            data = await files.read_whole(blob(each.digest), 1 << 30)
            assert len(data) == each.size
            assert each.digest.of(data) == each.digest
        index = json.loads(await files.read_whole(NODE.layout / "index.json", 1 << 20))
        assert [each["digest"] for each in index["manifests"]] == [str(registry.image.index.digest)]
        assert puller.progress.received_bytes == registry.image.bytes
        assert puller.progress.client_resumes == 0


async def test_asks_as_containerd_does(autojump_clock):
    """The tag is resolved by HEAD, everything else is asked by digest, and each question names the registry."""
    async with pulling(small) as (registry, puller, _):
        await puller.pull(NAME)
        assert registry.asked[0][:2] == ("HEAD", f"/v2/{NAME.repository}/manifests/{NAME.tag}")
        assert all("sha256:" in path for _, path, _, _ in registry.asked[1:])
        assert {query for _, _, query, _ in registry.asked} == {f"ns={NAME.registry}"}


async def test_fetches_three_layers_at_once(autojump_clock):
    """As many layers are under way as containerd would have, and never more."""
    async with pulling(small) as (registry, puller, _):
        await puller.pull(NAME)
        assert registry.most == LAYERS_AT_ONCE


async def test_goes_on_where_an_answer_was_cut(autojump_clock):
    """Each cut is answered by a Range from the very next byte, however often there is progress; nothing comes twice."""
    async with pulling(small) as (registry, puller, _):
        cuts = [1000 * number for number in range(1, 9)]
        registry.cuts = list(cuts)
        await puller.pull(NAME)
        assert puller.progress.client_resumes == len(cuts)
        assert puller.progress.received_bytes == registry.image.bytes
        ranges = [asked for *_, asked in registry.asked if asked]
        assert len(ranges) == len(cuts)
        assert not {"bytes=0-"} & set(ranges)


async def test_gives_up_after_three_fruitless_tries(autojump_clock):
    """A source that gives nothing three times in a row is a failure that names the content."""
    async with pulling(small) as (registry, puller, _):
        registry.cuts = [0] * 100
        said = await fails(puller)
        assert "does not give sha256:" in said
        layers = [path for _, path, _, _ in registry.asked if "/blobs/" in path]
        assert max(layers.count(path) for path in layers) == TRIES_MAX


async def test_wrong_bytes_are_not_kept(autojump_clock):
    """A layer with one wrong bit fails the pull; neither it nor the tag is in the store."""
    async with pulling(small) as (registry, puller, files):
        registry.spoil = lambda data: bytes([data[0] ^ 1]) + data[1:]
        assert "wrong bytes" in await fails(puller)
        layers = [each for each in registry.image.pulled if each.media_type == mediatype.OCI_LAYER]
        assert await files.stat([blob(each.digest) for each in layers]) == [None] * len(layers)
        assert json.loads(await files.read_whole(NODE.layout / "index.json", 1 << 20))["manifests"] == []
