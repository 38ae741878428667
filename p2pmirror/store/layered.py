"""Several stores as one: the first that has the content gives it.

Laws: those of `store.protocol`; a store that cannot be read hides nothing that another one holds.
"""

from collections.abc import Sequence

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.store.inventory import UnionInventory
from p2pmirror.store.protocol import Blob, Inventory, Store


class LayeredStore:
    """Stores, asked in order; see `protocol.Store`."""

    def __init__(self, stores: Sequence[Store]) -> None:
        """Ask `stores` in this order; without any, nothing is held."""
        self._stores = tuple(stores)
        self._inventory = UnionInventory([store.inventory for store in stores])

    @property
    def inventory(self) -> Inventory:
        """What is held in any of them."""
        return self._inventory

    @property
    def waiting_for(self) -> str | None:
        """What any of them is waiting for."""
        return "; ".join(reason for store in self._stores if (reason := store.waiting_for) is not None) or None

    async def open(self, digest: Digest) -> Blob:
        """Open it in the first store that has it.

        Raises `NotHere` when none has it, `Unreachable` when none gave it and one could not be asked.
        """
        failed: Unreachable | None = None
        for store in self._in_order(digest):
            try:
                blob = await store.open(digest)
            except NotHere:
                continue
            except Unreachable as error:
                failed = failed or error
                continue
            return Blob(self._inventory.blob(digest) or blob.info, blob.file, blob.source)
        if failed is not None:
            raise failed
        await trio.lowlevel.checkpoint()
        raise NotHere(f"{digest} is in none of {len(self._stores)} stores")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run all of them until cancelled."""
        async with trio.open_nursery() as nursery:
            for store in self._stores:
                await nursery.start(store.run)
            task_status.started()
            await trio.sleep_forever()

    def _in_order(self, digest: Digest) -> list[Store]:
        """Return the stores that list it first, so that no other is asked in vain; the order is kept otherwise."""
        return sorted(self._stores, key=lambda store: store.inventory.blob(digest) is None)
