"""A UDP port of all addresses answers from the one that was asked."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.udp import WAYS_MAX, UdpDatagrams, open_datagrams
from tests.wire.datagrams import inbox

ROOT = Path(__file__).parents[2]
FIRST, SECOND = "fd00::1", "fd00::2"  # of the namespace's loopback interface
LIMIT_S = 30.0


async def answer_to(asker: UdpDatagrams, answerer: UdpDatagrams, host: str) -> Address:
    """Ask a port at one of its addresses; return where the answer comes from."""
    async with inbox(asker) as answers, trio.open_nursery() as nursery:
        nursery.start_soon(answerer.deliver, answerer.send)
        asker.send(b"question", Address.of(host, answerer.address.port))
        with trio.fail_after(5):
            data, source = await answers.receive()
        nursery.cancel_scope.cancel()
    assert data == b"question"
    return source


@pytest.mark.parametrize("anywhere", ["0.0.0.0", "::"])
async def test_answers_leave_from_the_address_that_was_asked(anywhere: str) -> None:
    """One asker gets its answers from each address of the host that it asks, in any order."""
    asker, answerer = [await open_datagrams(Address.of(host, 0)) for host in ("127.0.0.1", anywhere)]
    for host in ("127.0.0.7", "127.0.0.1", "127.0.0.8", "127.0.0.7"):
        assert await answer_to(asker, answerer, host) == Address(host, answerer.address.port)
    for port in (asker, answerer):
        await port.aclose()


async def test_as_many_ways_are_remembered_as_a_large_cluster_has() -> None:
    """However many addresses are heard, what is remembered of them is bounded."""
    answerer = await open_datagrams(Address.of("0.0.0.0", 0))
    for number in range(WAYS_MAX):
        answerer._ways[Address("10.0.0.1", number)] = (0, 0, b"")
    asker = await open_datagrams(Address.of("127.0.0.1", 0))
    await answer_to(asker, answerer, "127.0.0.7")
    assert len(answerer._ways) == WAYS_MAX
    assert asker.address in answerer._ways
    for port in (asker, answerer):
        await port.aclose()


@pytest.mark.lab
def test_ipv6_and_an_address_that_is_taken_away() -> None:
    """So it is with IPv6; and when the host loses the address, what is sent leaves from another one."""
    addresses = " && ".join(f"ip address add {host}/128 dev lo" for host in (FIRST, SECOND))
    story = f"exec {sys.executable} -c 'import trio, {__name__} as story; trio.run(story.lose_an_address)'"
    command = ["unshare", "--net", "sh", "-c", f"ip link set lo up && {addresses} && {story}"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stdout) == (0, f"{SECOND} {FIRST}\n"), done.stderr


async def lose_an_address() -> None:
    """Write where the second address answers from, and, once it is gone, where the same port sends from."""
    asker, answerer = [await open_datagrams(Address.of(host, 0)) for host in (FIRST, "::")]
    asked = await answer_to(asker, answerer, SECOND)
    await trio.run_process(["ip", "address", "delete", f"{SECOND}/128", "dev", "lo"])
    async with inbox(asker) as received:
        answerer.send(b"more", asker.address)
        with trio.fail_after(5):
            _, source = await received.receive()
    sys.stdout.write(f"{asked.host} {source.host}\n")
