"""Carries out walks: asks containerd, reads the manifests that are not known yet, and writes the inventory.

Laws:
- the inventory has one writer, the task that owns the `Walker`;
- a full walk makes three kinds of calls however much is held: images, content, and one per manifest not yet known;
- what has not changed since the last walk is not looked at again, except that all files are every `FILES_CHECK_S`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.oci import Descriptor, Digest, Invalid
from p2pmirror.store.containerd.api.containerd_pb2 import Image
from p2pmirror.store.containerd.client import ContainerdClient
from p2pmirror.store.containerd.contents import RPC_LIMIT_S, Contents
from p2pmirror.store.containerd.grpc import Code, RpcError
from p2pmirror.store.containerd.walk import Root, listing_of, read_image, read_name, survey_of
from p2pmirror.store.inventory import HeldInventory
from p2pmirror.store.protocol import BlobInfo
from p2pmirror.store.survey import Survey

FILES_CHECK_S = 60.0  # how long a file that vanished behind containerd's back may stay listed
CHECKS_MAX = 500  # blobs of one new image that are asked for one by one; for more of them a full walk is cheaper

WARNED_MAX = 10_000  # names remembered as warned of; a node has hundreds of images

_log = logging.getLogger(__name__)


class Walker:
    """Keeps an inventory like containerd's content. Use it from one task."""

    def __init__(
        self, client: ContainerdClient, contents: Contents, inventory: HeldInventory, configured: Path | None
    ) -> None:
        self._client = client
        self._contents = contents
        self._inventory = inventory
        self._configured = configured  # the content directory as the settings say, None to ask containerd
        self._images: dict[str, Image] = {}  # what the last full walk saw, to see whether anything changed
        self._sizes: dict[str, int] = {}
        self._held: dict[Digest, int] = {}  # confirmed content
        self._documents: dict[Digest, bytes] = {}  # manifests in hand
        self._warned: set[str] = set()
        self._files_check_at = 0.0
        self._touched = False  # whether anything was changed since by a single event

    async def begin(self) -> None:
        """Find the content directory, and forget what was confirmed: containerd is another one, or was away."""
        root = self._configured
        if root is None and (told := await self._client.content_root()) is not None:
            root = Path(told)
        await self._contents.use_directory(root)
        self.distrust()

    def distrust(self) -> None:
        """Look at everything again in the next full walk."""
        self._files_check_at = 0.0

    async def walk(self) -> None:
        """Bring the whole inventory up to date. Raises `RpcError`, `Unreachable`; then nothing is changed."""
        with limit():
            images = {image.name: image for image in await self._client.images()}
            sizes = await self._client.content()
        now = trio.current_time()
        if (images, sizes) == (self._images, self._sizes) and now < self._files_check_at and not self._touched:
            return
        held = await self._confirm(sizes, everything=now >= self._files_check_at)
        roots = self._read_images(images)
        survey = survey_of(roots)
        documents: dict[Digest, bytes] = {}
        while reads := survey.next_reads():
            await self._answer(survey, reads, held, documents)
        self._pass_over_broken(survey, documents)
        listing = listing_of(survey, roots, held, documents, trio.current_time())
        self._inventory.replace(listing.blobs, listing.tags, listing.referrers)
        self._images, self._sizes, self._held, self._documents = images, sizes, held, documents
        self._touched = False
        if now >= self._files_check_at:
            self._files_check_at = now + FILES_CHECK_S

    async def image_came(self, name: str) -> bool:
        """List one image at once; whether that was possible (otherwise a full walk must do it)."""
        self._touched = True
        try:
            with limit():
                image = await self._client.image(name)
        except RpcError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            self.image_went(name)
            return True
        roots = self._read_images({name: image})
        survey = survey_of(roots)
        held: dict[Digest, int] = {}
        documents: dict[Digest, bytes] = {}
        if not await self._follow(survey, held, documents):
            return False
        listing = listing_of(survey, roots, held, documents, trio.current_time())
        self._held.update(held)
        self._documents.update(documents)
        tags = {info.name for info in listing.tags}
        self._inventory.update(
            blobs=[self._joined(info) for info in listing.blobs],
            tags=listing.tags,
            gone_tags=[tag for root in roots if (tag := root.tag) is not None and tag not in tags],
            referrers=listing.referrers,
        )
        return True

    def image_went(self, name: str) -> None:
        """Withdraw a tag at once; its content goes when containerd lists it no more."""
        self._touched = True
        reference = read_name(name)
        if reference is not None and reference.digest is None and (tag := reference.tag_name) is not None:
            self._inventory.update(gone_tags=[tag])

    async def content_came(self, digest: str) -> None:
        """List one blob at once, if it is really there."""
        self._touched = True
        if (parsed := _digest(digest)) is None:
            return
        size = await self._contents.size(parsed)
        confirmed = await self._contents.confirmed({parsed: size}) if size is not None else {}
        self._held.update(confirmed)
        self._inventory.update(blobs=[self._joined(BlobInfo(each, size)) for each, size in confirmed.items()])

    def content_went(self, digest: str) -> None:
        """Withdraw one blob at once."""
        self._touched = True
        if (parsed := _digest(digest)) is None:
            return
        self._held.pop(parsed, None)
        self._inventory.update(gone_blobs=[parsed])

    async def _confirm(self, sizes: dict[str, int], *, everything: bool) -> dict[Digest, int]:
        """Return what is really there of what containerd lists; looks at new files only, unless `everything`."""
        listed = {digest: size for text, size in sizes.items() if (digest := _digest(text)) is not None}
        known = {} if everything else {d: size for d, size in listed.items() if self._held.get(d) == size}
        confirmed = await self._contents.confirmed({d: size for d, size in listed.items() if d not in known})
        if listed and not known and not confirmed and self._contents.directory is not None:
            self._contents.give_up_directory()
            return listed if await self._contents.can_be_read(listed) else {}
        return {digest: size for digest, size in listed.items() if digest in known or digest in confirmed}

    async def _follow(self, survey: Survey, held: dict[Digest, int], documents: dict[Digest, bytes]) -> bool:
        """Follow one image as far as its content is there; False when that is too much to ask for one by one."""
        asked: set[Digest] = set()
        while True:
            reads = survey.next_reads()
            missing = [digest for digest in survey.found() if digest not in asked]
            if len(asked) + len(missing) > CHECKS_MAX:
                return False
            sizes = {digest: size for digest in missing if (size := await self._contents.size(digest)) is not None}
            asked.update(missing)
            held.update(await self._contents.confirmed(sizes))
            if not reads:
                self._pass_over_broken(survey, documents)
                return True
            await self._answer(survey, reads, held, documents)

    async def _answer(
        self, survey: Survey, reads: list[Descriptor], held: dict[Digest, int], documents: dict[Digest, bytes]
    ) -> None:
        """Answer what a survey asks for, from `held` content; keep what was had in `documents`."""
        for descriptor in reads:
            data = None
            if (size := held.get(descriptor.digest)) is not None:
                data = self._documents.get(descriptor.digest)
                if data is None:
                    data = await self._contents.document(descriptor.digest, size)
            survey.answered(descriptor, data)
            if data is not None:
                documents[descriptor.digest] = data
            elif size is not None:
                self._warn_once(str(descriptor.digest), f"the manifest {descriptor.digest} is passed over: unreadable")
            await trio.lowlevel.checkpoint()  # parsing many manifests in one go would hold up the loop

    def _pass_over_broken(self, survey: Survey, documents: dict[Digest, bytes]) -> None:
        for digest, cause in survey.invalid.items():
            documents.pop(digest, None)
            self._warn_once(str(digest), f"the manifest {digest} is passed over: {cause}")

    def _read_images(self, images: dict[str, Image]) -> list[Root]:
        roots = []
        for name, image in images.items():
            try:
                root = read_image(image)
            except Invalid as error:
                self._warn_once(name, f"the image {name[:200]!r} is passed over: {error}")
                continue
            if root.is_odd:
                self._warn_once(name, f"the image name {name[:200]!r} means nothing to other nodes: no tag is offered")
            roots.append(root)
        return roots

    def _joined(self, info: BlobInfo) -> BlobInfo:
        """Add to an entry what is listed already."""
        old = self._inventory.blob(info.digest)
        if old is None:
            return info
        return BlobInfo(info.digest, info.size, old.media_type or info.media_type, old.names | info.names)

    def _warn_once(self, what: str, message: str) -> None:
        if what not in self._warned:
            if len(self._warned) >= WARNED_MAX:
                self._warned.clear()
            self._warned.add(what)
            _log.warning(message)


@contextmanager
def limit() -> Iterator[None]:
    """Give containerd `RPC_LIMIT_S` to answer; `Unreachable` when it does not."""
    try:
        with trio.fail_after(RPC_LIMIT_S):
            yield
    except trio.TooSlowError:
        raise Unreachable(f"containerd has not answered within {RPC_LIMIT_S:g} s") from None


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except Invalid:
        return None
