"""Pulling an image through a running agent into a cache, as containerd would pull it.

Laws: nothing is kept before its digest was checked; what is in the cache is not fetched again; the manifests and the
tag come last, so that an image which has its tag is whole.
"""

import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx
import trio

from p2pmirror.errors import BadRequest, NotHere, Unreachable
from p2pmirror.oci import (
    DOCUMENT_BYTES_MAX,
    Descriptor,
    Digest,
    Index,
    Invalid,
    Reference,
    blob_path,
    children,
    manifest_path,
    mediatype,
    parse_manifest,
)
from p2pmirror.operations.archive import Progress
from p2pmirror.store.cache import CacheStore
from p2pmirror.store.protocol import TagInfo

ANSWER_S: Final = 30.0  # as long as containerd waits for the next bytes of a response
ALL: Final = "all"

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_ACCEPT: Final = ", ".join(sorted(mediatype.INDEXES | mediatype.MANIFESTS))


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was pulled: the root, and how much of it came over the network."""

    root: Descriptor
    new_bytes: int


def this_platform() -> str:
    """Return what images for this machine are called, as `linux/amd64`."""
    machine = platform.machine()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


class Pulling:
    """Pulls images through the agent whose registry port is at `agent` (a URL)."""

    def __init__(self, store: CacheStore, client: httpx.AsyncClient, agent: str, wanted: str) -> None:
        """Pull the platform `wanted` of each image, or `ALL` of them, into a cache that was looked at."""
        self._store = store
        self._client = client
        self._agent = agent.rstrip("/")
        self._wanted = wanted

    async def pull(self, reference: Reference, progress: Progress) -> Pulled:
        """Pull one image; `progress` is told of what comes. Raises `MirrorError`; whole blobs that came stay."""
        name, new_bytes = reference.name, 0
        root, data = await self._manifest(reference, reference.digest or reference.tag or "")
        documents, blobs = [(root, data)], dict[Digest, Descriptor]()
        for descriptor, document in documents:  # grows as it goes
            for child in self._parts(descriptor, document):
                if mediatype.describes(child.media_type):
                    if all(child.digest != known.digest for known, _ in documents):
                        documents.append(await self._manifest(reference, child.digest))
                else:
                    blobs[child.digest] = child
        for blob in blobs.values():
            new_bytes += await self._blob(reference, blob, progress)
        for descriptor, document in reversed(documents):
            await self._store.keep_document(descriptor.digest, descriptor.media_type, document, name)
        if reference.tag_name is not None and reference.digest is None:
            await self._store.remember_tag(
                TagInfo(reference.tag_name, root.digest, root.media_type, root.size, since=trio.current_time())
            )
        return Pulled(root, new_bytes)

    def _parts(self, descriptor: Descriptor, data: bytes) -> list[Descriptor]:
        try:
            document = parse_manifest(data, descriptor.media_type)
        except Invalid as error:
            raise NotHere(f"{descriptor.digest} is no proper manifest: {error}") from error
        parts = [child for child in children(document) if not mediatype.is_foreign(child.media_type)]
        if isinstance(document, Index) and self._wanted != ALL:
            parts = [child for child in parts if self._is_wanted(child)]
            if not parts:
                raise NotHere(f"{descriptor.digest} has nothing for {self._wanted}")
        return parts

    def _is_wanted(self, manifest: Descriptor) -> bool:
        """Whether a manifest of an index is for the platform, or says of none what it is for."""
        platform = manifest.platform
        return platform is None or f"{platform}/".startswith(f"{self._wanted}/")

    async def _manifest(self, reference: Reference, which: Digest | str) -> tuple[Descriptor, bytes]:
        """Fetch a manifest by tag or by digest; check it by its digest, or by the one that the answer says."""
        path = manifest_path(reference.repository, which)
        async with self._answer(path, reference.registry) as response:
            data = bytearray()
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > DOCUMENT_BYTES_MAX:
                    raise NotHere(f"{reference}: a manifest of more than {DOCUMENT_BYTES_MAX} bytes")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if isinstance(which, Digest):
            digest = which
        else:
            said = response.headers.get("Docker-Content-Digest")
            digest = _digest(said) if said is not None else Digest.of(bytes(data))
        hasher = digest.hasher()
        hasher.update(data)
        if not digest.matches(hasher) or not mediatype.describes(media_type):
            raise NotHere(f"{reference}: what came as a manifest is none, or not {digest}")
        return Descriptor(media_type, digest, len(data)), bytes(data)

    async def _blob(self, reference: Reference, blob: Descriptor, progress: Progress) -> int:
        """Fetch a blob that is not here; return how many bytes came."""
        if self._store.inventory.blob(blob.digest) is not None:
            return 0
        async with await self._store.receive(blob.digest, blob.size, blob.media_type, reference.name) as incoming:
            async with self._answer(blob_path(reference.repository, blob.digest), reference.registry) as response:
                async for chunk in response.aiter_raw():
                    if incoming.written + len(chunk) > blob.size:
                        raise NotHere(f"{blob.digest} came with more than its {blob.size} bytes")
                    await incoming.write(chunk)
                    progress(len(chunk))
            if not await incoming.is_right():
                raise Unreachable(f"{blob.digest} did not come whole, or not right")
            await incoming.keep()
        return blob.size

    @asynccontextmanager
    async def _answer(self, path: str, registry: str) -> AsyncIterator[httpx.Response]:
        """Ask the agent; raises when the answer is not what was asked for."""
        try:
            request = self._client.build_request(
                "GET", self._agent + path, params={"ns": registry}, headers={"Accept": _ACCEPT}
            )
        except httpx.InvalidURL as error:
            raise BadRequest(f"--agent {self._agent}: {error}") from error
        try:
            response = await self._client.send(request, stream=True)
        except httpx.UnsupportedProtocol as error:
            raise BadRequest(f"--agent {self._agent}: {error}") from error
        except httpx.HTTPError as error:
            raise Unreachable(f"no agent answers at {self._agent}: {error}") from error
        try:
            if response.status_code != 200:
                raise NotHere(f"the agent answers {path} of {registry} with {response.status_code}")
            yield response
        except httpx.HTTPError as error:
            raise Unreachable(f"the agent's answer to {path} broke off: {error}") from error
        finally:
            await response.aclose()


def new_client() -> httpx.AsyncClient:
    """Return a client that no proxy of the environment stands before."""
    return httpx.AsyncClient(timeout=ANSWER_S, trust_env=False)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except Invalid as error:
        raise NotHere(f"a manifest came with a digest that is none: {error}") from error
