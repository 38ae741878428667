"""Agents under a key: those who have it serve one another and nobody else, and it is changed without a failed pull."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.config import BadSetting
from p2pmirror.config.keyfile import LOOK_S
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.identity import PEER_HEADER
from tests.node.cluster import REGISTRY_PORT, Cluster, CountingFiles, Member, cluster
from tests.store.images import make_image

OLD, NEW, OTHER = (f"{name}-key-0123456789abcdef".encode() for name in ("old", "new", "other"))
KEY_FILE = Path("/etc/p2pmirror/key")
CLIENT = "10.9.9.9/32"  # the harness's own client, on a host of its own
IMAGE = make_image(layer_bytes=(3000, 200_000))
LAYER = IMAGE.layers[1]
BLOB = f"/v2/app/blobs/{LAYER}"
SETTLED_S = 3 * LOOK_S  # a changed key file counts after two looks


async def add(nodes: Cluster, *keys: bytes, **settings: Any) -> Member:
    """Add a node whose key file has these keys; without any, a node without a key."""
    if not keys:
        return await nodes.add(**settings)
    files = CountingFiles()
    files.put(KEY_FILE, b"\n".join(keys))
    texts = {"peer_key_file": str(KEY_FILE), "allowed_clients": CLIENT}
    return await nodes.add(files=files, **{**texts, **settings})


@asynccontextmanager
async def keyed(*keys: tuple[bytes, ...]):
    """Yield a cluster with one node for each tuple of keys, of which the first one holds the image."""
    async with cluster() as nodes:
        for number, each in enumerate(keys):
            await add(nodes, *each, image=None if number else IMAGE)
        await nodes.ready()
        yield nodes


async def known(nodes: Cluster, member: Member) -> set[str]:
    """Return the ids of the members that a node knows to be alive, itself not among them."""
    members = (await nodes.page_json(member, "/api/v1/members"))["members"]
    return {each["node_id"] for each in members if each["state"] == "alive"} - {member.id}


async def local_status(member: Member, target: str, host: str = "127.0.0.1", **headers: str) -> int:
    """Ask a node's registry port from its own host, as its containerd does."""
    client = HttpClient(member.network, ClientOptions())
    try:
        async with client.request(Address(host, REGISTRY_PORT), "GET", target, headers) as response:
            await response.read(1 << 20)
            return response.status
    finally:
        await client.aclose()


async def test_with_one_key_all_serve_one_another(autojump_clock: MockClock) -> None:
    """With the same key everywhere all know one another, and what one holds all serve, byte for byte."""
    async with keyed((OLD,), (OLD,), (OLD,)) as nodes:
        for member in nodes.members:
            assert await known(nodes, member) == {each.id for each in nodes.members} - {member.id}
            await nodes.pulls(member, IMAGE)


async def test_agents_that_do_not_share_a_key_do_not_hear_one_another(autojump_clock: MockClock) -> None:
    """Two with a key, one with another, one without: two clusters of one beside a pair, for as long as they run."""
    async with keyed((OLD,), (OLD,), (OTHER,), ()) as nodes:
        first, second, *others = nodes.members
        await trio.sleep(60)
        assert await known(nodes, first) == {second.id}
        assert await known(nodes, second) == {first.id}
        for stranger in others:
            assert await known(nodes, stranger) == set()
            assert (await nodes.get(stranger, BLOB)).status == 404
        await nodes.pulls(second, IMAGE)


@pytest.mark.parametrize("keys", [(OTHER,), ()], ids=["another key", "no key"])
async def test_a_stranger_is_not_served(keys: tuple[bytes, ...], autojump_clock: MockClock) -> None:
    """Without the right key a node that knows the address is told 403, as a peer or a client; its own are served."""
    async with keyed((OLD,), keys) as nodes:
        first, stranger = nodes.members
        client = HttpClient(stranger.network, ClientOptions())
        for headers in ({}, {PEER_HEADER: stranger.id}, {PEER_HEADER: first.id}):
            for target in (BLOB, f"{BLOB}?ns=registry.example", "/v2/", "/"):
                async with client.request(Address(first.host, REGISTRY_PORT), "GET", target, headers) as response:
                    assert response.status == 403
        await client.aclose()
        assert await local_status(stranger, "/v2/") == 200
        for host in ("127.0.0.1", "::1", first.host):
            assert await local_status(first, f"{BLOB}?ns=registry.example", host) == 200


@pytest.mark.parametrize("setting", [{}, {"allowed_clients": "10.9.8.0/24"}], ids=["nobody", "others"])
async def test_clients_from_elsewhere_are_named_or_refused(setting: dict, autojump_clock: MockClock) -> None:
    """With a key the registry port is for this node's own containerd, unless the client's network is allowed."""
    async with cluster() as nodes:
        closed = await add(nodes, OLD, image=IMAGE, **{"allowed_clients": "", **setting})
        opened = await add(nodes, OLD)
        await nodes.ready()
        assert (await nodes.get(closed, BLOB)).status == 403
        assert (await nodes.get(opened, BLOB)).status == 200
        assert await local_status(closed, f"{BLOB}?ns=registry.example") == 200


