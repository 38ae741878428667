"""What a cluster's key, or the lack of one, makes of each room.

Laws: there is one ring, which all rooms share and which follows the key file; no room asks whether there is a key.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from p2pmirror.config.keyfile import KeyFile
from p2pmirror.config.metrics import KeyMetrics
from p2pmirror.config.model import Config
from p2pmirror.front.admission import Admission, Everybody, KeyHolders
from p2pmirror.front.metrics import FrontMetrics
from p2pmirror.peers.signing import Signed, Signer, Unsigned
from p2pmirror.routing.dht.codec import NullSeal, Seal
from p2pmirror.routing.dht.seal import KeyedSeal
from p2pmirror.store.files import Files
from p2pmirror.wire.binding import Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import Network

_log = logging.getLogger(__name__)


class Trust(Protocol):
    """What the rooms are given."""

    def seal(self) -> Seal:
        """Return what protects the router's datagrams."""
        ...

    def signer(self, binding_of: Callable[[NodeId], Binding]) -> Signer:
        """Return what signs questions to peers, whose bindings `binding_of` knows."""
        ...

    def admission(self, own: Callable[[], Binding], network: Network, metrics: FrontMetrics) -> Admission:
        """Return who decides whom the registry port answers; `own` is this node's binding as it is now."""
        ...

    async def run(self, metrics: KeyMetrics, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Say which keys there are, and follow the key file until cancelled."""
        ...


class Keyless:
    """A cluster without a key; see `Trust`."""

    def seal(self) -> Seal:
        """Protect nothing."""
        return NullSeal()

    def signer(self, binding_of: Callable[[NodeId], Binding]) -> Signer:  # noqa: ARG002 - nothing is bound to anybody
        """Prove nothing."""
        return Unsigned()

    def admission(self, own: Callable[[], Binding], network: Network, metrics: FrontMetrics) -> Admission:  # noqa: ARG002 - nobody is denied
        """Let everybody in."""
        return Everybody()

    async def run(self, metrics: KeyMetrics, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Say once that everybody is served, and wait: there is no file to follow."""
        _log.warning("no cluster key is set: every client and every agent that reaches the ports is served")
        metrics.accepted(0)
        task_status.started()
        await trio.sleep_forever()


class Keyed:
    """A cluster with a key; see `Trust`."""

    def __init__(self, config: Config, key_file: KeyFile) -> None:
        """Share the ring of `key_file`."""
        self._config = config
        self._key_file = key_file

    def seal(self) -> Seal:
        """Seal with the ring's first key, open with any."""
        return KeyedSeal(self._key_file.ring)

    def signer(self, binding_of: Callable[[NodeId], Binding]) -> Signer:
        """Sign with the ring's first key."""
        return Signed(self._key_file.ring, binding_of)

    def admission(self, own: Callable[[], Binding], network: Network, metrics: FrontMetrics) -> Admission:
        """Let in who has a key, this node, and `allowed_clients`."""
        return KeyHolders(
            self._key_file.ring,
            own,
            allowed=self._config.allowed_clients,
            source_host=network.source_host,
            metrics=metrics,
        )

    async def run(self, metrics: KeyMetrics, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the key file; see `KeyFile.run`."""
        await self._key_file.run(metrics, task_status=task_status)


async def load_trust(config: Config, files: Files) -> Trust:
    """Read the key file, where there is one. Raises `BadSetting`."""
    if config.peer_key_file is None:
        return Keyless()
    return Keyed(config, await KeyFile.load(files, config.peer_key_file))
