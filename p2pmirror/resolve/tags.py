"""What a tag names: by its registry where that is asked through this node, else by what this node and its peers say.

Laws:
- a registry that is asked is believed, also when it says that there is no such tag (unless told otherwise);
- when it does not answer (429, 5xx, silence), what it confirmed last counts, for so long, and only then a local name;
- among claims, confirmed ones come first, then those that were learnt last.

What a tag leads to is then fetched by its digest, so that what a peer says is checked. DESIGN.md section 4, "Tags".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import trio

from p2pmirror.errors import MirrorError, NotHere, Unreachable, UpstreamRefused
from p2pmirror.oci import Digest
from p2pmirror.resolve.confirmed import Confirmed
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.through import Through
from p2pmirror.resolve.want import Trail, Want
from p2pmirror.routing.protocol import CHECKING, Router, TagClaim, key_of
from p2pmirror.store.protocol import Inventory, TagInfo
from p2pmirror.wire.patience import Patience

SETTLE_S = 0.01  # after the first claim, for a newer one: the holders of a key answer within a round trip of each other

HOPE_S = 0.35  # for somebody who is being checked: a holder's ping takes 250 ms at most, and the answer its way


@dataclass(frozen=True, slots=True)
class TagOptions:
    """Settings of tags; `first_claim_s` is `mirror_resolve_timeout`, `ttls_s` the `tag_ttl` of single registries."""

    enabled: bool = True
    first_claim_s: float = 0.03
    ttl_s: float = 0.0
    ttls_s: Mapping[str, float] = field(default_factory=dict)
    stale_max_s: float = 168 * 3600.0
    keep_on_upstream_404: bool = False

    def ttl_of(self, registry: str) -> float:
        """Return for how long a registry's word counts before it is asked again."""
        return self.ttls_s.get(registry, self.ttl_s)


def best(claims: Iterable[TagClaim]) -> TagClaim | None:
    """Return the claim to believe; None when there is none."""
    return min(claims, key=lambda claim: (not claim.confirmed, claim.age_s), default=None)


class Tags:
    """Resolves tags to digests."""

    def __init__(
        self,
        inventory: Inventory,
        router: Router,
        options: TagOptions,
        *,
        through: Through | None = None,
        confirmed: Confirmed | None = None,
        metrics: ResolveMetrics | None = None,
    ) -> None:
        """Ask registries by `through`, remembering what they say in `confirmed`; peers through `router`."""
        self._inventory = inventory
        self._router = router
        self._options = options
        self._through = through
        self._confirmed = confirmed or Confirmed(None)
        self._metrics = metrics

    async def resolve(self, want: Want, trail: Trail) -> Digest:
        """Return the digest that a tag names. Raises `NotHere` when nobody knows it, or tags are not resolved here.

        Raises `UpstreamRefused` or `Unreachable` when its registry was asked in vain and nobody knows it either.
        """
        if not self._options.enabled:
            raise NotHere("tags are not resolved here (resolve_tags = false)")
        if self._through is not None and self._through.serves(want):
            return await self._by_registry(self._through, want, trail)
        claims = self._own(want)
        if want.from_peer is None:
            claims += await self._of_peers(want)
        claim = best(claims)
        if claim is None:
            raise NotHere(f"nobody has {want.tag_name}")
        return claim.digest

    async def _by_registry(self, through: Through, want: Want, trail: Trail) -> Digest:
        name = want.tag_name
        known = self._confirmed.get(name)
        if known is not None and trio.current_time() < known.since + self._options.ttl_of(want.registry):
            return known.digest
        try:
            said = await through.questions.tag(want, trail)
        except NotHere as error:
            if not self._options.keep_on_upstream_404:
                await self._confirmed.forget(name)
                raise
            return await self._stale(want, trail, error)
        except UpstreamRefused as error:
            if error.status != 429 and error.status < 500:
                raise
            return await self._stale(want, trail, error)
        except Unreachable as error:
            return await self._stale(want, trail, error)
        await self._confirmed.remember(name, said)
        return said.digest

    async def _stale(self, want: Want, trail: Trail, error: MirrorError) -> Digest:
        """Return what the registry said before; else a local name; else raise `error`."""
        claims = self._own(want) + await self._of_peers(want)
        claim = best(each for each in claims if not each.confirmed or each.age_s <= self._options.stale_max_s)
        if claim is None:
            raise error
        trail.is_stale = True
        if self._metrics is not None:
            self._metrics.stale_tags.inc()
        return claim.digest

    def _own(self, want: Want) -> list[TagClaim]:
        known = (self._inventory.tag(want.tag_name), self._confirmed.get(want.tag_name))
        return [_claim(each) for each in known if each is not None]

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
            await clock.wait(first, clock.now() + self._options.first_claim_s)
            if hoped.is_set():
                await clock.wait(first, clock.now() + HOPE_S)
            if claims:
                await clock.wait(enough, clock.now() + SETTLE_S)
            nursery.cancel_scope.cancel()
        return claims


def _claim(info: TagInfo) -> TagClaim:
    age_s = max(0.0, trio.current_time() - info.since)
    return TagClaim(info.digest, info.media_type, info.size, age_s, info.confirmed)
