"""Keeps what a router says of this node equal to what the store holds and the filters let through.

Laws:
- level-triggered: each round compares the whole inventory with what was said, so that no event can be missed;
- a tag is said only while its manifest is in hand, so that whoever asks for it by digest next gets it;
- a filter that is set binds: a blob of which no name is known is then not said.

DESIGN.md section 4, "Settings" (`filters`, `resolve_tags`) and "Membership and DHT".
"""

from collections.abc import Callable

import trio

from p2pmirror.oci import Digest, TagName
from p2pmirror.oci.filters import Filters
from p2pmirror.routing.protocol import Key, Offer, Router, TagClaim, key_of
from p2pmirror.store.protocol import BlobInfo, Inventory, TagInfo

ROUND_S_MIN = 0.02  # a first walk changes the inventory thousands of times: 50 comparisons a second are enough


async def advertise(
    inventory: Inventory,
    router: Router,
    filters: Filters,
    *,
    resolve_tags: bool = True,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Follow the inventory until cancelled; `started()` once what is held now has been said.

    The first change is said at once, those that follow are gathered for `ROUND_S_MIN`. Being cancelled withdraws
    nothing: `Router.leave` does. A bug withdraws what was said, which nobody would take back otherwise, and is raised.
    """
    advertiser = Advertiser(router, filters, resolve_tags=resolve_tags)
    try:
        version = inventory.version
        advertiser.update(inventory)
        task_status.started()
        while True:
            await inventory.changed(version)
            version = inventory.version
            advertiser.update(inventory)
            await trio.sleep(ROUND_S_MIN)
    except Exception:
        advertiser.take_back()
        raise


class Advertiser:
    """Remembers what was said, and says what differs."""

    def __init__(self, router: Router, filters: Filters, *, resolve_tags: bool) -> None:
        """Begin with nothing said."""
        self._router = router
        self._filters = filters
        self._resolve_tags = resolve_tags
        self._said: dict[Digest | TagName, tuple[Key, Offer]] = {}

    def update(self, inventory: Inventory) -> None:
        """Compare the inventory with what was said; advertise and withdraw the difference, in one call each."""
        wanted = self._wanted(inventory)
        gone = [key for subject, (key, _) in self._said.items() if subject not in wanted]
        changed = {key: offer for subject, (key, offer) in wanted.items() if self._said.get(subject) != (key, offer)}
        if gone:
            self._router.withdraw(gone)
        if changed:
            self._router.advertise(changed)
        self._said = wanted

    def take_back(self) -> None:
        """Withdraw everything that was said."""
        self._router.withdraw([key for key, _ in self._said.values()])
        self._said = {}

    def _wanted(self, inventory: Inventory) -> dict[Digest | TagName, tuple[Key, Offer]]:
        passes = self._verdicts()
        wanted: dict[Digest | TagName, tuple[Key, Offer]] = {}
        wanted.update((info.digest, self._keyed(info.digest, Offer())) for info in inventory.blobs() if passes(info))
        wanted.update((info.name, self._keyed(info.name, _tag_offer(info))) for info in self._tags(inventory))
        return wanted

    def _tags(self, inventory: Inventory) -> list[TagInfo]:
        if not self._resolve_tags:
            return []
        return [
            info
            for info in inventory.tags()
            if inventory.blob(info.digest) is not None and (self._filters.empty or self._filters.allows(str(info.name)))
        ]

    def _verdicts(self) -> Callable[[BlobInfo], bool]:
        """Return the question whether a blob may be said, which asks each set of names once a round."""
        if self._filters.empty:
            return lambda _: True
        known: dict[frozenset[str], bool] = {}

        def passes(info: BlobInfo) -> bool:
            verdict = known.get(info.names)
            if verdict is None:
                verdict = known[info.names] = any(self._filters.allows(name) for name in info.names)
            return verdict

        return passes

    def _keyed(self, subject: Digest | TagName, offer: Offer) -> tuple[Key, Offer]:
        """Pair an offer with its key, which is not computed again while it is said."""
        said = self._said.get(subject)
        return (key_of(subject) if said is None else said[0], offer)


def _tag_offer(info: TagInfo) -> Offer:
    claim = TagClaim(info.digest, info.media_type, info.size, age_s=0.0, confirmed=info.confirmed)
    return Offer(complete=True, tag=claim, since=info.since)
