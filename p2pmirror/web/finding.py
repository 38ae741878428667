"""Who has it: one look-up for `find` and the page.

Laws: it ends within `FIND_S` whatever the router does, and its way, which is another look-up, within `TRACE_S`; few run
at once, since anybody may ask.
"""

from dataclasses import dataclass
from typing import Any, Final

import trio

from p2pmirror.errors import BadRequest, Unreachable
from p2pmirror.oci import Digest, Invalid, Reference, TagName
from p2pmirror.routing.protocol import CHECKING, Provider, Router, Step, key_of
from p2pmirror.store.protocol import Store

FIND_S: Final = 5.0  # seconds: a look-up takes milliseconds; one that found holes in the network takes a second or two
FINDS_MAX: Final = 4  # at once: people and scripts; each costs the cluster some datagrams
TRACE_S: Final = 3.0  # seconds: what is silent is waited for once more; with FIND_S less than the 10 s of the command
PROVIDERS_MAX: Final = 1_000  # more than that are counted by nobody
STEPS_MAX: Final = 1_000  # of a way that is told; an honest cluster of 10,000 takes some twenty


@dataclass(slots=True)
class Finder:
    """Looks up by reference or digest."""

    store: Store
    router: Router
    default_registry: str
    running: int = 0

    async def find(self, *, ref: str | None, digest: str | None, trace: bool = False) -> dict[str, Any]:
        """Return `{key, subject, seconds, providers, held}`; a tag's providers say in `claim` what it names there.

        With `trace` also `trace`, the way of another look-up: `{seconds, steps, holders}`, None when it did not end.

        Raises BadRequest for what cannot be looked up, Unreachable when too many look-ups run.
        """
        subject = self._subject(ref, digest)
        if self.running >= FINDS_MAX:
            raise Unreachable(f"{FINDS_MAX} look-ups are running already")
        self.running += 1
        try:
            began = trio.current_time()
            providers = await self._providers(subject)
            seconds = trio.current_time() - began
            way = {"trace": await self._way(subject)} if trace else {}
        finally:
            self.running -= 1
        return {
            "key": key_of(subject).hex(),
            "subject": str(subject),
            "seconds": round(seconds, 6),
            "providers": [_written(provider, subject) for provider in providers],
            "held": self._is_held(subject),
            **way,
        }

    def _subject(self, ref: str | None, digest: str | None) -> Digest | TagName:
        if (ref is None) == (digest is None):
            raise BadRequest("give either ref= or digest=")
        try:
            if digest is not None:
                return Digest.parse(digest)
            reference = Reference.parse(ref or "", default_registry=self.default_registry).with_default_tag()
        except Invalid as error:
            raise BadRequest(str(error)) from None
        subject = reference.digest or reference.tag_name
        assert subject is not None  # with_default_tag
        return subject

    async def _providers(self, subject: Digest | TagName) -> list[Provider]:
        providers: list[Provider] = []
        with trio.move_on_after(FIND_S):
            async with self.router.find(key_of(subject)) as found:
                async for provider in found:
                    if provider is CHECKING:
                        continue
                    providers.append(provider)
                    if len(providers) >= PROVIDERS_MAX:
                        break
        return sorted(providers, key=lambda provider: (provider.address, provider.node_id))

    async def _way(self, subject: Digest | TagName) -> dict[str, Any] | None:
        with trio.move_on_after(TRACE_S):
            trace = await self.router.trace(key_of(subject))
            return {
                "seconds": round(trace.seconds, 6),
                "steps": [_step(step) for step in trace.steps[:STEPS_MAX]],
                "holders": [node_id.hex() for node_id in trace.holders],
            }
        return None

    def _is_held(self, subject: Digest | TagName) -> bool:
        inventory = self.store.inventory
        held = inventory.blob(subject) if isinstance(subject, Digest) else inventory.tag(subject)
        return held is not None


def _step(step: Step) -> dict[str, Any]:
    return {
        "hop": step.hop,
        "node_id": step.node_id.hex(),
        "address": str(step.address),
        "asked_s": round(step.asked_s, 6),
        "answered_s": None if step.answered_s is None else round(step.answered_s, 6),
        "records": step.records,
        "closer": step.closer,
    }


def _written(provider: Provider, subject: Digest | TagName) -> dict[str, Any]:
    written: dict[str, Any] = {
        "node_id": provider.node_id.hex(),
        "address": str(provider.address),
        "zone": provider.zone,
        "complete": provider.complete,
        "leading": provider.leading,
    }
    if isinstance(subject, TagName):
        claim = provider.tag
        written["claim"] = claim and {
            "digest": str(claim.digest),
            "media_type": claim.media_type,
            "size": claim.size,
            "age_s": round(claim.age_s, 3),
            "confirmed": claim.confirmed,
        }
    return written
