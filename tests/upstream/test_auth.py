"""Promises of how the client proves who it is: to whom a password and a token go, and how often a token is fetched."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from p2pmirror.errors import MirrorError, Unreachable, UpstreamRefused
from p2pmirror.upstream.credentials.setting import CredentialsSetting, Kind
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from tests.cancellation import cancel_at_every_checkpoint
from tests.registries.docker import PASSWORD, USER, DockerRegistry
from tests.registries.faults import FaultProxy, answer, redirect
from tests.registries.holdings import Holdings
from tests.registries.tokens import TokenServer
from tests.upstream.conformance import REGISTRY, read
from tests.upstream.setting import Client, client

LOOPBACK = Address("127.0.0.1", 0)
LOGIN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, holdings: Holdings) -> Iterator[DockerRegistry]:
    """Fill a registry that is then started with whatever guards it."""
    registry = DockerRegistry(tmp_path_factory.mktemp("guarded"))
    registry.start()
    registry.push(holdings)
    registry.stop()
    yield registry
    registry.stop()


@pytest.fixture
def with_passwords(guarded: DockerRegistry) -> Iterator[DockerRegistry]:
    guarded.start_with_passwords()
    yield guarded
    guarded.stop()


@pytest.fixture
async def tokens(certificate: tuple[Path, Path], nursery: trio.Nursery) -> TokenServer:
    server = TokenServer(*certificate)
    address = await nursery.start(HttpServer(server.handle, ServerOptions()).run, await HostNetwork().listen(LOOPBACK))
    server.url = f"http://{address}/token"
    return server


@pytest.fixture
async def proxy(guarded: DockerRegistry, tokens: TokenServer, nursery: trio.Nursery) -> AsyncIterator[FaultProxy]:
    """Stand before a registry that believes the token server."""
    guarded.start_with_tokens(tokens.url, tokens.certificate)
    proxy = FaultProxy(HostNetwork(), Address("127.0.0.1", guarded.port))
    await nursery.start(proxy.run, LOOPBACK)
    yield proxy
    guarded.stop()


def login_file(tmp_path: Path, text: str = f"{USER}:{PASSWORD}\n", kind: Kind = "file") -> CredentialsSetting:
    path = tmp_path / "login"
    path.write_text(text)
    return CredentialsSetting(kind, path)


async def pull(made: Client, held: Holdings) -> None:
    """Ask for a tag, its manifest and a layer."""
    root = await made.upstream.resolve(REGISTRY, held.repository, "v1")
    assert (await made.upstream.document(REGISTRY, held.repository, root.digest)).data == held.manifest
    async with made.upstream.blob(REGISTRY, held.repository, held.layer_digest) as download:
        assert await read(download) == held.layer


async def test_a_password_opens(with_passwords: DockerRegistry, holdings: Holdings, tmp_path: Path) -> None:
    """Where a registry wants Basic, the login is sent, once demanded from the first question on."""
    async with client(with_passwords.url, credentials=login_file(tmp_path)) as made:
        await pull(made, holdings)
        assert made.asked("ok") == 3


@pytest.mark.parametrize("text", [None, f"{USER}:wrong", "nobody:x"])
async def test_without_the_password_it_is_a_401(
    with_passwords: DockerRegistry, holdings: Holdings, tmp_path: Path, text: str | None
) -> None:
    """A wrong login, or none, is the registry's own 401."""
    credentials = None if text is None else login_file(tmp_path, text)
    async with client(with_passwords.url, credentials=credentials) as made:
        with pytest.raises(UpstreamRefused) as caught:
            await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
        assert caught.value.status == 401
        assert made.upstream.is_reachable(REGISTRY)


@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_a_token_is_fetched_once(proxy: FaultProxy, tokens: TokenServer, holdings: Holdings, name: str) -> None:
    """Without a login the token server gives a token to anybody; it opens all that its scope covers."""
    tokens.name = name
    async with client(proxy.url) as made:
        await pull(made, holdings)
    scope = "repository:library/app:pull"
    assert tokens.asked == [{"scope": scope, "service": "registry.test", "authorization": ""}]
    assert len(proxy.asked) == 4, "one question alone was asked twice"


