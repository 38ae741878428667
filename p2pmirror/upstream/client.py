"""All real registries, as `protocol.Upstream` has them: finds a question's registry, and asks it.

Laws: a registry that is not in the table, or is for peers only, is never dialled, whatever its name spells; each
registry has its own connections, tokens, credentials and governors.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from urllib.parse import urlsplit

import httpx
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.errors import NotHere
from p2pmirror.oci import Descriptor, Digest
from p2pmirror.store.files import Files
from p2pmirror.upstream import documents, listing
from p2pmirror.upstream.asking import Asker, World
from p2pmirror.upstream.connection import IDLE_S
from p2pmirror.upstream.credentials.helper import AskHelper, helpers_in
from p2pmirror.upstream.credentials.source import NoSource, Source
from p2pmirror.upstream.dialling import Dialler
from p2pmirror.upstream.download import RegistryDownload, ask_blob_size
from p2pmirror.upstream.metrics import UpstreamMetrics
from p2pmirror.upstream.options import RegistryOptions
from p2pmirror.upstream.protocol import Document, Standing
from p2pmirror.upstream.registries import Registries
from p2pmirror.upstream.tls import Trust
from p2pmirror.upstream.transport import RegistryTransport
from p2pmirror.wire.network import Network


class RegistriesUpstream:
    """See `protocol.Upstream`; `aclose` when done."""

    def __init__(
        self,
        registries: Registries,
        network: Network,
        files: Files,
        *,
        random: Random,
        registry: CollectorRegistry,
        wall_s: Callable[[], float],
        helper_path: str = "",
    ) -> None:
        """Dial and read nothing yet.

        `registry` is that of the metrics, `wall_s` gives the time of day, for dates in answers; credential helpers are
        looked for in `helper_path`, which is written as PATH is.
        """
        self._registries = registries
        self._world = World(UpstreamMetrics(registry, registries.through), random, wall_s)
        self._network = network
        self._files = files
        self._ask_helper = helpers_in(helper_path)
        self._askers: dict[str, Asker] = {}
        self._transports: list[RegistryTransport] = []

    async def let_go_of_old(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Close kept connections as they become too old, until cancelled: without questions nothing else would."""
        task_status.started()
        while True:
            await trio.sleep(IDLE_S / 2)
            for transport in list(self._transports):
                await transport.close_old()

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in self._transports:
            await transport.aclose()

    def is_through(self, registry: str) -> bool:
        """See `protocol.Upstream`."""
        options = self._registries.get(registry)
        return options is not None and options.mode == "through"

    def is_reachable(self, registry: str) -> bool:
        """See `protocol.Upstream`; an answer of 500 and above is none of the registry's own."""
        options = self._registries.get(registry)
        asker = None if options is None else self._askers.get(options.name)
        return asker is None or asker.is_reachable

    def late(self, registry: str) -> None:
        """See `protocol.Upstream`."""
        options = self._registries.get(registry)
        asker = None if options is None else self._askers.get(options.name)
        if asker is not None:
            asker.late()

    def standings(self) -> list[Standing]:
        """Return how this node stands with each registry: first those of the settings, then the built-in ones."""
        names = self._registries.configured
        return [self._standing(each) for each in sorted(self._registries, key=lambda one: one.name not in names)]

    def _standing(self, options: RegistryOptions) -> Standing:
        asker = self._askers.get(options.name)
        if asker is None:
            return Standing(options.name, options.mode)
        return Standing(options.name, options.mode, True, asker.is_reachable, asker.rests_s, asker.quota_left)  # noqa: FBT003

    async def resolve(self, registry: str, repository: str, tag: str) -> Descriptor:
        """See `protocol.Upstream`."""
        return await documents.resolve(self._asker(registry), repository, tag)

    async def document(self, registry: str, repository: str, digest: Digest) -> Document:
        """See `protocol.Upstream`."""
        return await documents.fetch(self._asker(registry), repository, digest)

    async def blob_size(self, registry: str, repository: str, digest: Digest) -> int:
        """See `protocol.Upstream`."""
        return await ask_blob_size(self._asker(registry), repository, digest)

    @asynccontextmanager
    async def blob(
        self, registry: str, repository: str, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[RegistryDownload]:
        """See `protocol.Upstream`."""
        download = RegistryDownload(self._asker(registry), repository, digest, start)
        try:
            await download.begin()
            yield download
        except BaseException as error:
            await download.aclose(error)
            raise
        await download.aclose()

    async def tags(self, registry: str, repository: str) -> list[str]:
        """See `protocol.Upstream`."""
        return await listing.list_tags(self._asker(registry), repository)

    async def referrers(self, registry: str, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """See `protocol.Upstream`."""
        return await listing.list_referrers(self._asker(registry), repository, subject)

    def _asker(self, registry: str) -> Asker:
        options = self._registries.get(registry)
        if options is None or options.mode != "through":
            raise NotHere(f"{registry} is not fetched from")
        asker = self._askers.get(options.name)
        if asker is None:
            asker = self._askers[options.name] = self._made(options)
        return asker

    def _made(self, options: RegistryOptions) -> Asker:
        proxy = None if options.proxy is None else httpx.URL(options.proxy)
        at = None if proxy is None else (proxy.host, proxy.port or (443 if proxy.scheme == "https" else 80))
        dialler = Dialler(self._network, self._world.random, private_addresses=options.private_addresses, proxy=at)
        transport = RegistryTransport(dialler, Trust(options.ca_file), options.proxy)
        self._transports.append(transport)
        asker = Asker(options, transport, _source(options, self._files, self._ask_helper), self._world)
        self._world.metrics.unreachable.child(options.name).set_function(lambda: not asker.is_reachable)
        return asker


def _source(options: RegistryOptions, files: Files, ask_helper: AskHelper) -> Source | NoSource:
    if options.credentials is None:
        return NoSource()
    return Source(options.credentials, options.name, urlsplit(options.url).netloc, files, ask_helper)
