"""Readers that stall, leave, come by the thousand or never finish their question: others are served all the same."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import pytest
import trio

from p2pmirror.oci import Digest
from tests.lab.agent import REGISTRY_PORT
from tests.lab.crew import REGISTRY, Crew, Mate
from tests.lab.process import wait_until
from tests.store.images import Image

pytestmark = pytest.mark.lab

KIB, MIB = 1024, 1024 * 1024
SLOW_HEADS = 200
STALLED = 50
READERS = 1_000
SERVED_S = 5.0  # what takes 20 ms on a machine with nothing else to do
ALL_S = 60.0  # 256 MiB to a thousand readers in Python, on a machine that is busy
ENDED_S = 20.0  # a head may take 10 s


@pytest.fixture(scope="module")
def crew(lab_run: object) -> Iterator[Crew]:
    """Give one that holds images and one that relays them."""
    with Crew(2) as crew:
        yield crew.start()


@pytest.fixture(scope="module")
def image(crew: Crew) -> Image:
    """Give an image with a small and a large layer, known to both."""
    image = crew.image(256 * KIB, 64 * MIB)
    holder = crew.mates[0]
    holder.put(image)
    for mate in crew.mates:
        for layer in image.layers:
            mate.wait_known(layer, holder)
    wait_until(lambda: holder.agent.readiness() == "", "the large layer is verified")
    return image


@pytest.mark.parametrize("which", [0, 1], ids=["held", "relayed"])
def test_readers_that_stall_or_never_finish_their_question(crew: Crew, image: Image, which: int) -> None:
    """With 200 half heads and 50 clients that read nothing of a large layer, another client is served as usual."""
    mate = crew.mates[which]
    small, large = image.layers
    with ExitStack() as closing:
        for _ in range(SLOW_HEADS):
            sock = closing.enter_context(mate.host.connect(REGISTRY_PORT))
            sock.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        for _ in range(STALLED):
            sock = closing.enter_context(mate.host.connect(REGISTRY_PORT))
            sock.sendall(_question(large))
        wait_until(lambda: mate.agent.metric("front_in_flight_requests") >= STALLED, "all of them are being served")
        for _ in range(3):
            got = mate.get(small)
            assert (got.status, got.body == image.content[small][0]) == (200, True)
            assert got.seconds < SERVED_S
        assert mate.agent.readiness() == ""
    wait_until(lambda: mate.agent.metric("front_in_flight_requests") == 0, "all have been let go", timeout_s=ENDED_S)


@pytest.mark.parametrize("which", [0, 1], ids=["held", "relayed"])
def test_a_reader_that_leaves_frees_what_it_had(crew: Crew, image: Image, which: int) -> None:
    """Clients that go away in the middle of a large layer leave no request, no transfer and no descriptor behind."""
    mate = crew.mates[which]
    small, large = image.layers
    mate.get(small)
    before = _descriptors(mate)
    with ExitStack() as closing:
        for _ in range(STALLED):
            sock = closing.enter_context(mate.host.connect(REGISTRY_PORT))
            sock.sendall(_question(large))
            assert sock.recv(100_000)
    wait_until(lambda: mate.agent.metric("front_in_flight_requests") == 0, "all have been let go", timeout_s=ENDED_S)
    assert mate.agent.status()["transfers"] == []
    wait_until(lambda: _descriptors(mate) <= before + 10, "descriptors are closed", timeout_s=ENDED_S)


async def test_a_thousand_readers_at_once(crew: Crew, image: Image) -> None:
    """Each of them gets every byte, and whoever asks meanwhile is answered."""
    holder = crew.mates[0]
    small = image.layers[0]
    ends: list[bool] = []
    socks = await trio.to_thread.run_sync(lambda: [holder.host.connect(REGISTRY_PORT) for _ in range(READERS)])
    with trio.fail_after(ALL_S):
        async with trio.open_nursery() as nursery:
            for sock in socks:
                nursery.start_soon(_read, sock, small, len(image.content[small][0]), ends)
            while len(ends) < READERS:
                got = await trio.to_thread.run_sync(holder.get, small)
                assert (got.status, got.seconds < 2 * SERVED_S) == (200, True)
                await trio.sleep(0.2)
    assert ends == [True] * READERS


async def _read(plain: socket.socket, digest: Digest, size: int, ends: list[bool]) -> None:
    """Read one answer, in parts whose size is drawn, and tell whether it was right."""
    chance, hasher, head, count = Random(len(ends)), hashlib.sha256(), b"", 0
    plain.setblocking(False)
    with trio.socket.from_stdlib_socket(plain) as sock:
        await sock.send(_question(digest))
        while b"\r\n\r\n" not in head:
            part = await sock.recv(4 * KIB)
            assert part
            head += part
        body = head.partition(b"\r\n\r\n")[2]
        hasher.update(body)
        count += len(body)
        while count < size and (body := await sock.recv(chance.randrange(1, 64 * KIB))):
            hasher.update(body)
            count += len(body)
    ends.append(f"sha256:{hasher.hexdigest()}" == str(digest))


def _question(digest: Digest) -> bytes:
    return f"GET /v2/app/blobs/{digest}?ns={REGISTRY} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def _descriptors(mate: Mate) -> int:
    """Return how many descriptors its agent has open, the connection that asks among them."""
    text = mate.agent.get("/metrics").body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith("process_open_fds ")]
    return int(float(line.split()[1]))
