"""The API is asked as the kubelet lets a pod ask: with the token and the authorities of now, and nowhere else."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio

from p2pmirror.errors import MirrorError, Unreachable
from p2pmirror.kubernetes import ApiRefused, open_session
from p2pmirror.kubernetes.access import AUTHORITIES_BYTES_MAX, DIRECTORY, TOKEN_BYTES_MAX
from p2pmirror.kubernetes.objects import DaemonSet, NoObject
from p2pmirror.kubernetes.session import ANSWER_BYTES_MAX
from tests.cancellation import cancel_at
from tests.kubernetes_api.api import DAEMON_SETS, TOKEN, Exchange, daemon_set_object
from tests.kubernetes_api.certificates import Certificate, make_certificate
from tests.kubernetes_api.setting import Pod, pod

PATH = DAEMON_SETS.format("kube-system", "agent")


def prepare(place: Pod) -> None:
    place.api.daemon_sets[PATH] = daemon_set_object("agent", ready=1, desired=2)


async def ask(place: Pod) -> DaemonSet:
    async with open_session(place.access(), place.network, place.files, Random(3)) as session:
        return await session.get(PATH, DaemonSet)


async def failure(place: Pod) -> str:
    with trio.fail_after(60), pytest.raises(MirrorError) as caught:
        await ask(place)
    assert str(caught.value).isprintable()
    return str(caught.value)


async def test_a_token_is_read_for_each_question(certificate: Certificate, autojump_clock: Any) -> None:
    """When the kubelet has exchanged the token, the next question has the new one, in the same session too."""
    async with pod(certificate) as place:
        prepare(place)
        async with open_session(place.access(), place.network, place.files, Random(3)) as session:
            await session.get(PATH, DaemonSet)
            place.api.tokens = {"second.token"}
            place.mount("second.token\n")
            found = await session.get(PATH, DaemonSet)
        assert found.status.number_ready == 1
        assert [each.headers["authorization"] for each in place.api.asked] == [f"Bearer {TOKEN}", "Bearer second.token"]


async def test_a_token_that_is_exchanged_meanwhile_is_asked_with_again(
    certificate: Certificate, autojump_clock: Any
) -> None:
    """A 401 counts when the token that was refused is still the one that is mounted; then it is told, without it."""
    async with pod(certificate) as place:
        prepare(place)

        async def rotate(exchange: Exchange) -> None:
            place.api.tokens = {"second.token"}
            place.mount("second.token")
            await place.api.answer_well(exchange)

        place.api.faults.append(rotate)
        assert (await ask(place)).status.number_ready == 1
        place.api.tokens = set()
        asked = len(place.api.asked)
        assert await failure(place) == "the API answered 401: Unauthorized"
        assert len(place.api.asked) == asked + 1


async def test_only_mounted_authorities_are_believed(
    certificate: Certificate, stranger: Certificate, autojump_clock: Any
) -> None:
    """Whoever pretends to be the API is told no token; when the authorities are exchanged, the new ones count."""
    async with pod(certificate) as place:
        prepare(place)
        place.mount(authorities=stranger.pem)
        assert "its certificate is not trusted" in await failure(place)
        assert place.api.asked == []
        place.mount(authorities=stranger.pem + certificate.pem)
        assert (await ask(place)).status.number_ready == 1
        await trio.sleep(5)
        assert place.world.open_streams == 0


async def test_a_certificate_for_another_host_is_not_believed(autojump_clock: Any, tmp_path: Any) -> None:
    """A server of the cluster with a certificate of its own authorities is still not its API."""
    other = make_certificate(tmp_path, "IP:10.96.0.7,DNS:registry.example")
    async with pod(other) as place:
        assert "its certificate is not trusted: IP address mismatch" in await failure(place)


@pytest.mark.parametrize(
    ("host", "named", "authority"),
    [
        ("fd00::1", ["fd00::1"], "[fd00::1]:443"),
        ("[fd00::1]", ["fd00::1"], "[fd00::1]:443"),
        ("api.example", ["10.96.0.2", "fd00::1"], "api.example:443"),
    ],
)
async def test_the_api_may_be_anywhere(
    host: str, named: list[str], authority: str, certificate: Certificate, autojump_clock: Any
) -> None:
    """IPv6, and a name, as managed clusters have it, are dialled as an IPv4 address is, and believed by that name."""
    async with pod(certificate, is_served=False) as place:
        prepare(place)
        await place.start_api(*named)
        place.world.names["api.example"] = named
        place.environ["KUBERNETES_SERVICE_HOST"] = host
        assert (await ask(place)).status.number_ready == 1
        assert place.api.asked[0].headers["host"] == authority


async def test_an_api_with_one_server_left_is_asked_there(certificate: Certificate, autojump_clock: Any) -> None:
    """Of several addresses, those that refuse and those that are silent give way to the one that answers."""
    async with pod(certificate, is_served=False) as place:
        prepare(place)
        await place.start_api("10.96.0.2")
        place.world.host("10.96.0.3")  # refuses
        place.world.power_off(place.world.host("10.96.0.4"))
        place.world.names["api.example"] = ["10.96.0.2", "10.96.0.3", "10.96.0.4"]
        place.environ["KUBERNETES_SERVICE_HOST"] = "api.example"
        for _ in range(6):
            with trio.fail_after(4):
                assert (await ask(place)).status.number_ready == 1


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "are not set, as they are in every pod"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "are not set"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "0"}, "PORT is '0', which is no port"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "9" * 5000}, "which is no port"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "tcp://10.0.0.1:443"}, "is no port"),
        ({"KUBERNETES_SERVICE_HOST": "https://a", "KUBERNETES_SERVICE_PORT": "443"}, "'https://a', which is no host"),
        ({"KUBERNETES_SERVICE_HOST": "a\x1b[2J", "KUBERNETES_SERVICE_PORT": "443"}, "which is no host"),
        ({"KUBERNETES_SERVICE_HOST": "nowhere", "KUBERNETES_SERVICE_PORT": "443"}, "nowhere"),
    ],
)
async def test_an_environment_without_an_api_is_told(
    environ: dict[str, str], said: str, certificate: Certificate, autojump_clock: Any
) -> None:
    """What is not set, or set to what is no host and port, is named in one short line."""
    async with pod(certificate) as place:
        place.environ = environ
        message = await failure(place)
        assert said in message
        assert len(message) < 250


@pytest.mark.parametrize(
    ("token", "authorities", "said"),
    [
        (b"", None, "token holds no token"),
        (b"two words", None, "token holds no token"),
        (b"a\r\nX-Remote-User: admin", None, "token holds no token"),
        (b"\xff", None, "token is no text"),
        (b"a" * (TOKEN_BYTES_MAX + 1), None, "token cannot be read"),
        (None, b"", "ca.crt holds no certificates"),
        (None, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ca.crt holds no certificates"),
        (None, b"\xff", "ca.crt is no text"),
        (None, b"a" * (AUTHORITIES_BYTES_MAX + 1), "ca.crt cannot be read"),
    ],
)
async def test_files_that_are_none_are_told(
    token: bytes | None, authorities: bytes | None, said: str, certificate: Certificate, autojump_clock: Any
) -> None:
    """A file that is no token, or no authorities, is named by its path, and nothing of what is in it is shown."""
    async with pod(certificate) as place:
        for name, content in (("token", token), ("ca.crt", authorities)):
            if content is not None:
                place.files.put(DIRECTORY / name, content)
        message = await failure(place)
        assert message.startswith(f"{DIRECTORY}/{said}")
        assert "admin" not in message
        for name in ("token", "ca.crt"):
            place.files.remove(DIRECTORY / name)
        assert await failure(place) == f"{DIRECTORY}/token is not there: the pod has no service account mounted"


REFUSALS = {
    "a status": (403, b'{"kind": "Status", "message": "no \\u001b[2J"}', "the API answered 403: no ?[2J"),
    "a page": (502, b"<html>Bad Gateway</html>", "the API answered 502"),
    "another object": (500, b'{"message": 5}', "the API answered 500"),
    "depth": (500, b"[" * 20_000, "the API answered 500"),
    "too much": (500, b" " * 100_000, "the API answered 500"),
    "many words": (500, b'{"message": "%s"}' % (b"a" * 5000), "the API answered 500: " + "a" * 300 + "…"),
    "a redirect": (302, b"", "the API answered 302"),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_whoever_answers_for_the_api(kind: str, certificate: Certificate, autojump_clock: Any) -> None:
    """An answer that is not 200 is a refusal with its code, whatever its body; its words are told when it has some."""
    status, body, said = REFUSALS[kind]
    async with pod(certificate) as place:
        place.api.faults.append(lambda exchange: exchange.answer(status, body, Location="https://10.0.0.1/"))
        with pytest.raises(ApiRefused) as caught:
            await ask(place)
        assert str(caught.value) == said
        assert caught.value.status == status
        assert len(place.api.asked) == 1


@pytest.mark.parametrize(
    ("field", "retry_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999999999", 120.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
    ],
)
async def test_how_long_to_stay_away(field: str, retry_s: float, certificate: Certificate, autojump_clock: Any) -> None:
    """`Retry-After` counts in seconds, up to two minutes; other spellings are no time at all."""
    async with pod(certificate) as place:
        place.api.faults.append(lambda exchange: exchange.answer(429, b"", Retry_After=field))
        with pytest.raises(ApiRefused) as caught:
            await ask(place)
        assert caught.value.retry_s == retry_s


async def test_an_answer_that_is_too_large_or_cut_is_none(certificate: Certificate, autojump_clock: Any) -> None:
    """More than is read at most, and less than was announced, is no object; nothing of either is kept."""

    async def cut(exchange: Exchange) -> None:
        await exchange.begin(200, Content_Length="100")
        await exchange.send(b"{")
        exchange.stream.abort()

    async with pod(certificate) as place:
        place.api.faults.append(lambda exchange: exchange.begin(200, Content_Length=str(ANSWER_BYTES_MAX + 1)))
        assert "are the limit" in await failure(place)
        place.api.faults.append(cut)
        with pytest.raises(Unreachable):
            await ask(place)
        place.api.faults.append(lambda exchange: exchange.answer(200, b"[]"))
        with pytest.raises(NoObject, match="what came is no DaemonSet"):
            await ask(place)
        await trio.sleep(5)
        assert place.world.open_streams == 0


async def test_cancelled_anywhere_no_connection_is_left(
    certificate: Certificate, autojump_clock: Any, long: bool
) -> None:
    """Whoever gives up asking, or watching, leaves nothing open, wherever he was; the next question is answered."""
    async with pod(certificate) as place:
        prepare(place)
        place.api.put("a", ["10.0.0.1"])
        path = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
        query = {"labelSelector": "kubernetes.io/service-name=p2pmirror", "resourceVersion": "1000"}

        async def operation() -> None:
            async with open_session(place.access(), place.network, place.files, Random(3)) as session:
                await session.get(PATH, DaemonSet)
                watch = await session.watch(path, query | {"timeoutSeconds": "1"})
                try:
                    event = await watch.next()
                    assert event is not None
                    assert event.type == "ADDED"
                    assert await watch.next() is None
                finally:
                    watch.close()

        async def check() -> None:
            await trio.sleep(3)
            assert place.world.open_streams == 0

        number = 1
        while await cancel_at(number, operation):
            await check()
            number += 1 if long else 4
        await check()
        assert number > 20
