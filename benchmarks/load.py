"""The client of all measurements: a process of its own that asks over keep-alive connections and times the answers.

Run as `python load.py JOB`, where JOB is a file with the fields of `Job` in JSON; prints one line of JSON. It needs
nothing but the standard library.

Laws:
- each connection asks again as soon as it has its answer, and never before (a closed loop);
- an answer that is not what was expected is counted as wrong, and makes no figure better;
- bodies that need no check are thrown away in the kernel (MSG_TRUNC, tcp(7)), so that the client costs little; both
  sides of a comparison are treated alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import resource
import select
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SLICE_BYTES = 1 << 20  # thrown away by one call
HEAD_BYTES = 64 << 10  # read by one call as long as a head is awaited
LOW_WATER_BYTES = 256 << 10  # of a large body: waking up for each packet would make this client the slowest part
HOLD_BUFFER_BYTES = 16 << 10  # receive buffer of a client that takes nothing
SILENCE_S = 20.0  # without any answer: the run is stuck, and ends

ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


@dataclass
class Job:
    """What to ask of whom. `count` answers or `seconds`, whichever is reached first, after `warm_up` answers.

    `digests`: check that each body has the sha256 at the end of its target. `hold`: ask once on every connection, take
    the first byte and nothing more, say so, and wait to be killed.
    """

    host: str
    port: int
    targets: list[str]
    method: str = "GET"
    status: int = 200
    connections: int = 1
    count: int = 1 << 62
    seconds: float = 3600.0
    warm_up: int = 0
    digests: bool = False
    hold: bool = False
    cores: list[int] = field(default_factory=list)


class Client:
    """One connection and the answer that it waits for."""

    __slots__ = ("asked", "body", "first", "head", "left", "low_water", "sock", "target")

    def __init__(self, job: Job) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if job.hold:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HOLD_BUFFER_BYTES)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect((job.host, job.port))
        self.sock.settimeout(0)
        self.target = ""
        self.head = b""
        self.body = b""
        self.left = -1  # bytes of the body still to come; -1: the head is awaited
        self.low_water = 1
        self.asked = self.first = 0.0

    def set_low_water(self) -> None:
        """Be woken for much at a time as long as much is to come (SO_RCVLOWAT, socket(7))."""
        low_water = LOW_WATER_BYTES if self.left >= 2 * LOW_WATER_BYTES else 1
        if low_water != self.low_water:
            self.low_water = low_water
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)


class Run:
    """All connections of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        host = f"{job.host}:{job.port}"
        self.questions = [
            f"{job.method} {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {ACCEPT}\r\n\r\n".encode()
            for target in job.targets
        ]
        self.turn = itertools.cycle(range(len(job.targets)))
        self.scrap = bytearray(SLICE_BYTES)
        self.answers = 0
        self.bytes = 0
        self.wrong = 0
        self.first_wrong = ""
        self.firsts: deque[float] = deque()
        self.wholes: deque[float] = deque()
        self.epoll = select.epoll()

    def run(self) -> dict[str, Any]:
        """Ask until enough has been answered."""
        job = self.job
        clients = {}
        for _ in range(job.connections):
            client = Client(job)
            clients[client.sock.fileno()] = client
            self.epoll.register(client.sock.fileno(), select.EPOLLIN)
        if job.hold:
            return self._hold(list(clients.values()))
        asked = job.warm_up
        while asked > 0:
            asked -= 1
            self._one(clients)
        self._forget()
        return self._timed(clients)

    def _one(self, clients: dict[int, Client]) -> None:
        """One answer on the first connection, not counted."""
        client = next(iter(clients.values()))
        self._ask(client)
        before = self.answers
        while self.answers == before:
            self._wait(clients)

    def _forget(self) -> None:
        self.answers = self.bytes = 0
        self.firsts.clear()
        self.wholes.clear()

    def _timed(self, clients: dict[int, Client]) -> dict[str, Any]:
        job = self.job
        cpu = time.process_time()
        began = time.perf_counter()
        deadline = began + job.seconds
        to_ask = job.count
        under_way = 0
        for client in clients.values():
            if to_ask > 0:
                self._ask(client)
                to_ask -= 1
                under_way += 1
        while under_way:
            for client in self._wait(clients):
                under_way -= 1
                if to_ask > 0 and time.perf_counter() < deadline:
                    self._ask(client)
                    to_ask -= 1
                    under_way += 1
        seconds = time.perf_counter() - began
        return {
            "answers": self.answers,
            "bytes": self.bytes,
            "seconds": seconds,
            "cpu_s": time.process_time() - cpu,
            "wrong": self.wrong,
            "first_wrong": self.first_wrong,
            "first_byte_ms": _quantiles(self.firsts),
            "whole_ms": _quantiles(self.wholes),
        }

    def _hold(self, clients: list[Client]) -> dict[str, Any]:
        for client in clients:
            self._ask(client)
        waiting = {client.sock.fileno() for client in clients}
        while waiting:
            events = self.epoll.poll(SILENCE_S)
            if not events:
                break
            for number, _ in events:
                self.epoll.unregister(number)
                waiting.discard(number)
        heads = [b"" if client.sock.fileno() in waiting else client.sock.recv(12) for client in clients]
        statuses = Counter(head[9:12].decode() or "nothing" for head in heads)
        held = {"held": statuses.pop(str(self.job.status), 0), "others": statuses}
        print(json.dumps(held), flush=True)
        time.sleep(3600)
        return held

    def _ask(self, client: Client) -> None:
        number = next(self.turn)
        client.target = self.job.targets[number]
        client.head = client.body = b""
        client.left = -1
        client.first = 0.0
        client.asked = time.perf_counter()
        client.sock.send(self.questions[number])

    def _wait(self, clients: dict[int, Client]) -> list[Client]:
        """Take in what has come; return the connections whose answer is complete."""
        done = []
        events = self.epoll.poll(SILENCE_S)
        if not events:
            raise SystemExit(f"no answer for {SILENCE_S:g} s to {self.job.method} {self.job.targets[0]}")
        for number, _ in events:
            client = clients[number]
            if self._take(client):
                done.append(client)
        return done

    def _take(self, client: Client) -> bool:
        if client.left < 0:
            data = client.sock.recv(HEAD_BYTES)
            if not client.first:
                client.first = time.perf_counter()
            if not data:
                raise SystemExit(f"closed before the head of {client.target} was complete: {client.head[:200]!r}")
            if not self._take_head(client, client.head + data):
                return False
        elif self.job.digests:
            data = client.sock.recv(min(client.left, SLICE_BYTES))
            if not data:
                raise SystemExit(f"cut {client.left} bytes short: {client.target}")
            client.body += data
            client.left -= len(data)
        else:
            with contextlib.suppress(BlockingIOError):
                while client.left:
                    count = client.sock.recv_into(self.scrap, min(client.left, SLICE_BYTES), socket.MSG_TRUNC)
                    if not count:
                        raise SystemExit(f"cut {client.left} bytes short: {client.target}")
                    client.left -= count
        client.set_low_water()
        if client.left:
            return False
        self._end(client)
        return True

    def _take_head(self, client: Client, data: bytes) -> bool:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            client.head = data
            return False
        client.head, client.body = data[:end], data[end + 4 :]
        found = _LENGTH.search(client.head)
        length = int(found[1]) if found is not None and self.job.method != "HEAD" else 0
        self.bytes += length
        client.left = length - len(client.body)
        return True

    def _end(self, client: Client) -> None:
        now = time.perf_counter()
        self.answers += 1
        self.firsts.append(client.first - client.asked)
        self.wholes.append(now - client.asked)
        if not self._is_right(client):
            self.wrong += 1
            self.first_wrong = self.first_wrong or f"{client.target}: {client.head[:120]!r}"

    def _is_right(self, client: Client) -> bool:
        if client.head[9:12] != b"%d" % self.job.status:
            return False
        return not self.job.digests or client.target.endswith(hashlib.sha256(client.body).hexdigest())


def _quantiles(seconds: deque[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    if not ordered:
        return {}
    return {
        "p50": ordered[len(ordered) // 2] * 1000,
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1000,
        "max": ordered[-1] * 1000,
    }


def main() -> None:
    """Do the job in the file that is named, print what came of it."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(Run(job).run()))


if __name__ == "__main__":
    main()