class Clock:
    """A monotonic clock that is `ahead_s` of the others and runs at its own rate."""

    def __init__(self, ahead_s: float, rate: float = 1.0) -> None:
        self.ahead_s = ahead_s
        self.rate = rate

    def __call__(self) -> int:
        return int((trio.current_time() * self.rate + self.ahead_s) * 1000)


async def test_clocks_need_not_agree(autojump_clock: MockClock) -> None:
    """Nodes that were started hours apart, one whose clock runs a hundredth faster, serve one another all the same."""
    async with cluster() as nodes:
        for number, clock in enumerate((Clock(0.0), Clock(3600.0), Clock(1e6, rate=1.01))):
            await add(nodes, OLD, clock_ms=clock, image=None if number else IMAGE)
        await nodes.ready()
        for _ in range(3):
            for member in nodes.members:
                await nodes.pulls(member, IMAGE)
            await trio.sleep(600)
        for member in nodes.members:
            assert b'denied_total{reason="stale"} 0.0' in (await nodes.page(member, "/metrics")).body


@pytest.mark.parametrize("jump_s", [-300.0, 300.0])
async def test_a_clock_that_stood_still_is_asked_again(jump_s: float, autojump_clock: MockClock) -> None:
    """A machine that was suspended is behind what the others think that its clock says: seconds later all is well."""
    async with cluster() as nodes:
        clock = Clock(1000.0)
        await add(nodes, OLD, clock_ms=clock, image=IMAGE)
        await add(nodes, OLD)
        await nodes.ready()
        clock.ahead_s += jump_s
        await trio.sleep(5)
        for member in nodes.members:
            await nodes.pulls(member, IMAGE)


STEPS = ((OLD, NEW), (NEW, OLD), (NEW,))


async def test_a_key_is_changed_without_a_failed_pull(autojump_clock: MockClock) -> None:
    """Old; old and new; new and old; new: node after node, with a pull by every node after each single change."""
    async with keyed((OLD,), (OLD,), (OLD,)) as nodes:
        for step in STEPS:
            for changed in nodes.members:
                changed.files.put(KEY_FILE, b"\n".join(step))
                for wait_s in (0.0, SETTLED_S):
                    await trio.sleep(wait_s)
                    for member in nodes.members:
                        await nodes.pulls(member, IMAGE)
        for member in nodes.members:
            assert await known(nodes, member) == {each.id for each in nodes.members} - {member.id}


async def test_after_a_change_the_old_key_is_worth_nothing(autojump_clock: MockClock) -> None:
    """A node that still has only the old key is no member any more, and a newcomer with it does not become one."""
    async with keyed((OLD,), (OLD,), (OLD,)) as nodes:
        first, second, late = nodes.members
        for step in STEPS:
            for changed in (first, second):
                changed.files.put(KEY_FILE, b"\n".join(step))
            await trio.sleep(SETTLED_S)
        newcomer = await add(nodes, OLD)
        await trio.sleep(60)
        assert await known(nodes, first) == {second.id}
        for outside in (late, newcomer):
            assert not await known(nodes, outside) & {first.id, second.id}
            assert (await nodes.get(outside, BLOB)).status == 404
        await nodes.pulls(second, IMAGE)


async def test_a_broken_key_file_stops_no_pull(autojump_clock: MockClock) -> None:
    """A key file that is emptied or removed under running agents changes nothing for them."""
    async with keyed((OLD,), (OLD,)) as nodes:
        first, second = nodes.members
        first.files.put(KEY_FILE, b"")
        second.files.remove(KEY_FILE)
        await trio.sleep(SETTLED_S)
        for member in nodes.members:
            await nodes.pulls(member, IMAGE)
            assert b'p2pmirror_node_peer_keys{state="refused"} 1.0' in (await nodes.page(member, "/metrics")).body


@pytest.mark.parametrize("content", [None, b"", b"short", b"a\nb\nc", b"\xff" * 40])
async def test_a_start_with_a_wrong_key_file_is_refused(content: bytes | None, autojump_clock: MockClock) -> None:
    """An agent that is told to use a key never runs without one: the start ends, naming setting and file."""
    async with cluster() as nodes:
        files = CountingFiles()
        if content is not None:
            files.put(KEY_FILE, content)
        member = nodes.make(files=files, peer_key_file=str(KEY_FILE))
        with pytest.raises(BadSetting, match=f"peer_key_file = '{KEY_FILE}'"):
            await member.node.run(member.stop)


async def test_without_a_key_the_agent_says_so(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    """One warning at the start of an agent that serves everybody; none from one that does not."""
    async with cluster() as nodes:
        await add(nodes, OLD)
        assert "no cluster key" not in caplog.text
        await add(nodes)
        assert caplog.text.count("no cluster key is set: every client") == 1
