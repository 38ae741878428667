"""A proxy in front of a registry that passes questions on, or answers as it is told; it says what it was asked.

One question a connection: whatever it does to a connection concerns that question alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import Listener, Network, Stream

LOOPBACK = Address("127.0.0.1", 0)


@dataclass(frozen=True)
class Asked:
    """A question's head; names of headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass
class Passed:
    """What the registry behind answered."""

    status: int
    headers: dict[str, str]
    body: bytes


Fault = Callable[["Exchange"], Awaitable[None]]
"""Answers one question in its own way."""


@dataclass
class Exchange:
    """One question, and the ways to answer it."""

    asked: Asked
    stream: Stream
    proxy: FaultProxy

    async def send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Answer with a head of our own and these bytes; Content-Length is added unless it or chunks are there."""
        headers = dict(headers or {})
        if not {"Content-Length", "Transfer-Encoding"} & headers.keys():
            headers["Content-Length"] = str(len(body))
        lines = [
            f"HTTP/1.1 {status} Word",
            "Connection: close",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        await self.stream.send_all(head if self.asked.method == "HEAD" else head + body)

    async def passed(self, **changed: str) -> Passed:
        """Return what the registry behind answers to this question, with these headers changed (`range="…"`)."""
        headers = self.asked.headers | changed
        return await _ask(self.proxy.network, self.proxy.behind, Asked(self.asked.method, self.asked.target, headers))

    async def pass_on(self) -> None:
        """Answer as the registry behind does."""
        answer = await self.passed()
        kept = {
            name: value for name, value in answer.headers.items() if name not in {"connection", "transfer-encoding"}
        }
        if "content-length" in kept:
            kept["Content-Length"] = kept.pop("content-length")
        await self.send(answer.status, kept, answer.body)


@dataclass
class FaultProxy:
    """Passes questions on to `behind`; `faults` are pairs of a part of "METHOD target" and what to do once or always.

    The first that fits answers; `times` of it go down, and at 0 it is gone.
    """

    network: Network
    behind: Address
    asked: list[Asked] = field(default_factory=list)
    faults: list[_Rule] = field(default_factory=list)
    address: Address = field(default=LOOPBACK)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def on(self, part: str, fault: Fault, *, times: int | None = None) -> None:
        """Answer questions whose "METHOD target" has `part` in this way from now on, or for so many times."""
        self.faults.append(_Rule(part, fault, times))

    def clear(self) -> None:
        """Pass everything on again."""
        self.faults.clear()

    def told(self, name: str) -> list[str]:
        """Return what the questions had as this header, where they had it."""
        return [each.headers[name] for each in self.asked if name in each.headers]

    def count(self, part: str) -> int:
        """Return how many questions had `part` in "METHOD target"."""
        return sum(part in f"{each.method} {each.target}" for each in self.asked)

    async def run(self, listen: Address, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listener: Listener = await self.network.listen(listen)
        self.address = Address(listen.host, listener.address.port)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    nursery.start_soon(self._serve, await listener.accept())
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await listener.aclose()

    async def _serve(self, stream: Stream) -> None:
        try:
            head, _ = await _read_head(stream)
            method, target, _ = head[0].split(" ", 2)
            exchange = Exchange(Asked(method, target, _headers(head[1:])), stream, self)
            self.asked.append(exchange.asked)
            await self._fault_for(exchange.asked)(exchange)
        except (Unreachable, ValueError):
            pass  # whoever asked has left
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                await stream.aclose()

    def _fault_for(self, asked: Asked) -> Fault:
        for rule in self.faults:
            if rule.part in f"{asked.method} {asked.target}" and rule.times != 0:
                rule.times = None if rule.times is None else rule.times - 1
                return rule.fault
        return Exchange.pass_on


@dataclass
class _Rule:
    part: str
    fault: Fault
    times: int | None


def answer(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Fault:
    """Return what answers with this and no more."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send(status, headers, body)

    return fault


def redirect(url: str, status: int = 307) -> Fault:
    """Return what sends the question on to `url`, where {target} stands for its own target."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send(status, {"Location": url.replace("{target}", exchange.asked.target)})

    return fault


def cut(after: int) -> Fault:
    """Return what passes a body on and breaks off after so many bytes of it."""

    async def fault(exchange: Exchange) -> None:
        passed = await exchange.passed()
        headers = {
            name.title(): value
            for name, value in passed.headers.items()
            if name in {"content-length", "content-range", "etag", "content-type"}
        }
        await exchange.send(passed.status, headers, passed.body[:after])

    return fault


async def silence(exchange: Exchange) -> None:
    """Answer nothing until whoever asks has left."""
    while await exchange.stream.receive_some(1024):
        pass


async def hang_up(exchange: Exchange) -> None:
    """Close without an answer."""


async def _ask(network: Network, address: Address, asked: Asked) -> Passed:
    stream = await network.connect(address)
    try:
        kept = {name: value for name, value in asked.headers.items() if name not in {"connection", "host"}}
        lines = [f"{asked.method} {asked.target} HTTP/1.1", f"host: {address}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in kept.items()]
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        head, rest = await _read_head(stream)
        while part := await stream.receive_some(1 << 16):
            rest += part
    finally:
        stream.abort()
    headers = _headers(head[1:])
    if headers.get("transfer-encoding") == "chunked":
        rest = _unchunked(rest)
    return Passed(int(head[0].split(" ")[1]), headers, rest)


async def _read_head(stream: Stream) -> tuple[list[str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some(1 << 16)
        if not part:
            raise Unreachable("no head came")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), rest


def _headers(lines: list[str]) -> dict[str, str]:
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _unchunked(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        whole, data = whole + data[:length], data[length + 2 :]
    return whole
