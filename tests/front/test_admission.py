"""Promises of the door: members, this node and named networks are let in, everybody else is told that he is not."""

from __future__ import annotations

import json
from ipaddress import ip_network

import pytest
from prometheus_client import CollectorRegistry

from p2pmirror.errors import Unreachable
from p2pmirror.front.admission import KeyHolders
from p2pmirror.front.metrics import FrontMetrics
from p2pmirror.oci import Digest
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import Binding
from p2pmirror.wire.http import Request
from p2pmirror.wire.keyring import KeyRing
from p2pmirror.wire.peer_auth import Asked, prove
from tests.front.setting import THERE, Bench

RING = KeyRing([b"k" * 32])
OWN = Binding(b"boot-id.", 500_000)
DIGEST = Digest.of(b"{}")
TARGET = f"/v2/a/manifests/{DIGEST}"
OURS = "10.0.0.1"


class Door:
    """A front whose door a key has closed; `hosts` are this node's addresses besides the one asked at."""

    def __init__(self, *allowed: str, hosts: tuple[str, ...] = ()) -> None:
        self.hosts = hosts
        self.now = OWN
        self.bench = Bench()
        self.registry = CollectorRegistry()
        metrics = FrontMetrics(self.registry)
        networks = [ip_network(each) for each in allowed]
        door = KeyHolders(RING, lambda: self.now, allowed=networks, source_host=self._source, metrics=metrics)
        self.bench.build(admission=door)

    async def _source(self, towards: Address) -> str:
        if towards.host == "192.0.2.255":
            raise Unreachable("no route")
        return towards.host if towards.host in self.hosts else OURS

    async def ask(self, remote: str, target: str = TARGET, method: str = "GET", *, local: str = OURS, **headers: str):
        path, _, query = target.partition("?")
        fields = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        request = Request(method, path, query, fields, Address(remote, 40000), Address(local, 29999))
        return await self.bench.front.handle(request)

    async def status(self, remote: str, *args: str, **headers: str) -> int:
        return (await self.ask(remote, *args, **headers)).status

    def denied(self) -> dict[str, float]:
        samples = [sample for metric in self.registry.collect() for sample in metric.samples]
        counts = [each for each in samples if each.name == "p2pmirror_front_denied_total"]
        return {each.labels["reason"]: each.value for each in counts if each.value}


def signed(
    target: str = TARGET, method: str = "GET", *, byte_range: str = "", binding: Binding = OWN
) -> dict[str, str]:
    """Return the fields of a peer's request."""
    fields = {"P2PMirror_Peer": THERE.hex()}
    if byte_range:
        fields["Range"] = byte_range
    fields["P2PMirror_Auth"] = prove(RING, Asked(method, target, byte_range, THERE), binding)
    return fields


NOT_HELD = 404  # let in, and told that nobody has it


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.2"),
        ("::1", "::1"),
        (OURS, OURS),
        ("fd00::7", "fd00::7"),
        ("fe80::7%eth0", "fe80::7%eth0"),
        ("10.0.0.77", "10.0.0.1"),
        ("10.0.0.77", "127.0.0.1"),
    ],
)
async def test_this_node_is_served(remote: str, local: str) -> None:
    """Whatever of its own addresses containerd comes from: loopback, the one that it dialled, another interface's."""
    assert await Door(hosts=("10.0.0.77",)).status(remote, local=local) == NOT_HELD


