"""An HTTPS server that answers about EndpointSlices and DaemonSets as the Kubernetes API does, and as it fails.

It speaks HTTP/1.1 by h11, holds objects with versions and a history that can be forgotten, lists them in pages, and
tells watches of changes, a JSON object a line, in chunks. What a test wants otherwise it says by `fault`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.network import Listener
from tests.kubernetes_api.certificates import Certificate
from tests.registries.tls import TlsListener, TlsStream

Object = dict[str, Any]
TOKEN = "first.token.of-the-account"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
DAEMON_SETS = "/apis/apps/v1/namespaces/{}/daemonsets/{}"
RECEIVE_BYTES = 64 << 10


class Exchange:
    """One question, and the ways in which it can be answered."""

    def __init__(self, stream: TlsStream, parser: h11.Connection, request: h11.Request) -> None:
        self.stream = stream
        self._parser = parser
        self.target = request.target.decode()
        parts = urlsplit(self.target)
        self.path = parts.path
        self.query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.headers = {key.decode(): value.decode() for key, value in request.headers}

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") in {"1", "true"}

    async def answer(self, status: int, body: Object | bytes, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.begin(status, Content_Length=str(len(data)), **headers)
        await self.send(data)
        await self._say(h11.EndOfMessage())

    async def refuse(self, code: int, reason: str, message: str, **headers: str) -> None:
        await self.answer(code, status_object(code, reason, message), **headers)

    async def begin(self, status: int, **headers: str) -> None:
        fields = [("Content-Type", "application/json")]
        fields += [(key.replace("_", "-"), value) for key, value in headers.items()]
        await self._say(h11.Response(status_code=status, headers=fields))

    async def send(self, data: bytes) -> None:
        await self._say(h11.Data(data=data))

    async def tell(self, kind: str, thing: Object) -> None:
        """Send one event of a watch."""
        await self.send(json.dumps({"type": kind, "object": thing}).encode() + b"\n")

    async def end(self) -> None:
        await self._say(h11.EndOfMessage())

    async def _say(self, event: Any) -> None:
        if data := self._parser.send(event):
            await self.stream.send_all(data)


Fault = Callable[[Exchange], Awaitable[None]]


class Api:
    """The state of a cluster, as far as anybody asks for it, and who has asked."""

    def __init__(self, certificate: Certificate, *, namespace: str = "kube-system") -> None:
        self.namespace = namespace
        self.tokens = {TOKEN}
        self.may = {"list", "watch", "get"}
        self.daemon_sets: dict[str, Object] = {}
        self.asked: list[Exchange] = []
        self.connections = 0
        """Open ones."""
        self.accepted = 0
        self.faults: list[Fault] = []
        """What the next questions meet, one each, in place of an answer."""
        self.certificate = certificate
        self._slices: dict[str, Object] = {}
        self._version = 1000
        self._oldest = 1000
        self._history: list[tuple[int, str, Object]] = []
        self._snapshots: dict[int, list[Object]] = {}
        self._news = trio.Event()
        self._watches: list[trio.CancelScope] = []

    # --- what a test does to the cluster ---

    def put(self, name: str, hosts: list[str], *, service: str = "p2pmirror", **more: Any) -> None:
        """Make or change an EndpointSlice; `more` are its fields."""
        kind = "MODIFIED" if name in self._slices else "ADDED"
        self._change(kind, slice_object(name, hosts, self.namespace, service) | more)

    def remove(self, name: str) -> None:
        self._change("DELETED", self._slices[name])

    def forget_history(self) -> None:
        """Know no version but the present one any more, as an API does after five minutes."""
        self._oldest = self._version
        self._history.clear()
        self._snapshots.clear()

    def bookmark(self) -> None:
        """Tell every watch the present version, which other objects have moved on."""
        self._version += 1
        bookmark = {"kind": "EndpointSlice", "metadata": {"resourceVersion": str(self._version)}}
        self._history.append((self._version, "BOOKMARK", bookmark))
        self._wake()

    def break_watches(self) -> None:
        """Close all connections on which somebody watches, in the middle of what they may be saying."""
        for scope in self._watches:
            scope.cancel()

    def watches(self) -> int:
        """Return how many watch."""
        return len(self._watches)

    def lists(self) -> list[Exchange]:
        return [each for each in self.asked if not each.is_watch]

    def watched(self) -> list[Exchange]:
        return [each for each in self.asked if each.is_watch]

    def _change(self, kind: str, thing: Object) -> None:
        self._version += 1
        metadata = thing["metadata"] | {"resourceVersion": str(self._version)}
        thing = thing | {"metadata": metadata}
        if kind == "DELETED":
            del self._slices[metadata["name"]]
        else:
            self._slices[metadata["name"]] = thing
        self._history.append((self._version, kind, thing))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- the server ---

    async def serve(self, listener: Listener) -> None:
        """Answer until cancelled."""
        tls = TlsListener(listener, self.certificate.serving)
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._connection, await tls.accept())

    async def _connection(self, stream: TlsStream) -> None:
        self.connections += 1
        self.accepted += 1
        parser = h11.Connection(h11.SERVER)
        try:
            while (request := await self._request(stream, parser)) is not None:
                exchange = Exchange(stream, parser, request)
                self.asked.append(exchange)
                await self._answer(exchange)
                if parser.our_state is not h11.DONE or parser.their_state is not h11.DONE:
                    return
                parser.start_next_cycle()
        except (Unreachable, h11.ProtocolError):
            pass  # the client has left
        finally:
            self.connections -= 1
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.aclose()

    async def _request(self, stream: TlsStream, parser: h11.Connection) -> h11.Request | None:
        request = None
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await stream.receive_some(RECEIVE_BYTES))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                return request
            elif isinstance(event, h11.ConnectionClosed):
                return None

    async def _answer(self, exchange: Exchange) -> None:
        if self.faults:
            await self.faults.pop(0)(exchange)
        else:
            await self.answer_well(exchange)

    async def answer_well(self, exchange: Exchange) -> None:
        """Answer as the API does."""
        if exchange.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            await exchange.refuse(401, "Unauthorized", "Unauthorized")
        elif exchange.path == SLICES.format(self.namespace):
            await self._endpoint_slices(exchange)
        elif (found := self.daemon_sets.get(exchange.path)) is not None:
            await self._allowed(exchange, "get", "daemonsets", found)
        else:
            await exchange.refuse(404, "NotFound", "the server could not find the requested resource")

    async def _allowed(self, exchange: Exchange, verb: str, what: str, body: Object) -> None:
        if verb in self.may:
            await exchange.answer(200, body)
            return
        group = "apps" if what == "daemonsets" else "discovery.k8s.io"
        message = (
            f'{what}.{group} is forbidden: User "system:serviceaccount:{self.namespace}:default" cannot {verb} resource'
            f' "{what}" in API group "{group}" in the namespace "{self.namespace}"'
        )
        await exchange.refuse(403, "Forbidden", message)

    async def _endpoint_slices(self, exchange: Exchange) -> None:
        if not exchange.is_watch:
            if "continue" in exchange.query and _continued(exchange)[0] < self._oldest:
                await exchange.refuse(410, "Expired", "The provided continue parameter is too old")
            else:
                await self._allowed(exchange, "list", "endpointslices", self._page(exchange))
        elif "watch" not in self.may:
            await self._allowed(exchange, "watch", "endpointslices", {})
        else:
            await self._watch(exchange)

    def _page(self, exchange: Exchange) -> Object:
        """Return a page of a list, which is of one version whatever has changed since its first page."""
        version, start = _continued(exchange) if "continue" in exchange.query else (self._version, 0)
        chosen = [each for each in self._slices.values() if _matches(each, exchange)]
        listed = self._snapshots.setdefault(version, chosen)
        end = start + int(exchange.query.get("limit", len(listed)) or len(listed))
        metadata: Object = {"resourceVersion": str(version)}
        if end < len(listed):
            metadata["continue"] = base64.b64encode(json.dumps([version, end]).encode()).decode()
            metadata["remainingItemCount"] = len(listed) - end
        items = listed[start:end]
        return {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata, "items": items}

    async def _watch(self, exchange: Exchange) -> None:
        version = int(exchange.query["resourceVersion"])
        await exchange.begin(200, Transfer_Encoding="chunked")
        if version < self._oldest:
            message = f"too old resource version: {version} ({self._oldest})"
            await exchange.tell("ERROR", status_object(410, "Expired", message))
            await exchange.end()
            return
        with trio.move_on_after(float(exchange.query["timeoutSeconds"])) as ending, trio.CancelScope() as breaking:
            self._watches.append(breaking)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_notice_leaving, exchange, breaking)
                    await self._tell_changes(exchange, version)
            finally:
                self._watches.remove(breaking)
        if ending.cancelled_caught:
            await exchange.end()

    async def _tell_changes(self, exchange: Exchange, version: int) -> None:
        while True:
            news = self._news
            for number, kind, thing in [each for each in self._history if each[0] > version]:
                version = number
                if _matches(thing, exchange) or (kind == "BOOKMARK" and "allowWatchBookmarks" in exchange.query):
                    await exchange.tell(kind, thing)
            await news.wait()


async def _notice_leaving(exchange: Exchange, scope: trio.CancelScope) -> None:
    with suppress(Unreachable):
        await exchange.stream.receive_some(RECEIVE_BYTES)
    scope.cancel()


def _continued(exchange: Exchange) -> tuple[int, int]:
    version, start = json.loads(base64.b64decode(exchange.query["continue"]))
    return version, start


def _matches(thing: Object, exchange: Exchange) -> bool:
    key, _, value = exchange.query.get("labelSelector", "").partition("=")
    return thing["metadata"].get("labels", {}).get(key) == value


def status_object(code: int, reason: str, message: str) -> Object:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return status | {"message": message, "reason": reason, "code": code}


def slice_object(name: str, hosts: list[str], namespace: str, service: str) -> Object:
    """Return an EndpointSlice as the controller makes it for a headless service, with what we do not read."""
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": name,
            "generateName": f"{service}-",
            "namespace": namespace,
            "uid": "0c1b2f5e-6f43-4d3b-9a53-3a0f4f1f6f5e",
            "generation": 3,
            "creationTimestamp": "2026-11-01T10:00:00Z",
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": service,
                "service.kubernetes.io/headless": "",
            },
        },
        "addressType": "IPv6" if any(":" in host for host in hosts) else "IPv4",
        "endpoints": [endpoint_object(host) for host in hosts],
        "ports": [
            {"name": "registry", "protocol": "TCP", "port": 29999},
            {"name": "router", "protocol": "UDP", "port": 29998},
        ],
    }


def endpoint_object(host: str, *, ready: bool = False, terminating: bool = False) -> Object:
    return {
        "addresses": [host],
        "conditions": {"ready": ready, "serving": ready, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": "kube-system", "name": "p2pmirror-x7k2p", "uid": "8a0e1d1c"},
        "nodeName": f"node-{host}",
        "zone": "eu-central-1a",
    }


def daemon_set_object(name: str, *, ready: int, desired: int, generation: int = 1, observed: int = 1) -> Object:
    return {
        "kind": "DaemonSet",
        "apiVersion": "apps/v1",
        "metadata": {"name": name, "namespace": "kube-system", "generation": generation, "resourceVersion": "5"},
        "spec": {"selector": {"matchLabels": {"app": name}}},
        "status": {
            "currentNumberScheduled": desired,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": desired,
            "numberReady": ready,
            "observedGeneration": observed,
        },
    }
