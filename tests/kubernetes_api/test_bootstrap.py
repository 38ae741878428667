"""A node finds others by a headless service's endpoints, whatever the API that tells of them does meanwhile."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from typing import Any

import pytest
import trio

from p2pmirror.kubernetes.slices import PAGES_MAX
from p2pmirror.routing.bootstrap import parse
from p2pmirror.routing.bootstrap.kubernetes import GATHER_S, REFUSED_PAUSE_S, SILENCE_S
from tests.kubernetes_api.api import Exchange, Fault, endpoint_object, slice_object, status_object
from tests.kubernetes_api.certificates import Certificate
from tests.kubernetes_api.setting import named, pod, until_named

A, B, C = (f"10.0.0.{number}:29998" for number in (1, 2, 3))
TOLD_S_MAX = 2 * GATHER_S


def messages(caplog: Any) -> list[str]:
    return [record.message.removeprefix("bootstrap kubernetes:kube-system/p2pmirror") for record in caplog.records]


@pytest.mark.parametrize(
    "text",
    ["", "x", "a/", "/b", "a/b/c", "A/b", "a/b:5", "-a/b", "a/b-", "a.b/c", "a/b\n", f"a/{'b' * 64}", "a/b" * 10_000],
)
def test_what_names_no_service_is_refused(text: str) -> None:
    """A namespace and a name, each as Kubernetes allows it; anything else stops the start, with a text that says so."""
    with pytest.raises(ValueError, match=r"^bootstrap: .* is not as NAMESPACE/SERVICE") as caught:
        parse(f"kubernetes:{text}x/y/z" if text.endswith("\n") else f"kubernetes:{text}")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


async def test_everybody_of_a_service_is_named(certificate: Certificate, autojump_clock: Any) -> None:
    """Both families, ready or not, at the port that is called `router`; other services and whoever leaves are not."""
    async with pod(certificate) as place:
        place.api.put("p2pmirror-4", ["10.0.0.2", "10.0.0.1"])
        place.api.put("p2pmirror-6", ["fd00::1"], ports=[{"name": "router", "port": 31000}])
        place.api.put("other", ["10.0.0.9"], service="other")
        leaving = [endpoint_object("10.0.0.3", ready=True), endpoint_object("10.0.0.4", terminating=True)]
        place.api.put("p2pmirror-x", [], endpoints=leaving, ports=None)
        assert await named(place.bootstrap()) == [A, B, C, "[fd00::1]:31000"]
        (exchange,) = place.api.asked
        assert exchange.query["labelSelector"] == "kubernetes.io/service-name=p2pmirror"
        assert exchange.headers["host"] == "10.96.0.1:443"
        await trio.sleep(2)
        assert place.world.open_streams == 0


async def test_a_list_of_thousands_comes_in_pages(certificate: Certificate, autojump_clock: Any) -> None:
    """Ten thousand endpoints are asked for in pages, of one connection, and told in part, as those of a name are."""
    async with pod(certificate) as place:
        for number in range(100):
            place.api.put(f"part-{number}", [f"10.{number}.0.{host}" for host in range(100)])
        found = await place.bootstrap().addresses()
        assert len(found) == 4096
        assert [each.query.get("limit") for each in place.api.asked] == ["10"] * 10
        assert place.api.accepted == 1


@pytest.mark.long
async def test_a_list_without_an_end_is_left(certificate: Certificate, autojump_clock: Any) -> None:
    """An API that names a next page after each one is asked for a bounded number of them."""

    async def more(exchange: Exchange) -> None:
        place.api.faults.append(more)
        page = {"resourceVersion": "1", "continue": "more"}
        await exchange.answer(200, {"metadata": page, "items": [slice_object("a", ["10.0.0.1"], "kube-system", "x")]})

    async with pod(certificate) as place:
        place.api.faults.append(more)
        assert await named(place.bootstrap()) == [A]
        assert len(place.api.asked) == PAGES_MAX


async def test_pages_that_have_grown_old_are_asked_for_at_once(certificate: Certificate, autojump_clock: Any) -> None:
    """When the API has forgotten what a list began with, the whole list is asked for in one answer."""
    async with pod(certificate) as place:
        for number in range(30):
            place.api.put(f"part-{number}", [f"10.0.{number}.1"])

        async def forget(exchange: Exchange) -> None:
            place.api.put("newer", ["10.0.99.1"])
            place.api.forget_history()
            await place.api.answer_well(exchange)

        async def first(exchange: Exchange) -> None:
            place.api.faults.append(forget)
            await place.api.answer_well(exchange)

        place.api.faults.append(first)
        assert len(await place.bootstrap().addresses()) == 31
        assert [each.query.get("limit") for each in place.api.asked] == ["10", "10", None]


async def test_a_new_endpoint_is_told_and_asks_for_nothing(certificate: Certificate, autojump_clock: Any) -> None:
    """While the watch stands everybody is known at once, `changed` tells of newcomers in a while, nothing is listed."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        assert await named(bootstrap) == [A]
        async with trio.open_nursery() as nursery:
            told = trio.Event()

            async def wait() -> None:
                await bootstrap.changed()
                told.set()

            nursery.start_soon(wait)
            await place.until_watched()
            place.api.put("b", ["10.0.0.2"])
            place.api.put("a", ["10.0.0.3"])
            await until_named(bootstrap, [B, C], limit_s=1)
            place.api.remove("a")
            await until_named(bootstrap, [B], limit_s=1)
            with trio.fail_after(TOLD_S_MAX):
                await told.wait()
        assert await named(bootstrap) == [B]
        assert len(place.api.lists()) == 1


