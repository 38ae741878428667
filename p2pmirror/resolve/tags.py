"""What a tag names, by what this node and its peers say.

The claim that an upstream registry confirmed wins over a local name, and the one learnt last over an older one
(DESIGN.md, "Tags"). What a tag leads to is then fetched by its digest, so that what a peer says is checked.
"""

from collections.abc import Iterable

import trio

from p2pmirror.errors import NotHere
from p2pmirror.oci import Digest
from p2pmirror.resolve.want import Want
from p2pmirror.routing.protocol import CHECKING, Router, TagClaim, key_of
from p2pmirror.store.protocol import Inventory
from p2pmirror.wire.patience import Patience

SETTLE_S = 0.01  # after the first claim, for a newer one: the holders of a key answer within a round trip of each other

HOPE_S = 0.35  # for somebody who is being checked: a holder's ping takes 250 ms at most, and the answer its way


def best(claims: Iterable[TagClaim]) -> TagClaim | None:
    """Return the claim to believe; None when there is none."""
    return min(claims, key=lambda claim: (not claim.confirmed, claim.age_s), default=None)


class Tags:
    """Resolves tags to digests."""

    def __init__(self, inventory: Inventory, router: Router, *, enabled: bool, first_claim_s: float) -> None:
        """Ask peers through `router`, waiting `first_claim_s` for one; not at all unless `enabled` (`resolve_tags`)."""
        self._inventory = inventory
        self._router = router
        self._enabled = enabled
        self._first_claim_s = first_claim_s

    async def resolve(self, want: Want) -> Digest:
        """Return the digest that a tag names. Raises `NotHere` when nobody knows it, or tags are not resolved here."""
        if not self._enabled:
            raise NotHere("tags are not resolved here (resolve_tags = false)")
        claims = self._own(want)
        if want.from_peer is None:
            claims += await self._of_peers(want)
        claim = best(claims)
        if claim is None:
            raise NotHere(f"nobody has {want.tag_name}")
        return claim.digest

    def _own(self, want: Want) -> list[TagClaim]:
        held = self._inventory.tag(want.tag_name)
        if held is None:
            return []
        age_s = max(0.0, trio.current_time() - held.since)
        return [TagClaim(held.digest, held.media_type, held.size, age_s, held.confirmed)]

    async def _of_peers(self, want: Want) -> list[TagClaim]:
        """Collect claims until the lookup ends, or a short while after the first one came."""
        claims: list[TagClaim] = []
        first, hoped, enough = trio.Event(), trio.Event(), trio.Event()

        async def collect() -> None:
            async with self._router.find(key_of(want.tag_name)) as providers:
                async for found in providers:
                    if found is CHECKING:
                        hoped.set()
                    elif found.tag is not None:
                        claims.append(found.tag)
                        first.set()
            first.set()
            enough.set()

        clock = Patience()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            await clock.wait(first, clock.now() + self._first_claim_s)
            if hoped.is_set():
                await clock.wait(first, clock.now() + HOPE_S)
            if claims:
                await clock.wait(enough, clock.now() + SETTLE_S)
            nursery.cancel_scope.cancel()
        return claims
