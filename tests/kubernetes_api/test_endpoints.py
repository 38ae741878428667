"""What the API tells of a service's endpoints is read as its reference says, and as it is sent by odd controllers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from p2pmirror.errors import MirrorError
from p2pmirror.kubernetes import ApiRefused, Gone
from p2pmirror.kubernetes.objects import EndpointSlice, EndpointSlices, Event, NoObject, decode, refusal_of
from p2pmirror.routing.bootstrap.endpoints import SLICES_MAX, Endpoints, places_of
from tests.kubernetes_api.api import endpoint_object, slice_object, status_object


def read(**fields: Any) -> EndpointSlice:
    thing = slice_object("x", ["10.0.0.1"], "kube-system", "p2pmirror") | fields
    return decode(json.dumps(thing).encode(), EndpointSlice)


def places(**fields: Any) -> list[str]:
    return sorted("{}:{}".format(*place) for place in places_of(read(**fields)))


def event(kind: str, thing: Any) -> Event:
    return decode(json.dumps({"type": kind, "object": thing}).encode(), Event)


def change(kind: str, name: str, host: str, version: int = 7) -> Event:
    thing = slice_object(name, [host], "kube-system", "p2pmirror")
    thing["metadata"] |= {"resourceVersion": str(version)}
    return event(kind, thing)


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        ([{"name": "router", "port": 31000, "protocol": "UDP"}], 31000),
        ([{"name": "registry", "port": 5}, {"name": "router", "port": 7}], 7),
        ([{"name": "registry", "port": 5}], 29998),
        ([{"name": "router", "port": None}], 29998),
        ([{"name": "router"}], 29998),
        ([{"name": None, "port": 5}, {"port": 6}], 29998),
        ([], 29998),
        (None, 29998),
    ],
)
def test_the_port_of_a_slice(ports: Any, port: int) -> None:
    """The port that is called `router` counts, the usual one where there is none of that name or it has no number."""
    assert places(ports=ports) == [f"10.0.0.1:{port}"]


def test_a_port_that_is_none_names_nobody() -> None:
    """A number that is no port cannot be sent to."""
    assert places(ports=[{"name": "router", "port": 70000}]) == []
    assert places(ports=[{"name": "router", "port": -1}]) == []


@pytest.mark.parametrize(
    ("endpoints", "found"),
    [
        (None, []),
        ([], []),
        ([{}], []),
        ([{"addresses": None, "conditions": None}], []),
        ([{"addresses": ["10.0.0.2", "10.0.0.3"]}], ["10.0.0.2:29998", "10.0.0.3:29998"]),
        ([{"addresses": ["fd00::0:1"], "conditions": {}}], ["fd00::1:29998"]),
        ([{"addresses": ["node-1.example"], "conditions": {"terminating": None}}], ["node-1.example:29998"]),
        ([endpoint_object("10.0.0.2"), endpoint_object("10.0.0.3", ready=True)], ["10.0.0.2:29998", "10.0.0.3:29998"]),
        ([endpoint_object("10.0.0.2", terminating=True)], []),
        ([{"addresses": ["", "0.0.0.0", "::", "a b", "x/y", "10.0.0.2"]}], ["10.0.0.2:29998"]),
    ],
)
def test_the_endpoints_of_a_slice(endpoints: Any, found: list[str]) -> None:
    """Ready or not, every address counts, in one spelling, but not of who leaves, nor what cannot be sent to."""
    assert places(endpoints=endpoints) == found


def test_lists_that_go_writes_as_null() -> None:
    """A list without items, as Go writes it, is an empty list."""
    assert decode(b'{"metadata": {"resourceVersion": "5"}, "items": null}', EndpointSlices).items is None


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"metadata": {}, "items": [5]}', b"\xff", b"[" * 100_000, b"9" * 9999]
)
def test_what_is_no_list(data: bytes) -> None:
    """Anything else is refused in one short line."""
    with pytest.raises(NoObject, match="what came is no EndpointSlices: ") as caught:
        decode(data, EndpointSlices)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_changes_one_after_the_other() -> None:
    """A slice comes, changes and goes; the version is that of the last change; an unknown kind changes nothing."""
    known = Endpoints()
    known.replace("5", {"x": places_of(read())})
    assert (known.version, [place[0] for place in known.places]) == ("5", ["10.0.0.1"])
    known.take(change("ADDED", "y", "10.0.0.2", 6))
    assert {place[0] for place in known.places} == {"10.0.0.1", "10.0.0.2"}
    known.take(change("MODIFIED", "x", "10.0.0.3", 7))
    known.take(change("DELETED", "y", "10.0.0.2", 8))
    known.take(change("DELETED", "never", "10.0.0.9", 9))
    assert (known.version, [place[0] for place in known.places]) == ("9", ["10.0.0.3"])
    known.take(event("BOOKMARK", {"metadata": {"resourceVersion": "20"}}))
    known.take(event("HELLO", {"anything": True}))
    assert (known.version, [place[0] for place in known.places]) == ("20", ["10.0.0.3"])
    known.replace("30", {})
    assert (known.version, known.places) == ("30", frozenset())


@pytest.mark.parametrize("kind", ["ADDED", "DELETED", "BOOKMARK", "ERROR"])
@pytest.mark.parametrize(
    "thing", [None, 5, [], "x", {"metadata": 5}, {"metadata": {"resourceVersion": 5}, "code": "x"}]
)
def test_objects_that_are_none(kind: str, thing: Any) -> None:
    """An event whose object is not what its kind has is refused, and nothing of it counts."""
    known = Endpoints()
    known.replace("5", {"x": places_of(read())})
    with pytest.raises(MirrorError):
        known.take(event(kind, thing))
    assert (known.version, len(known.places)) == ("5", 1)


def test_errors_of_a_watch() -> None:
    """410 is Gone, anything else a refusal with its code; neither changes what is known."""
    known = Endpoints()
    known.replace("5", {"x": places_of(read())})
    with pytest.raises(Gone, match="the API answered 410: too old"):
        known.take(event("ERROR", status_object(410, "Expired", "too old")))
    with pytest.raises(ApiRefused, match=r"the API answered 500: \?\[2J") as caught:
        known.take(event("ERROR", status_object(500, "InternalError", "\x1b[2J")))
    assert not isinstance(caught.value, Gone)
    with pytest.raises(ApiRefused, match=r"^the API answered with an error$"):
        known.take(event("ERROR", {}))
    assert (known.version, len(known.places)) == ("5", 1)


def test_refusals_of_whoever_stands_in_front() -> None:
    """A body that is no status says nothing, a time that is no number of seconds is none; the code counts anyhow."""
    refused = refusal_of(503, {"retry-after": "5"}, b'{"message": "later"}')
    assert (str(refused), refused.status, refused.retry_s) == ("the API answered 503: later", 503, 5.0)
    refused = refusal_of(502, {"retry-after": "soon"}, b"<html>")
    assert (str(refused), refused.retry_s) == ("the API answered 502", 0.0)
    assert isinstance(refusal_of(410, {}, b""), Gone)


def test_a_watch_cannot_fill_the_memory() -> None:
    """Slices beyond those of any cluster are passed over; known ones still change and go."""
    known = Endpoints()
    known.replace("5", {f"part-{number}": frozenset() for number in range(SLICES_MAX)})
    known.take(change("ADDED", "one-more", "10.0.0.2", 6))
    assert (known.version, known.places) == ("6", frozenset())
    known.take(change("MODIFIED", "part-7", "10.0.0.3"))
    assert len(known.places) == 1
    known.take(change("DELETED", "part-7", "10.0.0.3"))
    known.take(change("ADDED", "one-more", "10.0.0.2"))
    assert len(known.places) == 1