async def test_who_leaves_is_no_news(certificate: Certificate, autojump_clock: Any) -> None:
    """Endpoints that go, and bookmarks, wake nobody up; news is told once, when it has been asked for."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1", "10.0.0.2"])
        bootstrap = place.bootstrap()
        await bootstrap.addresses()
        with trio.move_on_after(600) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bootstrap.changed)
                await place.until_watched()
                place.api.put("a", ["10.0.0.2"])
                place.api.bookmark()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        place.api.put("a", ["10.0.0.3"])
        for _ in range(2):  # it stays news until somebody has asked
            with trio.fail_after(TOLD_S_MAX):
                await bootstrap.changed()
        assert await named(bootstrap) == [C]
        with trio.move_on_after(600) as scope:
            await bootstrap.changed()
        assert scope.cancelled_caught


async def test_a_watch_goes_on_where_it_was(certificate: Certificate, autojump_clock: Any, caplog: Any) -> None:
    """Ended by its time, broken, or reset, a watch begins again at the last version, a bookmark's too; no list."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        await bootstrap.addresses()
        await place.follow(bootstrap)
        place.api.bookmark()
        await trio.sleep(1)
        version = place.api._version
        place.api.break_watches()
        await trio.sleep(5)
        place.api.put("a", ["10.0.0.2"])
        await until_named(bootstrap, [B], limit_s=1)
        assert place.api.watched()[1].query["resourceVersion"] == str(version)
        for _ in range(40):
            place.api.bookmark()
            await trio.sleep(60)
        assert 7 <= len(place.api.watched()) <= 13, "one in four to six minutes, for forty"
        assert len(place.api.lists()) == 1
        assert not caplog.records