@pytest.mark.parametrize("remote", ["10.0.0.9", "10.0.0.2", "fd00::7", "fe80::7%eth0", "192.0.2.255", "8.8.8.8"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
@pytest.mark.parametrize("target", [TARGET, "/v2/", "/v2/a/tags/list", "/p2p/v1/flights/x", "/", "/v2/A/blobs/?ns=%"])
async def test_nobody_else_is(remote: str, method: str, target: str) -> None:
    """From elsewhere every path and method is 403 DENIED, in the registry's words, and nothing is looked up."""
    door = Door()
    response = await door.ask(remote, target, method)
    assert response.status == 403
    assert "WWW-Authenticate" not in response.headers
    if method != "HEAD":
        assert json.loads(response.body)["errors"][0]["code"] == "DENIED"
    assert door.bench.resolver.wants == []
    assert door.denied() == {"client": 1}


@pytest.mark.parametrize(
    ("allowed", "remote", "status"),
    [
        ("10.1.0.0/16", "10.1.2.3", NOT_HELD),
        ("10.1.0.0/16", "10.2.0.0", 403),
        ("10.1.2.3/32", "10.1.2.3", NOT_HELD),
        ("10.1.2.3/32", "10.1.2.4", 403),
        ("fd00::/8", "fd12::1", NOT_HELD),
        ("fe80::/10", "fe80::7%eth1", NOT_HELD),
        ("0.0.0.0/0", "8.8.8.8", NOT_HELD),
        ("0.0.0.0/0", "fd12::1", 403),
        ("::/0", "8.8.8.8", 403),
    ],
)
async def test_allowed_clients_are_served(allowed: str, remote: str, status: int) -> None:
    """An address in an allowed network is let in; families do not mix."""
    assert await Door("192.168.0.0/24", allowed).status(remote) == status


async def test_a_proved_peer_is_served_from_anywhere() -> None:
    """The proof counts, not the address; what is asked for reaches the resolver as a peer's question."""
    door = Door()
    target = f"/v2/a/blobs/{DIGEST}?ns=docker.io"
    assert await door.status("10.0.0.9", target, **signed(target, byte_range="bytes=1-")) == NOT_HELD
    [want] = door.bench.resolver.wants
    assert (want.from_peer, want.byte_range) == (THERE, "bytes=1-")


@pytest.mark.parametrize("remote", ["10.0.0.9", "127.0.0.1", OURS, "10.1.0.1"])
async def test_who_says_that_it_is_a_peer_must_prove_it(remote: str) -> None:
    """Without a proof a peer's request is 403, from this node and from an allowed network too."""
    door = Door("10.1.0.0/16")
    assert await door.status(remote, P2PMirror_Peer=THERE.hex()) == 403
    assert (door.denied(), door.bench.resolver.wants) == ({"unsigned": 1}, [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"P2PMirror_Auth": "x"}, "unsigned"),
        ({"P2PMirror_Auth": f"{OWN.boot_id.hex()}.{OWN.clock_ms}.{'0' * 32}"}, "wrong_key"),
        ({"P2PMirror_Peer": "ab" * 20}, "wrong_key"),
        ({"Range": "bytes=0-"}, "wrong_key"),
        (signed(f"{TARGET}?ns=ghcr.io"), "wrong_key"),
        (signed(method="HEAD"), "wrong_key"),
        (signed(binding=Binding(b"another.", OWN.clock_ms)), "other_boot"),
        (signed(binding=Binding(OWN.boot_id, OWN.clock_ms - 60_001)), "stale"),
    ],
)
async def test_a_proof_that_does_not_hold_is_counted_by_its_reason(change: dict[str, str], reason: str) -> None:
    """Forged, for another request, another node, another time: 403, and the metric says which."""
    door = Door()
    assert await door.status("10.0.0.9", **{**signed(), **change}) == 403
    assert (door.denied(), door.bench.resolver.wants) == ({reason: 1}, [])


async def test_a_captured_request_is_worth_nothing_later() -> None:
    """The same bytes again: answered within the minute, refused after it, and after a restart of this node."""
    door = Door()
    captured = signed()
    assert await door.status("10.0.0.9", **captured) == NOT_HELD
    door.now = Binding(OWN.boot_id, OWN.clock_ms + 61_000)
    assert await door.status("10.0.0.9", **captured) == 403
    assert await door.status("10.0.0.66", **captured) == 403
    door.now = Binding(b"restart!", OWN.clock_ms)
    assert await door.status("10.0.0.9", **captured) == 403
    assert door.denied() == {"stale": 2, "other_boot": 1}


async def test_a_refusal_is_logged_with_its_source() -> None:
    """Whoever looks for the node without the key finds its address in the log."""
    door = Door()
    response = await door.ask("10.0.0.9")
    assert response.done is not None
    response.done(0, True)
    assert door.bench.front.recent()[0].fields()["remote"] == "10.0.0.9"


@pytest.mark.parametrize("remote", ["10.0.0.9", "8.8.8.8"])
async def test_without_a_key_everybody_is_served(bench: Bench, remote: str) -> None:
    """No key, no door: clients and peers from anywhere, with a proof or without."""
    for headers in ({}, {"p2pmirror-peer": THERE.hex()}, {"p2pmirror-peer": THERE.hex(), "p2pmirror-auth": "x"}):
        request = Request("GET", TARGET, "", headers, Address(remote, 1), Address(OURS, 29999))
        assert (await bench.front.handle(request)).status == NOT_HELD