async def test_a_login_goes_to_the_token_server_and_nowhere_else(
    proxy: FaultProxy, tokens: TokenServer, holdings: Holdings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The registry sees the token, never the password; the log sees neither."""
    caplog.set_level(logging.DEBUG, "p2pmirror")
    tokens.needs_login = True
    async with client(proxy.url, credentials=login_file(tmp_path)) as made:
        await pull(made, holdings)
    assert [each["authorization"] for each in tokens.asked] == [LOGIN]
    assert tokens.asked[0]["account"] == USER
    assert set(proxy.told("authorization")) == {f"Bearer {tokens.given[0]}"}
    said = str([vars(record) for record in caplog.records if record.name.startswith("p2pmirror")])
    assert PASSWORD not in said
    assert tokens.given[0] not in said
    assert LOGIN not in said


async def test_many_askers_share_one_fetch(proxy: FaultProxy, tokens: TokenServer, holdings: Holdings) -> None:
    """Who asks while a token is being fetched waits for that one; a fetch whose asker leaves goes to the next."""
    tokens.delay_s = 0.3
    async with client(proxy.url) as made:

        async def ask(patience_s: float) -> None:
            with trio.move_on_after(patience_s):
                await made.upstream.resolve(REGISTRY, holdings.repository, "v1")

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask, 20)
        assert made.asked("ok") == 8 + 1
    assert len(tokens.asked) == 1
    tokens.delay_s = 5.0  # the first asker leaves before, whatever the machine does
    async with client(proxy.url) as made:
        async with trio.open_nursery() as nursery, trio.open_nursery() as leaving:
            leaving.start_soon(ask, 20)
            while len(tokens.asked) < 2:  # noqa: ASYNC110  # a list that another task fills
                await trio.sleep(0.01)
            tokens.delay_s = 0.3
            for _ in range(4):
                nursery.start_soon(ask, 20)
            await trio.sleep(0.1)
            leaving.cancel_scope.cancel()
        assert made.asked("ok") == 4 + 1
    assert len(tokens.asked) == 3


async def test_askers_share_a_failure_too(proxy: FaultProxy, tokens: TokenServer, holdings: Holdings) -> None:
    """A token server that refuses refuses all who wait, with one question; its status is told and none of its words."""
    tokens.delay_s, tokens.status, tokens.headers = 0.3, 429, {"Retry-After": "60"}
    refused: list[MirrorError] = []
    async with client(proxy.url) as made:

        async def ask() -> None:
            try:
                await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
            except UpstreamRefused as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        await ask()
    assert [error.status for error in refused] == [429] * 6
    assert "dckr" not in str(refused)
    assert len(tokens.asked) == 1, "and it is not asked again before its time"


async def test_a_token_that_is_refused_is_replaced_once(
    proxy: FaultProxy, tokens: TokenServer, holdings: Holdings
) -> None:
    """A 401 in spite of a token fetches another one; a 401 in spite of that is the answer."""
    async with client(proxy.url) as made:
        await pull(made, holdings)
        scope = 'service="registry.test",scope="repository:library/app:pull"'
        challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url}",{scope}'}
        proxy.on("/manifests/", answer(401, challenge), times=1)
        await trio.sleep(1.1)  # a token made in the same second would be the same token
        await pull(made, holdings)
        assert len(tokens.asked) == 2
        proxy.on("/manifests/", answer(401, challenge))
        with pytest.raises(UpstreamRefused) as caught:
            await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
        assert caught.value.status == 401
        assert len(tokens.asked) == 3


async def test_authorization_never_crosses_hosts(
    proxy: FaultProxy, tokens: TokenServer, holdings: Holdings, docker_registry: DockerRegistry, nursery: trio.Nursery
) -> None:
    """A blob store to which the registry redirects is given no token, and a challenge of its own is not answered."""
    store = FaultProxy(HostNetwork(), Address("127.0.0.1", docker_registry.port))
    await nursery.start(store.run, LOOPBACK)
    proxy.on("/blobs/", redirect(f"{store.url}{{target}}"))
    async with client(proxy.url) as made:
        await pull(made, holdings)
        assert store.count("/blobs/") == 1
        assert store.told("authorization") == []
        challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url}",service="evil"'}
        store.on("/blobs/", answer(401, challenge))
        with pytest.raises(UpstreamRefused):
            await pull(made, holdings)
    assert len(tokens.asked) == 1
    assert store.told("authorization") == []


@pytest.mark.parametrize(
    "said",
    [
        {"token": "a b"},
        {"token": 5},
        {"token": ""},
        {"token": "x\r\nEvil: 1"},
        {"token": "x" * 40_000},
        {"token": None},
    ],
)
async def test_what_is_no_token_is_refused(
    proxy: FaultProxy, tokens: TokenServer, holdings: Holdings, said: dict[str, object]
) -> None:
    """Nothing that could not stand in a header is sent on."""
    tokens.answer = said
    async with client(proxy.url) as made:
        with pytest.raises(UpstreamRefused, match="no token") as caught:
            await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Negotiate",
        'Basic realm="x"',
        "Bearer",
        'Bearer service="x"',
        'Bearer realm="ftp://x.test/"',
        "Bearer realm=http://[",
    ],
)
async def test_a_demand_that_cannot_be_met_is_refused(proxy: FaultProxy, challenge: str) -> None:
    """A 401 that tells no way in stands; a token server that is none is not asked."""
    proxy.on("/v2/", answer(401, {"WWW-Authenticate": challenge} if challenge else {}))
    async with client(proxy.url) as made:
        with pytest.raises(UpstreamRefused) as caught:
            await made.upstream.resolve(REGISTRY, "library/app", "v1")
    assert caught.value.status in {401, 502}
    assert len(proxy.asked) == 1


async def test_a_token_server_that_is_away_is_unreachable(
    proxy: FaultProxy, guarded: DockerRegistry, holdings: Holdings
) -> None:
    """Without its token server a registry cannot be reached."""
    proxy.on("/v2/", answer(401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:9/token"'}))
    async with client(proxy.url) as made:
        with pytest.raises(Unreachable):
            await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
        assert not made.upstream.is_reachable(REGISTRY)


async def test_an_identity_token_is_exchanged(
    proxy: FaultProxy, tokens: TokenServer, tmp_path: Path, holdings: Holdings
) -> None:
    """A login with an identity token is exchanged as OAuth2 has it; it is not sent as a password."""
    auths = {"auths": {REGISTRY: {"auth": base64.b64encode(b"ada:").decode(), "identitytoken": "refresh-me"}}}
    proxy.on("/v2/", answer(401, {"WWW-Authenticate": f'Bearer realm="{proxy.url}/oauth",service="s"'}), times=1)
    proxy.on("POST /oauth", answer(200, {}, json.dumps({"access_token": "t"}).encode()))
    proxy.on("/v2/", answer(403))
    async with client(proxy.url, credentials=login_file(tmp_path, json.dumps(auths), "docker-config")) as made:
        with pytest.raises(UpstreamRefused) as caught:
            await made.upstream.resolve(REGISTRY, holdings.repository, "v1")
    assert caught.value.status == 403
    assert proxy.count("POST /oauth") == 1
    assert proxy.told("authorization") == ["Bearer t"]


async def test_cancelled_anywhere(proxy: FaultProxy, tokens: TokenServer, holdings: Holdings, tmp_path: Path) -> None:
    """The first question of a client, for its login and its token, cancelled anywhere: the next one is answered."""
    made: list[Client] = []

    async def ask() -> None:
        made.append(Client(proxy.url, credentials=login_file(tmp_path)))
        await made[-1].upstream.resolve(REGISTRY, holdings.repository, "v1")

    async def check() -> None:
        assert await made[-1].upstream.resolve(REGISTRY, holdings.repository, "v1") == holdings.root
        await made[-1].client.aclose()

    assert await cancel_at_every_checkpoint(ask, check) > 10
