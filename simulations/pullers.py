"""Who pulls layers through agents as containerd and a kubelet do: asks again for what a response lacked, then for all.

Laws:
- a response that ends cleanly has the right bytes, all that were asked for: `clean` looks at each;
- what an agent does not give is asked of the registry itself;
- wrong bytes that came before a response was cut are found by the digest of all, and thrown away.

Follows containerd 1.7's remotes/docker/httpreadseeker.go (three openings without progress) and the kubelet's back-off.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from p2pmirror.errors import MirrorError
from p2pmirror.oci import Digest
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from simulations.checks import Check
from simulations.nodes import REGISTRY_PORT, WholeNode
from simulations.registry import HOST, NAME, PORT, SimulatedRegistry

OPENINGS_MAX = 3  # in a row without a byte
PULLS_MAX = 4  # of an image, with the kubelet's back-off between
BACK_OFF_S = 10.0  # before the second, then twice as long each time


@dataclass
class Pulled:
    """What one pull met: how often it was begun, what the agent did not give, and what took longest to be answered."""

    pulls: int = 0
    openings: int = 0
    passed_over: int = 0
    head_s_max: float = 0.0
    is_right: bool = False


class Puller:
    """Pulls layers on one node."""

    def __init__(self, node: WholeNode, registry: SimulatedRegistry, clean: Check) -> None:
        self._node = node
        self._registry = registry
        self._clean = clean

    async def pull(self, layer: Digest) -> Pulled:
        """Pull until it is right, or was given up."""
        client = HttpClient(self._node.network, ClientOptions(dial_timeout_s=5.0))
        pulled = Pulled()
        try:
            while not pulled.is_right and pulled.pulls < PULLS_MAX:
                if pulled.pulls:
                    await trio.sleep(BACK_OFF_S * 2 ** (pulled.pulls - 1))
                pulled.pulls += 1
                pulled.is_right = await self._once(client, layer, pulled)
        finally:
            await client.aclose()
        return pulled

    async def _once(self, client: HttpClient, layer: Digest, pulled: Pulled) -> bool:
        """Read all of a layer, opening it again where it breaks; return whether it is right."""
        data, size, openings = bytearray(), len(self._registry.blobs[layer]), 0
        while len(data) < size and openings < OPENINGS_MAX:
            before = len(data)
            pulled.openings += 1
            if not await self._read(client, layer, data, Address("127.0.0.1", REGISTRY_PORT), pulled):
                pulled.passed_over += 1
                await self._read(client, layer, data, Address(HOST, PORT), Pulled())
            openings = 0 if len(data) > before else openings + 1
        hasher = layer.hasher()
        hasher.update(data)
        return layer.matches(hasher)

    async def _read(self, client: HttpClient, layer: Digest, data: bytearray, address: Address, pulled: Pulled) -> bool:
        """Read on from where `data` ends; return whether that was answered with content."""
        offset, truth = len(data), self._registry.blobs[layer]
        began, is_answered = trio.current_time(), False
        headers = {"Host": "a"} | ({"Range": f"bytes={offset}-"} if offset else {})
        try:
            async with client.request(address, "GET", f"/v2/app/blobs/{layer}?ns={NAME}", headers) as response:
                pulled.head_s_max = max(pulled.head_s_max, trio.current_time() - began)
                if response.status not in {200, 206}:
                    return False
                is_answered = True
                buffer = memoryview(bytearray(1 << 16))
                while got := await response.receive_into(buffer):
                    data += buffer[:got]
        except MirrorError:
            return is_answered  # and cut: containerd asks the same host once more
        is_right = data[offset:] == truth[offset:]
        self._clean.holds(
            is_right, lambda: f"{self._node} answered {len(data) - offset} bytes from {offset}, not the right ones"
        )
        return True