async def test_a_version_that_is_too_old_is_listed_again(certificate: Certificate, autojump_clock: Any) -> None:
    """410, said by the watch or in place of it, costs one list, and nobody is missed."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        await bootstrap.addresses()
        await place.follow(bootstrap)
        for number, host in enumerate(["10.0.0.2", "10.0.0.3"], 2):
            if number == 3:
                gone = "The resourceVersion for the provided watch is too old."
                place.api.faults.append(lambda exchange: exchange.refuse(410, "Expired", gone))  # noqa: B023
            place.api.break_watches()
            await trio.lowlevel.checkpoint()
            place.api.put("a", [host])
            place.api.forget_history()
            await trio.sleep(10)
            assert await named(bootstrap) == [f"{host}:29998"]
            assert len(place.api.lists()) == number


async def test_a_watch_that_is_silent_for_too_long_is_left(certificate: Certificate, autojump_clock: Any) -> None:
    """A connection that is dead without a word is noticed when bookmarks stay away, and asked for anew."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        await bootstrap.addresses()

        async def mute(exchange: Exchange) -> None:
            await exchange.begin(200, Transfer_Encoding="chunked")
            await trio.sleep_forever()

        place.api.faults.append(mute)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bootstrap.changed)
            await trio.sleep(1)
            place.api.put("a", ["10.0.0.2"])
            await trio.sleep(1)
            assert await named(bootstrap) == [A]
            await trio.sleep(SILENCE_S + 5)
            assert await named(bootstrap) == [B]
            assert len(place.api.lists()) == 1
            nursery.cancel_scope.cancel()


async def test_a_line_that_was_cut_was_never_said(certificate: Certificate, autojump_clock: Any, caplog: Any) -> None:
    """What comes slowly, in parts of a line, counts when it has ended; half a line is told again."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        await bootstrap.addresses()
        events = [
            json.dumps({"type": "ADDED", "object": versioned(slice_object(name, [host], "kube-system", "x"), version)})
            for name, host, version in (("b", "10.0.0.2", 2000), ("c", "10.0.0.3", 2001))
        ]

        async def cut(exchange: Exchange) -> None:
            await exchange.begin(200, Transfer_Encoding="chunked")
            line = f"\n{events[0]}\n\n".encode()
            for start in range(0, len(line), 50):
                await exchange.send(line[start : start + 50])
                await trio.sleep(0.1)
            await exchange.send(events[1][:-5].encode())
            exchange.stream.abort()

        place.api.faults.append(cut)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bootstrap.changed)
            await until_named(bootstrap, [A, B], limit_s=10)
            await place.until_watched()
            assert place.api.watched()[-1].query["resourceVersion"] == "2000"
            assert await named(bootstrap) == [A, B]
            nursery.cancel_scope.cancel()
        assert not caplog.records


def versioned(thing: dict[str, Any], version: int) -> dict[str, Any]:
    return thing | {"metadata": thing["metadata"] | {"resourceVersion": str(version)}}


GARBAGE = {
    "no JSON": b"<html>\n",
    "another shape": b'{"kind": "Status"}\n',
    "an object that is none": b'{"type": "ADDED", "object": 5}\n',
    "a bookmark of nothing": b'{"type": "BOOKMARK", "object": {}}\n',
    "no text": b"\xff\xfe\x00\n",
    "depth": b"[" * 200_000 + b"\n",
    "no line": b" " * (9 << 20),
    "an error": b'{"type": "ERROR", "object": {"code": 500, "message": "etcdserver: \\u001b[2J leader changed"}}\n',
    "an error of its own": b'{"type": "ERROR", "object": {"message": null}}\n',
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_a_watch_of_nonsense_is_left_and_said_once(
    kind: str, certificate: Certificate, autojump_clock: Any, caplog: Any
) -> None:
    """Whatever a watch tells instead of changes is told in one line, and what has changed meanwhile is found."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        await bootstrap.addresses()

        async def speak(exchange: Exchange) -> None:
            await exchange.begin(200, Transfer_Encoding="chunked")
            await exchange.send(GARBAGE[kind])
            await trio.sleep_forever()

        place.api.faults.append(speak)
        await place.follow(bootstrap)
        place.api.put("a", ["10.0.0.2"])
        await until_named(bootstrap, [B], limit_s=5)
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert record.message.startswith("bootstrap kubernetes:kube-system/p2pmirror (watch) fails: ")
    assert record.message.isprintable()
    assert len(record.message) < 600


