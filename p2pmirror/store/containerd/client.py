"""containerd's services as typed calls: the few that the agent needs.

Laws:
- every call is made in one containerd namespace, the one that the client was made for;
- errors are those of `grpc.py`; deadlines are the caller's.

Works with containerd 1.6 to 2.x: the services and fields used here are the same in all of them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from google.protobuf.empty_pb2 import Empty

from p2pmirror.store.containerd.api.containerd_pb2 import (
    ContentInfo,
    CreateImageRequest,
    CreateImageResponse,
    DeleteImageRequest,
    Envelope,
    GetImageRequest,
    GetImageResponse,
    Image,
    InfoRequest,
    InfoResponse,
    ListContentRequest,
    ListContentResponse,
    ListImagesRequest,
    ListImagesResponse,
    ListNamespacesRequest,
    ListNamespacesResponse,
    PluginsRequest,
    PluginsResponse,
    ReadContentRequest,
    ReadContentResponse,
    SubscribeRequest,
    VersionResponse,
)
from p2pmirror.store.containerd.grpc import Channel, Responses

_SERVICES: Final = "/containerd.services"
VERSION: Final = f"{_SERVICES}.version.v1.Version/Version"
NAMESPACES_LIST: Final = f"{_SERVICES}.namespaces.v1.Namespaces/List"
IMAGES_GET: Final = f"{_SERVICES}.images.v1.Images/Get"
IMAGES_LIST: Final = f"{_SERVICES}.images.v1.Images/List"
IMAGES_CREATE: Final = f"{_SERVICES}.images.v1.Images/Create"
IMAGES_DELETE: Final = f"{_SERVICES}.images.v1.Images/Delete"
CONTENT_INFO: Final = f"{_SERVICES}.content.v1.Content/Info"
CONTENT_LIST: Final = f"{_SERVICES}.content.v1.Content/List"
CONTENT_READ: Final = f"{_SERVICES}.content.v1.Content/Read"
PLUGINS: Final = f"{_SERVICES}.introspection.v1.Introspection/Plugins"
SUBSCRIBE: Final = f"{_SERVICES}.events.v1.Events/Subscribe"

CONTENT_PLUGIN: Final = "io.containerd.content.v1"
NAMESPACE_HEADER: Final = "containerd-namespace"
REFERENCE_LABEL: Final = "containerd.io/gc.ref.content"  # with more behind it; the value is a digest
BLOBS_MAX = 1_000_000  # a node with more content than this is not a node; ends a listing that never ends


class ContainerdClient:
    """Calls in one namespace. `channel` carries `NAMESPACE_HEADER`; `namespace` also filters the events."""

    def __init__(self, channel: Channel, namespace: str) -> None:
        self._channel = channel
        self._namespace = namespace

    async def version(self) -> str:
        """Return containerd's version, such as `1.6.20~ds1`."""
        return (await self._channel.unary(VERSION, Empty(), VersionResponse)).version

    async def namespaces(self) -> list[str]:
        """Return the names of all namespaces."""
        found = await self._channel.unary(NAMESPACES_LIST, ListNamespacesRequest(), ListNamespacesResponse)
        return [namespace.name for namespace in found.namespaces]

    async def image(self, name: str) -> Image:
        """Return one image. Raises `RpcError` NOT_FOUND."""
        return (await self._channel.unary(IMAGES_GET, GetImageRequest(name=name), GetImageResponse)).image

    async def images(self) -> list[Image]:
        """Return all images."""
        return list((await self._channel.unary(IMAGES_LIST, ListImagesRequest(), ListImagesResponse)).images)

    async def create_image(self, image: Image) -> Image:
        """Make an image record for content that is there. Raises `RpcError` ALREADY_EXISTS."""
        request = CreateImageRequest(image=image)
        return (await self._channel.unary(IMAGES_CREATE, request, CreateImageResponse)).image

    async def delete_image(self, name: str, *, sync: bool = False) -> None:
        """Remove an image record; `sync`: collect what it held before answering. Raises `RpcError` NOT_FOUND."""
        await self._channel.unary(IMAGES_DELETE, DeleteImageRequest(name=name, sync=sync), Empty)

    async def content_info(self, digest: str) -> ContentInfo:
        """Return digest and size of one blob. Raises `RpcError` NOT_FOUND."""
        return (await self._channel.unary(CONTENT_INFO, InfoRequest(digest=digest), InfoResponse)).info

    async def content(self) -> dict[str, int]:
        """Return the size of every blob by its digest."""
        found: dict[str, int] = {}
        async with self._channel.stream(CONTENT_LIST, ListContentRequest(), ListContentResponse) as batches:
            async for batch in batches:
                found.update((info.digest, info.size) for info in batch.infos)
                if len(found) > BLOBS_MAX:
                    break
        return found

    async def referenced(self) -> set[str]:
        """Return the digests of all content that other content keeps from being collected."""
        found: set[str] = set()
        async with self._channel.stream(CONTENT_LIST, ListContentRequest(), ListContentResponse) as batches:
            async for batch in batches:
                for info in batch.infos:
                    found.update(value for key, value in info.labels.items() if key.startswith(REFERENCE_LABEL))
                if len(found) > BLOBS_MAX:
                    break
        return found

    async def read(self, digest: str, offset: int, count: int) -> bytes:
        """Return `count` bytes of a blob from `offset`, fewer only at its end. Raises `RpcError` NOT_FOUND."""
        request = ReadContentRequest(digest=digest, offset=offset, size=count)
        found = bytearray()
        async with self._channel.stream(CONTENT_READ, request, ReadContentResponse) as portions:
            async for portion in portions:
                found += portion.data
                if len(found) >= count:
                    break
        return bytes(found[:count])

    async def content_root(self) -> str | None:
        """Return the directory that holds the content on the node, or None when no plugin tells it."""
        request = PluginsRequest(filters=[f"type=={CONTENT_PLUGIN}"])
        found = await self._channel.unary(PLUGINS, request, PluginsResponse)
        roots = [root for plugin in found.plugins if (root := plugin.exports.get("root"))]
        return roots[0] if roots else None

    @asynccontextmanager
    async def events(self) -> AsyncIterator[Responses[Envelope]]:
        """Give what happens to images and content of this namespace from now on, without end.

        The subscription is under way but not confirmed when the block begins: gRPC has no word for that.
        """
        filters = [f'namespace=={self._namespace},topic~="^/{kind}/"' for kind in ("images", "content")]
        async with self._channel.stream(SUBSCRIBE, SubscribeRequest(filters=filters), Envelope) as envelopes:
            yield envelopes
