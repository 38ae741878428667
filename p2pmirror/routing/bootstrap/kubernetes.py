"""Bootstrap by a headless service, asked of the Kubernetes API: listed once, and watched from then on.

Laws:
- while the watch stands nobody asks: `addresses` says what is known, and everybody's list is the API's own;
- a watch that breaks goes on from where it was, after a pause that grows; where that is too old, all is listed again;
- a watch that says nothing for `SILENCE_S` is not believed to stand;
- whom the API refuses says once what role he needs, and asks on: roles are granted while agents run;
- what was known last counts until something newer is known: an API that is away takes nobody's addresses away.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Final

import trio

from p2pmirror.errors import MirrorError, Unreachable
from p2pmirror.kubernetes import Access, ApiRefused, Gone, NoAccess, Session, Sessions, open_session
from p2pmirror.kubernetes.names import read_service_name
from p2pmirror.kubernetes.session import Watch
from p2pmirror.kubernetes.slices import Service, list_slices
from p2pmirror.routing.bootstrap.complaints import Complaints
from p2pmirror.routing.bootstrap.endpoints import Endpoints, places_of
from p2pmirror.routing.bootstrap.places import Place
from p2pmirror.routing.bootstrap.resolver import Resolver
from p2pmirror.store.files import Files
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Network

ASK_S_MAX: Final = 5.0  # for a list and the beginning of a watch: an API that takes longer is in trouble
WATCH_S: Final = 300.0  # a watch ends after this, as the API's own clients' do; a new one is a question, no list
SILENCE_S: Final = 100.0  # the API sends a bookmark each minute: after this the connection is broken somewhere
FRESH_S: Final = 1.0  # what came so shortly ago is not asked for again
GATHER_S: Final = 20.0  # between news and telling it: of a cluster's start each node is told in a few parts
PAUSE_S_MIN, PAUSE_S_MAX = 2.0, 30.0  # before the next attempt, half of it by chance: a thousand nodes drift apart
REFUSED_PAUSE_S: Final = 60.0  # before the next attempt of whom the API refuses

_ROLE: Final = "its service account needs a role with list and watch on endpointslices (discovery.k8s.io)"


@dataclass(frozen=True, slots=True)
class KubernetesSetting:
    """Which service to ask for, and where the API is; `text` is the setting that it was read from."""

    text: str
    service: Service
    access: Access = field(default_factory=Access)

    def __str__(self) -> str:
        return self.text

    def within(self, environ: Mapping[str, str]) -> "KubernetesSetting":
        """Return the setting with the API that an environment names."""
        return replace(self, access=Access.of(environ))

    def on(self, network: Network, files: Files, random: Random) -> "ServiceEndpoints":
        """See `protocol.BootstrapSetting`."""
        return ServiceEndpoints(self, network, files, random)


def read_service(name: str, text: str) -> KubernetesSetting:
    """Read `NAMESPACE/SERVICE`. Raises ValueError with a clear text."""
    return KubernetesSetting(text, Service(*read_service_name(name)))


class ServiceEndpoints:
    """See `protocol.Bootstrap`."""

    def __init__(self, setting: KubernetesSetting, network: Network, files: Files, random: Random) -> None:
        """Ask nothing yet."""
        self._service = setting.service
        self._random = random
        self._sessions: Sessions = partial(open_session, setting.access, network, files, random)
        self._resolver = Resolver(network, random)
        self._complaints = Complaints()
        self._endpoints = Endpoints()
        self._asking = trio.Lock()  # who lists, or begins a watch: their answers must not overtake one another
        self._is_watched = False
        self._known = -math.inf  # when what is known was the API's own word last
        self._told: frozenset[Place] = frozenset()  # when `addresses` was asked for last
        self._telling = trio.CancelScope()  # of `changed`: its deadline is when there is news to be told

    async def addresses(self) -> list[Address]:
        """Return the addresses of the service's endpoints, asked of the API unless they are known by a watch."""
        if not self._is_fresh:
            try:
                with _in_time():
                    await self._ask()
            except MirrorError as error:
                self._complain(error)
        self._told = self._endpoints.places
        return await self._resolver.resolve(self._told)

    async def changed(self) -> None:
        """Return some time after an endpoint has come; until then, the API is followed."""
        with trio.CancelScope() as self._telling:
            self._look_for_news()
            await self._follow()

    @property
    def _is_fresh(self) -> bool:
        return self._is_watched or trio.current_time() < self._known + FRESH_S

    def _look_for_news(self) -> None:
        if self._telling.deadline == math.inf and not self._endpoints.places <= self._told:
            self._telling.deadline = trio.current_time() + GATHER_S * self._random.uniform(0.5, 1.5)

    async def _ask(self) -> None:
        async with self._asking:
            if not self._is_fresh:
                async with self._sessions() as session:
                    await self._list(session)

    async def _list(self, session: Session) -> None:
        listing = await list_slices(session, self._service)
        slices = dict[str, frozenset[Place]]()
        for each in listing.slices:
            slices[each.metadata.name] = places_of(each)
            await trio.lowlevel.checkpoint()  # a hundred endpoints take a millisecond
        self._endpoints.replace(listing.version, slices)
        self._take_in()

    async def _follow(self) -> None:
        """Follow the API until cancelled, through whatever happens to it."""
        pause_s = PAUSE_S_MIN
        while True:
            began = trio.current_time()
            at_least_s = await self._watch_once()
            if trio.current_time() > began + PAUSE_S_MAX:
                pause_s = PAUSE_S_MIN  # it stood for a while: what ended it is not what ended those before
            await trio.sleep(max(pause_s * self._random.uniform(0.5, 1.0), at_least_s * self._random.uniform(1.0, 1.2)))
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def _watch_once(self) -> float:
        """List, where that is needed, and watch until that ends; return how long the API is to be left alone then."""
        try:
            async with self._sessions() as session:
                with _in_time():
                    watch = await self._begin(session)
                try:
                    self._is_watched = True
                    await self._listen(watch)
                finally:
                    self._is_watched = False
                    watch.close()
        except Gone:
            self._endpoints.version = ""
        except MirrorError as error:
            self._complain(error)
            if not _may_go_on(error):
                self._endpoints.version = ""  # it is listed instead: who may not watch hears of others so
            return _pause_s(error)
        return 0.0

    async def _begin(self, session: Session) -> Watch:
        async with self._asking:
            if not self._endpoints.version:
                await self._list(session)
                self._look_for_news()
            seconds = int(WATCH_S * self._random.uniform(0.8, 1.2))
            query = {
                **self._service.query,
                "resourceVersion": self._endpoints.version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(seconds),
            }
            return await session.watch(self._service.path, query)

    async def _listen(self, watch: Watch) -> None:
        """Take in what a watch tells, until it ends, breaks or is silent for too long."""
        try:
            while True:
                event = None
                with trio.move_on_after(SILENCE_S):
                    event = await watch.next()
                if event is None:
                    return
                self._endpoints.take(event)
                self._complaints.right(self._watching, "is watched again")
                self._take_in()
                self._look_for_news()
        except Unreachable:
            return  # servers of an API are restarted; when none comes back, the next attempt says so
        except trio.Cancelled:
            self._known = trio.current_time()  # up to now nothing else was told
            raise

    def _take_in(self) -> None:
        self._known = trio.current_time()
        if self._endpoints.places:
            self._complaints.right(self._subject, "names peers again")
        else:
            self._complaints.wrong(self._subject, "names nobody: the service has no endpoints, or there is none")

    @property
    def _subject(self) -> str:
        return f"kubernetes:{self._service}"

    @property
    def _watching(self) -> str:
        return f"{self._subject} (watch)"

    def _complain(self, error: MirrorError) -> None:
        """Say what is wrong, in the same words whoever met it."""
        needed = f"; {_ROLE}" if isinstance(error, ApiRefused) and error.status == 403 else ""
        if not self._endpoints.version or isinstance(error, NoAccess | Unreachable):
            self._complaints.wrong(self._subject, f"cannot be asked for: {error}{needed}")
        else:
            self._complaints.wrong(self._watching, f"fails: {error}{needed}")


@contextmanager
def _in_time() -> Iterator[None]:
    """Turn what takes too long into `Unreachable`."""
    with trio.move_on_after(ASK_S_MAX) as scope:
        yield
    if scope.cancelled_caught:
        raise Unreachable(f"no answer within {ASK_S_MAX:g} s")


def _may_go_on(error: MirrorError) -> bool:
    """Whether a watch may be begun again from the version that is known."""
    if isinstance(error, ApiRefused):
        return error.status == 429 or error.status >= 500
    return isinstance(error, Unreachable)


def _pause_s(error: MirrorError) -> float:
    if not isinstance(error, ApiRefused):
        return 0.0
    return error.retry_s if _may_go_on(error) or error.status < 400 else REFUSED_PAUSE_S
