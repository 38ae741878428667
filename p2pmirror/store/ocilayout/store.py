"""A directory in OCI image layout, read: what its index leads to, once it has been verified.

Laws: nothing is listed before its bytes were hashed, and nothing that the index does not lead to; what fails is logged
once and not listed; a broken index changes nothing: what it said last is kept as far as the files still stand. Looking
at the directory does not wait for layers to be hashed, so that removal shows at the next look, however much there is.

What is known has one writer each: `_look` says what should be there and what is, `_verify` hashes what is due, and the
inventory is computed from both.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from p2pmirror.errors import MirrorError, NotHere, Unreachable
from p2pmirror.oci import Descriptor, Digest, Invalid, TagName, mediatype
from p2pmirror.oci.manifest import DOCUMENT_BYTES_MAX
from p2pmirror.store.files import Files, Stat
from p2pmirror.store.inventory import HeldInventory
from p2pmirror.store.ocilayout.index import (
    INDEX_NAME,
    MARKER_BYTES_MAX,
    MARKER_NAME,
    Roots,
    blob_path,
    check_marker,
    read_roots,
)
from p2pmirror.store.ocilayout.verified import VerifiedBlobs
from p2pmirror.store.protocol import Blob, BlobInfo, Inventory, TagInfo
from p2pmirror.store.survey import Found, Survey

log = logging.getLogger("p2pmirror.store")


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """How often to look, and how much to hash at a time."""

    index_poll_s: float = 1.0  # one stat of two files: a new tag shows within a second
    blobs_poll_s: float = 5.0  # a stat of each blob, some 4 us: 2,000 blobs cost 0.2 % of a core; content seldom goes
    retry_s: float = (
        30.0  # a blob on a bad sector is not read again and again, nor is a mended mode overlooked for long
    )
    verifiers: int = 2  # blobs hashed at once, each some 1 core: the agent is a guest on its node


class OciLayoutStore:
    """The store over one layout directory; see `protocol.Store`."""

    def __init__(self, directory: Path, files: Files, options: LayoutOptions | None = None) -> None:
        """Read `directory`, which may come later, through `files`."""
        self._directory = directory
        self._files = files
        self._options = options or LayoutOptions()
        self._inventory = HeldInventory()
        self._verified = VerifiedBlobs(directory, files)
        self._trouble: str | None = f"{directory} has not been looked at yet"
        self._marks: list[Stat | None] | None = None  # the index and its marker as they were read; None: read again
        self._roots: Roots | None = None
        self._found: dict[Digest, Found] = {}
        self._paths: list[Path] = []  # of what was found, in its order: making them costs more than the stat
        self._tagged: dict[TagName, Descriptor] = {}
        self._referrers: tuple[tuple[Digest, Descriptor], ...] = ()
        self._seen: dict[Digest, Stat | None] = {}
        self._blobs_due = -float("inf")  # trio's clock: when the blobs are looked at next
        self._is_stale = False  # a manifest became readable after the survey had passed it by
        self._queue: dict[Digest, None] = {}  # to be hashed, in this order
        self._under_way: set[Digest] = set()  # being hashed
        self._queued = trio.Event()
        self._failed: dict[Digest, tuple[Stat | None, float]] = {}  # could not be read: which state, when to try again
        self._odd: frozenset[Digest] = frozenset()
        self._unnamed: frozenset[str] = frozenset()

    @property
    def inventory(self) -> Inventory:
        """What is held."""
        return self._inventory

    @property
    def waiting_for(self) -> str | None:
        """What is wrong with the directory, or that its content is still being hashed for the first time."""
        if self._trouble is None and not self._inventory.walked:
            return f"{len(self._queue) + len(self._under_way)} blobs of {self._directory} are still to be verified"
        return self._trouble

    async def open(self, digest: Digest) -> Blob:
        """Open a blob, listed or not, hashing it first when that has not been done. Raises `NotHere`, `Unreachable`."""
        file = await self._verified.open(digest)
        return Blob(self._inventory.blob(digest) or self._info(digest, file.size), file)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the directory and hash what is new, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._options.verifiers):
                nursery.start_soon(self._verify)
            task_status.started()
            while True:
                await self._look()
                await trio.sleep(self._options.index_poll_s)

    # --- looking ---

    async def _look(self) -> None:
        marks = await self._files.stat([self._directory / MARKER_NAME, self._directory / INDEX_NAME])
        changed = False
        if marks != self._marks:
            self._marks = marks
            changed = await self._read_index()
        if changed or trio.current_time() >= self._blobs_due:
            self._blobs_due = trio.current_time() + self._options.blobs_poll_s
            if changed or self._is_stale or await self._stat_blobs(self._found, self._paths) != self._seen:
                await self._survey()
            else:
                self._fill_queue()

    async def _read_index(self) -> bool:
        """Read the index and return True, or keep what it said last and say what is wrong."""
        try:
            check_marker(await self._files.read_whole(self._directory / MARKER_NAME, MARKER_BYTES_MAX))
            self._roots = read_roots(await self._files.read_whole(self._directory / INDEX_NAME, DOCUMENT_BYTES_MAX))
        except (Invalid, NotHere) as error:
            self._complain(f"{self._directory} is not a whole OCI image layout: {error}")
        except Unreachable as error:
            self._complain(str(error))
            self._marks = None
        else:
            self._trouble = None
            self._warn_of_unnamed(self._roots.unnamed)
            return True
        return False

    async def _survey(self) -> None:
        """Follow the index to all that it leads to, and take over what was found in one step."""
        if self._roots is None:
            return
        survey = Survey((root.descriptor, root.tags) for root in self._roots.entries)
        while reads := survey.next_reads():
            for descriptor in reads:
                survey.answered(descriptor, await self._document(descriptor.digest))
        found = survey.found()
        paths = [blob_path(self._directory, digest) for digest in found]
        seen = await self._stat_blobs(found, paths)
        self._found, self._paths, self._seen = found, paths, seen
        self._tagged, self._referrers, self._is_stale = self._roots.tags(), survey.referrers, False
        self._verified.forget_all_but(found)
        self._failed = {digest: failed for digest, failed in self._failed.items() if digest in found}
        self._warn_of_odd()
        self._fill_queue()
        self._publish()

    async def _document(self, digest: Digest) -> bytes | None:
        try:
            file = await self._verified.open(digest)
        except (NotHere, Unreachable):
            return None
        try:
            return await file.read_at(0, file.size) if file.size <= DOCUMENT_BYTES_MAX else None
        except Unreachable:
            return None
        finally:
            file.close()

    async def _stat_blobs(self, digests: Iterable[Digest], paths: Sequence[Path]) -> dict[Digest, Stat | None]:
        return dict(zip(digests, await self._files.stat(paths), strict=True))

    # --- hashing ---

    async def _verify(self) -> None:
        while True:
            while not self._queue:
                await self._queued.wait()
            await self._verify_one(next(iter(self._queue)))

    async def _verify_one(self, digest: Digest) -> None:
        del self._queue[digest]
        self._under_way.add(digest)
        try:
            (await self._verified.open(digest)).close()
        except MirrorError as error:
            self._warn_of_failed(digest, error)
        else:
            self._failed.pop(digest, None)
        finally:
            self._under_way.discard(digest)
        self._publish_one(digest)

    def _fill_queue(self) -> None:
        """Queue what is there with a size that it is said to have, and was not hashed; also what could not be read."""
        self._queue = {
            digest: None for digest, stat in self._seen.items() if stat is not None and self._is_due(digest, stat)
        }
        if self._queue:
            self._queued.set()
            self._queued = trio.Event()

    def _is_due(self, digest: Digest, stat: Stat) -> bool:
        if not self._has_size(digest, stat) or self._verified.verdict(digest, stat) is not None:
            return False
        failed, retry_at = self._failed.get(digest, (None, 0.0))
        return digest not in self._under_way and (failed != stat or trio.current_time() >= retry_at)

    def _has_size(self, digest: Digest, stat: Stat) -> bool:
        return stat.size in self._found[digest].sizes

    # --- publishing ---

    def _is_held(self, digest: Digest) -> bool:
        stat = self._seen.get(digest)
        return stat is not None and self._has_size(digest, stat) and self._verified.verdict(digest, stat) is True

    def _publish(self) -> None:
        """Make the inventory what is held now; it counts as walked when everything was hashed once."""
        held = [self._listed(digest) for digest in self._found if self._is_held(digest)]
        tags = self._tags()
        if self._inventory.walked or self._is_settled:
            self._inventory.replace(held, tags, self._referrers)
            return
        gone_blobs = {info.digest for info in self._inventory.blobs()} - {info.digest for info in held}
        gone_tags = {info.name for info in self._inventory.tags()} - {info.name for info in tags}
        self._inventory.update(
            blobs=held, tags=tags, gone_blobs=gone_blobs, gone_tags=gone_tags, referrers=self._referrers
        )

    def _publish_one(self, digest: Digest) -> None:
        if self._is_held(digest):
            info = self._listed(digest)
            self._is_stale = self._is_stale or mediatype.describes(info.media_type or "")
            self._inventory.update(blobs=[info])
        if not self._inventory.walked and self._is_settled:
            self._publish()

    @property
    def _is_settled(self) -> bool:
        return not self._queue and not self._under_way

    def _tags(self) -> list[TagInfo]:
        now = trio.current_time()
        return [
            TagInfo(name, root.digest, root.media_type, self._listed(root.digest).size, now)
            for name, root in self._tagged.items()
            if self._is_held(root.digest)
        ]

    def _listed(self, digest: Digest) -> BlobInfo:
        stat = self._seen[digest]
        assert stat is not None
        return self._info(digest, stat.size)

    def _info(self, digest: Digest, size: int) -> BlobInfo:
        found = self._found.get(digest)
        if found is None:
            return BlobInfo(digest, size)
        return BlobInfo(digest, size, found.descriptor.media_type, frozenset(found.names))

    # --- saying what is wrong, once ---

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble

    def _warn_of_unnamed(self, names: tuple[str, ...]) -> None:
        for name in sorted(set(names) - self._unnamed):
            log.warning("%s names an image %.80r, which says no registry, repository or tag", self._directory, name)
        self._unnamed = frozenset(names)

    def _warn_of_failed(self, digest: Digest, error: MirrorError) -> None:
        """Warn of what cannot be read; that its content is wrong, or that it has gone, is said elsewhere."""
        if isinstance(error, Unreachable):
            if digest not in self._failed:
                log.warning("%s is not served: %s", digest, error)
            self._failed[digest] = (self._seen.get(digest), trio.current_time() + self._options.retry_s)

    def _warn_of_odd(self) -> None:
        """Warn of files whose size is not the one that the manifests say: still being copied, or a lie."""
        odd = {digest for digest, stat in self._seen.items() if stat is not None and not self._has_size(digest, stat)}
        for digest in sorted(odd - self._odd):
            log.warning("%s in %s does not have the size that its descriptor says; not served", digest, self._directory)
        self._odd = frozenset(odd)
