"""The gRPC client against real containerds."""

from pathlib import Path

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.store.containerd.api.containerd_pb2 import Image as ImageRecord
from p2pmirror.store.containerd.api.containerd_pb2 import ImageEvent, Target
from p2pmirror.store.containerd.client import NAMESPACE_HEADER, ContainerdClient
from p2pmirror.store.containerd.grpc import Code, RpcError, open_channel, unix_dial
from tests.store.images import Image, make_image
from tests.store_containerd.daemon import Daemon
from tests.store_containerd.layout import write_layout_tar

pytestmark = pytest.mark.lab


NAME = "registry.example/team/app:1"


async def load(daemon: Daemon, image: Image, tmp_path: Path) -> None:
    tar = write_layout_tar(tmp_path / "image.tar", image)
    await daemon.ctr("images", "import", "--all-platforms", "--no-unpack", tar)


def open_client(daemon: Daemon):
    return open_channel(unix_dial(daemon.socket), [(NAMESPACE_HEADER, daemon.namespace)])


async def test_every_call_is_answered(daemon: Daemon, tmp_path):
    """Version, namespaces, images, content (info, list, read) and plugins all work on a real containerd."""
    image = make_image(NAME, layer_bytes=(3_000_000, 100))
    await load(daemon, image, tmp_path)
    async with open_client(daemon) as channel:
        client = ContainerdClient(channel, daemon.namespace)
        with trio.fail_after(20):
            assert (await client.version()).lstrip("v")[0] in "12"
            assert daemon.namespace in await client.namespaces()
            assert [i.name for i in await client.images()] == [NAME]
            assert (await client.image(NAME)).target.digest == str(image.root.digest)
            held = await client.content()
            blobs = {str(digest): data for digest, (data, _) in image.content.items()}
            assert {digest: held[digest] for digest in blobs} == {digest: len(data) for digest, data in blobs.items()}
            assert (await client.content_info(str(image.root.digest))).size == image.root.size
            for digest, data in blobs.items():
                assert await client.read(digest, 0, len(data)) == data
                assert await client.read(digest, 5, 100) == data[5:105]
            assert await client.content_root() == str(daemon.content)


async def test_a_missing_image_is_an_error_with_its_code(daemon: Daemon):
    """A status in the trailers (and in a trailers-only answer) comes out as RpcError, and the connection goes on."""
    async with open_client(daemon) as channel:
        client = ContainerdClient(channel, daemon.namespace)
        for _ in range(3):
            with trio.fail_after(20), pytest.raises(RpcError, match="not found") as caught:
                await client.image("example.test/none:1")
            assert caught.value.code is Code.NOT_FOUND
            with trio.fail_after(20), pytest.raises(RpcError) as caught:
                await client.read("sha256:" + "0" * 64, 0, 10)
            assert caught.value.code is Code.NOT_FOUND
        await client.version()


async def test_events_tell_of_images(daemon: Daemon, tmp_path):
    """Creation and removal of an image arrive as events with the image's name, while other calls go on."""
    image = make_image(NAME)
    await load(daemon, image, tmp_path)
    async with open_client(daemon) as channel:
        client = ContainerdClient(channel, daemon.namespace)
        with trio.fail_after(20):
            async with client.events() as events:
                await trio.sleep(0.3)
                target = Target(media_type=image.root.media_type, digest=str(image.root.digest), size=1)
                await client.create_image(ImageRecord(name="example.test/other:2", target=target))
                event = await anext(events)
                assert event.topic == "/images/create"
                assert ImageEvent.FromString(event.event.value).name == "example.test/other:2"
                await client.delete_image("example.test/other:2")
                event = await anext(events)
                assert (event.topic, event.namespace) == ("/images/delete", daemon.namespace)


async def test_a_cancelled_read_leaves_the_connection_whole(daemon: Daemon, tmp_path):
    """Reads cancelled at any moment disturb no later call."""
    image = make_image(NAME, layer_bytes=(8_000_000,))
    await load(daemon, image, tmp_path)
    digest, data = str(image.layers[0]), image.content[image.layers[0]][0]
    async with open_client(daemon) as channel:
        client = ContainerdClient(channel, daemon.namespace)
        for delay_ms in range(0, 20, 2):
            with trio.move_on_after(delay_ms / 1000):
                await client.read(digest, 0, len(data))
        with trio.fail_after(20):
            assert await client.read(digest, 0, len(data)) == data


async def test_a_killed_containerd_fails_all_and_a_new_one_is_dialled(daemon: Daemon):
    """A kill ends every waiter with Unreachable; when containerd is back the next call works."""
    async with open_client(daemon) as channel:
        client = ContainerdClient(channel, daemon.namespace)
        with trio.fail_after(30):
            async with client.events() as events:
                daemon.kill()
                with pytest.raises(Unreachable):
                    await anext(events)
            with pytest.raises(Unreachable):
                await client.version()
            await daemon.start()
            assert await client.version()
