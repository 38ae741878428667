"""The store that is a node's own containerd: whatever its kubelet has pulled is held, as soon as it is there.

Laws: those of `store.protocol`; and containerd is only read, never changed.
"""

from dataclasses import dataclass
from pathlib import Path

import trio

from p2pmirror.errors import MirrorError, NotHere, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.store.containerd.client import NAMESPACE_HEADER, ContainerdClient
from p2pmirror.store.containerd.contents import RPC_LIMIT_S, Contents
from p2pmirror.store.containerd.grpc import Channel, Dial, unix_dial
from p2pmirror.store.containerd.walker import Walker
from p2pmirror.store.containerd.watch import Watch
from p2pmirror.store.files import Files
from p2pmirror.store.inventory import HeldInventory
from p2pmirror.store.protocol import Blob, BlobInfo, Inventory

UNLISTED_LIMIT_S = 0.03  # a miss may cost 40 ms at most; containerd answers such a question in 0.2 ms


@dataclass(frozen=True, slots=True)
class Options:
    """Where containerd is. `content_path`: its content directory as this process sees it; None: as containerd says."""

    socket: Path = Path("/run/containerd/containerd.sock")
    namespace: str = "k8s.io"
    content_path: Path | None = None


class ContainerdStore:
    """See `protocol.Store`. `run` must be running; until it has walked once, what containerd holds opens already."""

    def __init__(self, options: Options, files: Files, *, dial: Dial | None = None) -> None:
        """Read content by `files`; `dial` replaces the unix socket."""
        self._inventory = HeldInventory()
        metadata = [(NAMESPACE_HEADER, options.namespace)]
        self._channel = Channel(dial or unix_dial(options.socket), metadata)
        client = ContainerdClient(self._channel, options.namespace)
        self._contents = Contents(client, files)
        walker = Walker(client, self._contents, self._inventory, options.content_path)
        self._watch = Watch(client, walker, str(options.socket))

    @property
    def inventory(self) -> Inventory:
        """What is held."""
        return self._inventory

    @property
    def waiting_for(self) -> str | None:
        """Why containerd is not being followed now; what was found before is served meanwhile if it can be read."""
        return self._watch.waiting_for

    async def open(self, digest: Digest) -> Blob:
        """Open a blob. Raises `NotHere`, `Unreachable`. Cancellation leaves nothing open."""
        info = self._inventory.blob(digest)
        if info is None:
            info = BlobInfo(digest, await self._unlisted_size(digest))
        try:
            return Blob(info, await self._contents.open(digest, info.size))
        except MirrorError:
            self._watch.look_soon()
            raise

    async def keeps(self, digest: Digest) -> bool:
        """Whether containerd has a blob and goes on having it.

        It discards layers that it has unpacked where it is told so (`discard_unpacked_layers`), at some later time.
        Where it does not answer now, what it lists counts as kept.
        """
        if self._inventory.blob(digest) is None:
            return False
        try:
            return await self._contents.keeps(digest)
        except Unreachable:
            return True

    async def _unlisted_size(self, digest: Digest) -> int:
        """Ask containerd for content that came after the last walk; raises `NotHere` also when it does not answer."""
        if self._inventory.walked and self._watch.waiting_for is not None:
            raise NotHere(f"{digest} is not listed, and containerd is away")
        with trio.move_on_after(UNLISTED_LIMIT_S if self._inventory.walked else RPC_LIMIT_S):
            if (size := await self._contents.size(digest)) is not None:
                return size
        raise NotHere(f"containerd does not have {digest}")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow containerd until cancelled, wherever it goes and whenever it comes back."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._channel.run)
            task_status.started()
            await self._watch.run()