async def test_kinds_of_events_that_come_later_are_passed_over(certificate: Certificate, autojump_clock: Any) -> None:
    """An event of a kind that there is not yet ends no watch."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        await bootstrap.addresses()
        await place.follow(bootstrap)
        place.api._history.append((place.api._version + 1, "HELLO", slice_object("h", [], "kube-system", "p2pmirror")))
        place.api._version += 1
        place.api.put("b", ["10.0.0.2"])
        await until_named(bootstrap, [A, B], limit_s=1)
        assert len(place.api.watched()) == 1


async def test_who_may_not_list_is_told_the_role_once(
    certificate: Certificate, autojump_clock: Any, caplog: Any
) -> None:
    """403 names nobody, says once what role is needed, and counts no more once the role is granted, without a start."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        place.api.may = set()
        bootstrap = place.bootstrap()
        assert await named(bootstrap) == []
        with trio.move_on_after(300), caplog.at_level(logging.INFO):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bootstrap.changed)
                for _ in range(5):
                    await trio.sleep(10)
                    assert await named(bootstrap) == []
                place.api.may = {"list", "watch"}
                await until_named(bootstrap, [A], limit_s=2)
                await place.until_watched(limit_s=2 * REFUSED_PAUSE_S)
                nursery.cancel_scope.cancel()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    refused, granted = messages(caplog)
    assert "endpointslices.discovery.k8s.io is forbidden" in refused
    assert refused.endswith("its service account needs a role with list and watch on endpointslices (discovery.k8s.io)")
    assert granted == " names peers again"


async def test_who_may_list_and_not_watch_lists_now_and_then(
    certificate: Certificate, autojump_clock: Any, caplog: Any
) -> None:
    """Half a role is enough to find others, a minute late; it is said once what is missing."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        place.api.may = {"list"}
        bootstrap = place.bootstrap()
        await bootstrap.addresses()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bootstrap.changed)
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
        assert 12 <= len(place.api.lists()) <= 18
        place.api.put("a", ["10.0.0.2"])
        with trio.fail_after(2 * REFUSED_PAUSE_S + TOLD_S_MAX):
            await bootstrap.changed()
    (said,) = messages(caplog)
    assert said.startswith(" (watch) fails: the API answered 403: endpointslices")


async def test_an_api_that_is_away_takes_nobody_away(
    certificate: Certificate, autojump_clock: Any, caplog: Any
) -> None:
    """What was known stays known while nobody answers; it is said once; dials are few; and all is well afterwards."""
    async with pod(certificate, is_served=False) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        with caplog.at_level(logging.INFO):
            with trio.fail_after(6):
                assert await named(bootstrap) == []
            await place.start_api()
            assert await named(bootstrap) == [A]
            await place.follow(bootstrap)
            place.stop_api()
            place.world.power_off(place.api_network)
            await trio.sleep(1000)
            with trio.fail_after(6):
                assert await named(bootstrap) == [A]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


async def trickle(exchange: Exchange) -> None:
    await exchange.begin(200, Content_Length="1000")
    while True:
        await exchange.send(b" ")
        await trio.sleep(0.5)


async def cut(exchange: Exchange) -> None:
    await exchange.begin(200, Transfer_Encoding="chunked")
    await exchange.send(b'{"metadata": {"resourceVersion": "1"}, "items": [')
    await trio.sleep(0.1)
    exchange.stream.abort()


BAD_LISTS: dict[str, tuple[Fault, str]] = {
    "a trickle": (trickle, "no answer within 5 s"),
    "an end in the middle": (cut, "cut its answer short"),
    "no JSON": (lambda exchange: exchange.answer(200, b"<html>"), "what came is no EndpointSlices"),
    "another object": (lambda exchange: exchange.answer(200, status_object(0, "", "")), "what came is no EndpointSl"),
    "a bad gateway": (lambda exchange: exchange.answer(502, b"<html>"), "the API answered 502"),
    "an old cluster": (lambda exchange: exchange.refuse(404, "NotFound", "no such resource"), "404: no such resource"),
}


@pytest.mark.parametrize("kind", BAD_LISTS)
async def test_a_list_that_is_none_names_whom_the_last_one_did(
    kind: str, certificate: Certificate, autojump_clock: Any, caplog: Any
) -> None:
    """A list that is nonsense, slow, cut or refused takes five seconds at most, is said once, and takes nobody away."""
    fault, said = BAD_LISTS[kind]
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        assert await named(bootstrap) == [A]
        place.api.put("a", ["10.0.0.2"])
        for _ in range(2):
            await trio.sleep(2)
            place.api.faults.append(fault)
            with trio.fail_after(5.5):
                assert await named(bootstrap) == [A]
        await trio.sleep(2)
        assert await named(bootstrap) == [B]
        assert place.world.open_streams <= 2, "the server's own ends, at most"
    (message,) = messages(caplog)
    assert said in message


async def test_a_busy_api_is_left_alone_for_as_long_as_it_wants(certificate: Certificate, autojump_clock: Any) -> None:
    """429 with a time is not asked again before, by a watch; its version still counts."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        await bootstrap.addresses()
        place.api.faults.append(lambda exchange: exchange.refuse(429, "TooManyRequests", "later", Retry_After="40"))
        began = trio.current_time()
        await place.follow(bootstrap)
        assert 40 <= trio.current_time() - began <= 50
        assert len(place.api.lists()) == 1


