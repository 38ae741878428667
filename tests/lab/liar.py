"""A peer that lies: it stands at a node's address before a real agent, whose routing stays as it is.

What it is asked it passes on to the agent; answers with blobs it changes on the way as `lie` says. The agent listens on
loopback only and tells the others the host's address (`settings`).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Self

from p2pmirror.resolve.small import SMALL_BYTES_MAX
from tests.lab.agent import REGISTRY_PORT
from tests.lab.network import Host, Reply

HEAD_BYTES_MAX: Final = 16 << 10
STEP_S: Final = 0.1
FLIGHTS: Final = "/p2p/v1/flights/"

Lie = Callable[[socket.socket, Reply], None]
"""Writes an answer in place of the agent's."""
Change = Callable[[str, Reply], Reply]
"""Returns what is answered to a target of `/p2p/v1/flights/` in place of what the agent says."""


def settings(host: Host) -> dict[str, str]:
    """Return what makes a host's agent leave its address to the liar."""
    return {"registry_addr": f"127.0.0.1:{REGISTRY_PORT}", "advertise_addr": host.address}


class Liar:
    """Listens at `host`'s address until closed; `asked` counts the GETs of blobs by their digest."""

    def __init__(self, host: Host, lie: Lie, change: Change = lambda _, reply: reply) -> None:
        self.lie = lie
        self.change = change
        self.asked: Counter[str] = Counter()
        self._host = host
        self._listener = host.make_socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host.address, REGISTRY_PORT))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
                part = client.recv(HEAD_BYTES_MAX)
                if not part:
                    return
                head += part
            method, target, headers = _parsed(head)
            reply = self._host.request(REGISTRY_PORT, target, method=method, headers=headers)
            if method == "GET" and "/blobs/" in target and reply.status < 300:
                self.asked[target.partition("/blobs/")[2].partition("?")[0]] += 1
                self.lie(client, reply)
            elif method == "GET" and target.startswith(FLIGHTS) and reply.status < 300:
                reply = self.change(target, reply)
                client.sendall(head_of(reply, length=len(reply.body)) + reply.body)
            else:
                client.sendall(head_of(reply) + reply.body)


def _parsed(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
    method, target, _ = first.split(" ")
    return method, target, dict(line.split(": ", 1) for line in lines)


def head_of(reply: Reply, *, length: int | None = None) -> bytes:
    """Write the head of an answer behind which the connection is closed; `length`: another than it has."""
    headers = {name: value for name, value in reply.headers.items() if name.lower() != "connection"}
    if length is not None:
        headers["Content-Length"] = str(length)
    lines = [
        f"HTTP/1.1 {reply.status} -",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


# --- lies ---


def honest(client: socket.socket, reply: Reply) -> None:
    """Pass on what the agent says."""
    client.sendall(head_of(reply) + reply.body)


def drips(client: socket.socket, reply: Reply) -> None:
    """Send a head, then 1 KiB a second."""
    client.sendall(head_of(reply))
    for offset in range(0, len(reply.body), 102):
        client.sendall(reply.body[offset : offset + 102])
        time.sleep(STEP_S)


def stalls(client: socket.socket, reply: Reply) -> None:
    """Send a third, then nothing, for as long as somebody waits."""
    client.sendall(head_of(reply) + reply.body[: len(reply.body) // 3])
    client.recv(1)


def closes_early(client: socket.socket, reply: Reply) -> None:
    """Send a third, then close."""
    client.sendall(head_of(reply) + reply.body[: len(reply.body) // 3])


def has_too_few(client: socket.socket, reply: Reply) -> None:
    """Announce and send less than there is."""
    body = reply.body[:-100_000]
    client.sendall(head_of(reply, length=len(body)) + body)


def has_too_many(client: socket.socket, reply: Reply) -> None:
    """Announce and send more than there is."""
    body = reply.body + bytes(100_000)
    client.sendall(head_of(reply, length=len(body)) + body)


def sends_on(client: socket.socket, reply: Reply) -> None:
    """Announce what there is, and send more."""
    client.sendall(head_of(reply) + reply.body + bytes(100_000))


def has_a_page(client: socket.socket, reply: Reply) -> None:
    """Answer 200 with what a proxy in trouble says."""
    page = b"<html><h1>502 Bad Gateway</h1></html>"
    client.sendall(head_of(Reply(200, {"Content-Type": "text/html"}, page), length=len(page)) + page)


def changes_a_layer(client: socket.socket, reply: Reply) -> None:
    """Change a byte of what is too large to be read whole before it is passed on."""
    (changes_a_byte if len(reply.body) > SMALL_BYTES_MAX else honest)(client, reply)


def changes_a_byte(client: socket.socket, reply: Reply) -> None:
    """Send the right head and the right number of bytes, one of which is wrong."""
    body = bytearray(reply.body)
    body[len(body) // 2] ^= 1
    client.sendall(head_of(reply) + body)