async def test_attempts_become_rarer_and_differ(certificate: Certificate, autojump_clock: Any) -> None:
    """A watch that always ends at once is begun at growing pauses, spread by chance: some thirty in ten minutes."""

    async def end(exchange: Exchange) -> None:
        if not exchange.is_watch:
            place.api.faults.append(end)
            await place.api.answer_well(exchange)
            return
        place.api.faults.append(end)
        begun.append(trio.current_time())
        await exchange.begin(200, Transfer_Encoding="chunked")
        await exchange.end()

    begun: list[float] = []
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()
        await bootstrap.addresses()
        place.api.faults.append(end)
        with trio.move_on_after(600):
            await bootstrap.changed()
    pauses = [later - earlier for earlier, later in pairwise(begun)]
    assert pauses[0] < 2.1
    assert 22 <= len(begun) <= 45
    assert max(pauses) < 31
    assert max(pauses[8:]) - min(pauses[8:]) > 5


async def test_a_service_that_there_is_not_is_said(certificate: Certificate, autojump_clock: Any, caplog: Any) -> None:
    """A list without a slice names nobody, and says so: the name may be wrong."""
    async with pod(certificate) as place:
        bootstrap = place.bootstrap()
        for _ in range(2):
            assert await named(bootstrap) == []
            await trio.sleep(2)
        await place.follow(bootstrap)
        place.api.put("a", ["10.0.0.1"])
        await until_named(bootstrap, [A], limit_s=1)
    assert messages(caplog) == [" names nobody: the service has no endpoints, or there is none"]


async def test_lists_and_watches_do_not_overtake_one_another(certificate: Certificate, autojump_clock: Any) -> None:
    """Who asks while a watch is begun waits for it: an older list never hides what a watch has told."""
    async with pod(certificate) as place:
        place.api.put("a", ["10.0.0.1"])
        bootstrap = place.bootstrap()

        async def late(exchange: Exchange) -> None:
            page = place.api._page(exchange)
            await trio.sleep(3)
            await exchange.answer(200, page)

        place.api.faults.append(late)
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bootstrap.changed)
            await trio.sleep(1)
            place.api.put("a", ["10.0.0.2"])
            assert await named(bootstrap) in ([A], [B])
            await until_named(bootstrap, [B], limit_s=1)
            assert len(place.api.lists()) == 1
            nursery.cancel_scope.cancel()


async def test_a_pod_outside_of_kubernetes_says_so(certificate: Certificate, autojump_clock: Any, caplog: Any) -> None:
    """Without the variables, or without a service account, nobody is named, one line says why, and nothing fails."""
    async with pod(certificate) as place:
        place.environ = {}
        bootstrap = place.bootstrap()
        with trio.move_on_after(200):
            assert await named(bootstrap) == []
            await bootstrap.changed()
        assert await named(bootstrap) == []
    (said,) = messages(caplog)
    assert said == (
        " cannot be asked for: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, as they are in every"
        " pod of a cluster"
    )
