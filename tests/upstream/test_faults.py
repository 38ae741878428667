"""Promises of the client when registries and what stands before them fail, lie or send it elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import pytest
import trio

from p2pmirror.errors import MirrorError, NotHere, Unreachable, UpstreamRefused
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Descriptor, Digest, mediatype
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from tests.registries.docker import DockerRegistry
from tests.registries.faults import Exchange, FaultProxy, answer, cut, hang_up, redirect
from tests.registries.holdings import Holdings
from tests.upstream.conformance import REGISTRY, read, read_into
from tests.upstream.setting import Client, client

LOOPBACK = Address("127.0.0.1", 0)


class Setting:
    """A client, the proxy in front of its registry, another host, and what is in the registry."""

    def __init__(self, made: Client, proxy: FaultProxy, other: FaultProxy, holdings: Holdings) -> None:
        self.client = made
        self.upstream = made.upstream
        self.proxy = proxy
        self.other = other
        self.held = holdings

    async def resolve(self) -> Descriptor:
        return await self.upstream.resolve(REGISTRY, self.held.repository, "v1")

    async def document(self) -> bytes:
        found = await self.upstream.document(REGISTRY, self.held.repository, self.held.manifest_digest)
        return found.data

    async def layer(self, start: int = 0) -> bytes:
        where = (REGISTRY, self.held.repository, self.held.layer_digest)
        async with self.upstream.blob(*where, start=start) as download:
            assert download.size == len(self.held.layer)
            return await read(download)

    async def tags(self) -> list[str]:
        return await self.upstream.tags(REGISTRY, self.held.repository)


@pytest.fixture
async def setting(
    docker_registry: DockerRegistry, holdings: Holdings, tmp_path: Path, nursery: trio.Nursery
) -> AsyncIterator[Setting]:
    (tmp_path / "login").write_text("ada:hunter2")
    network, behind = HostNetwork(), Address("127.0.0.1", docker_registry.port)
    proxy, other = FaultProxy(network, behind), FaultProxy(network, behind)
    await nursery.start(proxy.run, LOOPBACK)
    await nursery.start(other.run, LOOPBACK)
    async with client(proxy.url) as made:
        yield Setting(made, proxy, other, holdings)


def retry_after(value: str) -> dict[str, str]:
    return {"Retry-After": value}


@pytest.mark.parametrize("form", ["30", "0m30s", "date"])
async def test_a_429_is_refused_and_waited_out(setting: Setting, form: str) -> None:
    """The asker is told 429 at once; until the wait is over the registry is not asked again, by anybody."""
    value = formatdate(time.time() + 30, usegmt=True) if form == "date" else form
    setting.proxy.on("/manifests/", answer(429, retry_after(value), b'{"message":"dckr_jti_secret"}'))
    for ask in (setting.resolve, setting.document, setting.layer):
        with pytest.raises(UpstreamRefused) as caught:
            await ask()
        assert caught.value.status == 429
        assert "dckr" not in str(caught.value)
    assert len(setting.proxy.asked) == 1
    assert setting.upstream.is_reachable(REGISTRY)
    assert (setting.client.asked("limited"), setting.client.asked("held")) == (1, 2)


async def test_a_short_wait_is_waited(setting: Setting) -> None:
    """A wait below a second costs the asker that wait and nothing else."""
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: 880.092us, allowed: 44000/minute"}]}'
    setting.proxy.on("/manifests/", answer(429, {}, body), times=1)
    with pytest.raises(UpstreamRefused, match="TOOMANYREQUESTS"):
        await setting.document()
    assert await setting.document() == setting.held.manifest


async def test_a_quota_is_not_used_up(setting: Setting) -> None:
    """When a quota is gone manifests are held back before the registry says 429; HEAD and blobs go on."""
    rest = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
    setting.proxy.on(
        "GET /v2/library/app/manifests/",
        answer(200, rest | {"Content-Type": mediatype.OCI_MANIFEST}, setting.held.manifest),
    )
    assert await setting.document() == setting.held.manifest
    with pytest.raises(UpstreamRefused) as caught:
        await setting.document()
    assert caught.value.status == 429
    assert await setting.resolve() == setting.held.root
    assert await setting.layer() == setting.held.layer
    assert (
        setting.client.metrics.get_sample_value("p2pmirror_upstream_quota_left_requests", {"registry": REGISTRY}) == 0
    )


@pytest.mark.parametrize("status", [500, 503])
async def test_a_failing_registry_is_not_hammered(setting: Setting, status: int) -> None:
    """A 5xx is refused with its status; the registry counts as away, is left alone a little, and then asked again."""
    setting.proxy.on("/v2/", answer(status), times=3)
    for _ in range(3):
        with pytest.raises(MirrorError):
            await setting.resolve()
        assert not setting.upstream.is_reachable(REGISTRY)
    with trio.fail_after(15):
        while True:
            try:
                found = await setting.resolve()
            except MirrorError:
                await trio.sleep(0.2)
            else:
                break
    assert found == setting.held.root
    assert setting.upstream.is_reachable(REGISTRY)


async def test_a_download_goes_on_where_it_broke(setting: Setting) -> None:
    """However often it is cut, the bytes come once, in order, and the next ones alone are asked for again."""
    for after in (100_000, 50_000, 20_000):
        setting.proxy.on("/blobs/", cut(after), times=1)
    assert await setting.layer() == setting.held.layer
    assert setting.proxy.told("range") == ["bytes=100000-", "bytes=150000-", "bytes=170000-"]
    assert all(each.startswith('"') for each in setting.proxy.told("if-range"))


async def test_a_registry_without_ranges_is_read_again_from_the_start(setting: Setting) -> None:
    """Where a range is answered with the whole, what has come already is skipped."""

    async def whole(exchange: Exchange) -> None:
        exchange.asked.headers.pop("range", None)
        await exchange.pass_on()

    setting.proxy.on("/blobs/", cut(100_000), times=1)
    setting.proxy.on("/blobs/", whole)
    assert await setting.layer() == setting.held.layer
    assert await setting.layer(start=250_000) == setting.held.layer[250_000:]


async def test_a_download_that_gets_nowhere_ends(setting: Setting) -> None:
    """After a few openings without progress it is Unreachable; what came before was right."""
    setting.proxy.on("/blobs/", cut(100_000), times=1)
    setting.proxy.on("/blobs/", cut(10))
    got = bytearray()
    where = (REGISTRY, setting.held.repository, setting.held.layer_digest)
    with trio.fail_after(60):
        async with setting.upstream.blob(*where) as download:
            with pytest.raises(Unreachable):
                await read_into(download, got)
    assert setting.held.layer.startswith(got)
    assert setting.proxy.count("/blobs/") == 5


async def test_a_refusal_on_the_way_ends_a_download(setting: Setting) -> None:
    """A registry that refuses to go on is not asked again and again."""
    setting.proxy.on("/blobs/", cut(100_000), times=1)
    setting.proxy.on("/blobs/", answer(403))
    with pytest.raises(UpstreamRefused) as caught:
        await setting.layer()
    assert caught.value.status == 403
    assert setting.proxy.count("/blobs/") == 2


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ({"Content-Type": "text/html"}, b"<html>Please log in</html>"),
        ({"Content-Type": "text/html; charset=utf-8", "Content-Length": "300000"}, b"<html>"),
        ({"Content-Encoding": "gzip"}, b"x"),
    ],
)
async def test_a_page_for_people_is_no_blob(setting: Setting, head: dict[str, str], body: bytes) -> None:
    """A 200 that is evidently none is refused before a byte is handed on."""
    setting.proxy.on("GET", answer(200, head, body))
    for ask in (setting.layer, setting.document, setting.tags):
        with pytest.raises(UpstreamRefused) as caught:
            await ask()
        assert caught.value.status == 502


async def test_a_length_that_changes_is_refused(setting: Setting) -> None:
    """A blob that has another length at the second opening is not the same blob."""
    setting.proxy.on("/blobs/", cut(100_000), times=1)
    setting.proxy.on("/blobs/", answer(206, {"Content-Range": "bytes 100000-100009/100010"}, b"x" * 10))
    with pytest.raises(UpstreamRefused) as caught:
        await setting.layer()
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "said", ["bytes 5-14/300000", "bytes 200000-299999/300000", "bytes */300000", "", "bytes 9-5/300000"]
)
async def test_another_range_than_asked_for_is_refused(setting: Setting, said: str) -> None:
    """A range that does not begin where it should, or is no range, is not taken for the bytes asked for."""
    setting.proxy.on("/blobs/", answer(206, {"Content-Range": said} if said else {}, b"x" * 7))
    with pytest.raises(UpstreamRefused) as caught:
        await setting.layer(start=100_000)
    assert caught.value.status == 502


async def chunked(exchange: Exchange, data: bytes, *, endless: bool) -> None:
    """Answer GET with chunks, and HEAD with the layer's length."""
    if exchange.asked.method == "HEAD":
        return await exchange.pass_on()
    await exchange.send(200, {"Transfer-Encoding": "chunked"})
    while True:
        await exchange.stream.send_all(b"%x\r\n%b\r\n" % (len(data), data))
        if not endless:
            return await exchange.stream.send_all(b"0\r\n\r\n")


async def test_a_body_without_a_length_is_read_up_to_the_announced_one(setting: Setting) -> None:
    """Without Content-Length the length is asked for by HEAD."""
    held = setting.held
    setting.proxy.on("/blobs/", lambda exchange: chunked(exchange, held.layer, endless=False))
    assert await setting.layer() == held.layer


async def test_a_body_without_an_end_is_cut(setting: Setting) -> None:
    """Never a byte more than announced comes of a body that goes on; its end is Unreachable."""
    setting.proxy.on("/blobs/", lambda exchange: chunked(exchange, b"y" * 70_000, endless=True))
    got = bytearray()
    with trio.fail_after(10):
        async with setting.upstream.blob(REGISTRY, setting.held.repository, setting.held.layer_digest) as download:
            with pytest.raises(Unreachable, match="after its last byte"):
                await read_into(download, got)
    assert got == b"y" * 300_000


async def test_a_document_without_an_end_is_cut(setting: Setting) -> None:
    """A manifest is at most as long as containerd takes it, whether its head says so or not."""
    setting.proxy.on("/manifests/", lambda exchange: chunked(exchange, b"y" * 70_000, endless=True))
    with trio.fail_after(20), pytest.raises(UpstreamRefused, match="more than"):
        await setting.document()
    setting.proxy.clear()
    setting.proxy.on("/manifests/", answer(200, {"Content-Length": str(DOCUMENT_BYTES_MAX + 1)}, b"{"))
    with pytest.raises(UpstreamRefused, match="more than"):
        await setting.document()


async def test_other_bytes_than_the_digest_are_refused(setting: Setting) -> None:
    """What was asked for by its digest is hashed; a registry that lies is refused with 502."""
    setting.proxy.on("/manifests/", answer(200, {"Content-Type": mediatype.OCI_MANIFEST}, setting.held.index))
    with pytest.raises(UpstreamRefused, match="other bytes than") as caught:
        await setting.document()
    assert caught.value.status == 502


@pytest.mark.parametrize("said", [mediatype.OCI_INDEX, mediatype.DOCKER_MANIFEST])
async def test_a_media_type_that_contradicts_is_refused(setting: Setting, said: str) -> None:
    """A manifest that comes as something else than it says of itself would have two meanings."""
    setting.proxy.on("/manifests/", answer(200, {"Content-Type": said}, setting.held.manifest))
    with pytest.raises(UpstreamRefused, match="no manifest"):
        await setting.document()


@pytest.mark.parametrize("said", ["", "text/plain", "application/json; charset=utf-8", "application/octet-stream"])
async def test_a_media_type_that_says_nothing_is_the_document_s_own(setting: Setting, said: str) -> None:
    """Static file servers do not know what a manifest is; it says so itself."""
    setting.proxy.on("/manifests/", answer(200, {"Content-Type": said} if said else {}, setting.held.manifest))
    found = await setting.upstream.document(REGISTRY, setting.held.repository, setting.held.manifest_digest)
    assert found.media_type == mediatype.OCI_MANIFEST
    assert await setting.resolve() == setting.held.root


@pytest.mark.parametrize("fault", ["no digest", "wrong digest", "405", "no length"])
async def test_a_tag_is_fetched_where_head_does_not_tell(setting: Setting, fault: str) -> None:
    """Registries that answer HEAD badly are asked by GET, and what comes is hashed."""
    full = {"Content-Type": mediatype.OCI_MANIFEST, "Docker-Content-Digest": str(setting.held.manifest_digest)}
    size = {"Content-Length": str(len(setting.held.manifest))}
    heads = {
        "no digest": answer(200, {"Content-Type": mediatype.OCI_MANIFEST} | size),
        "wrong digest": answer(200, full | size | {"Docker-Content-Digest": "sha256:short"}),
        "405": answer(405),
        "no length": answer(200, full | {"Transfer-Encoding": "chunked"}),
    }
    setting.proxy.on("HEAD", heads[fault])
    assert await setting.resolve() == setting.held.root
    assert setting.proxy.count("GET") == 1


async def test_a_head_is_enough_for_a_tag(setting: Setting) -> None:
    """A tag costs one HEAD, which no quota counts."""
    await setting.resolve()
    assert [each.method for each in setting.proxy.asked] == ["HEAD"]
    assert mediatype.OCI_INDEX in setting.proxy.told("accept")[0]


async def test_a_redirect_is_followed_to_a_blob_store(setting: Setting) -> None:
    """A blob comes from where the registry sends us, and after a break the registry is asked again."""
    setting.proxy.on("/blobs/", redirect(f"{setting.other.url}{{target}}"))
    setting.other.on("/blobs/", cut(100_000), times=1)
    assert await setting.layer() == setting.held.layer
    assert setting.other.told("range") == ["bytes=100000-"]
    assert setting.proxy.count("GET") == setting.other.count("GET") == 2
    assert await setting.upstream.blob_size(REGISTRY, setting.held.repository, setting.held.layer_digest) == 300_000


async def test_a_blob_store_that_knows_get_alone_tells_the_length(setting: Setting) -> None:
    """Where an address is signed for GET, the length is asked for with one byte."""
    setting.proxy.on("/blobs/", redirect(f"{setting.other.url}{{target}}"))
    setting.other.on("HEAD", answer(403))
    size = await setting.upstream.blob_size(REGISTRY, setting.held.repository, setting.held.layer_digest)
    assert size == len(setting.held.layer)
    assert setting.other.told("range") == ["bytes=0-0"]


async def test_a_404_of_another_host_is_not_the_registry_s(setting: Setting) -> None:
    """Only the registry itself can say that it does not have a blob."""
    setting.proxy.on("/blobs/", redirect(f"{setting.other.url}{{target}}"))
    setting.other.on("/blobs/", answer(404))
    with pytest.raises(UpstreamRefused) as caught:
        await setting.layer()
    assert caught.value.status == 502
    setting.proxy.clear()
    setting.proxy.on("/blobs/", answer(404))
    with pytest.raises(NotHere):
        await setting.layer()


@pytest.mark.parametrize(
    "location",
    [
        *("{target}", "{target}?again", "/v2/?round={target}{target}", "ftp://x.test/", "http://["),
        *(
            "http://a:b@x.test/",
            "file:///etc/passwd",
            "http://x.test:99999/",
            "http:///v2/",
            "http://2130706433/",
            "http://0x7f.1/",
        ),
    ],
)
async def test_redirects_that_lead_nowhere_end(setting: Setting, location: str) -> None:
    """Circles, chains without end and what is no URL of HTTP are refused."""
    setting.proxy.on("/v2/", redirect(location))
    with trio.fail_after(10), pytest.raises(UpstreamRefused, match="redirects") as caught:
        await setting.layer()
    assert caught.value.status == 502
    assert len(setting.proxy.asked) <= 6


async def test_a_connection_that_was_kept_and_is_dead_costs_nothing(
    setting: Setting, docker_registry: DockerRegistry
) -> None:
    """A registry that restarted in between is asked anew, without an error."""
    async with client(docker_registry.url) as made:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(made.upstream.resolve, REGISTRY, setting.held.repository, "v1")
            with docker_registry.stopped():
                pass
        assert made.asked("ok") == 8
        assert await made.upstream.resolve(REGISTRY, setting.held.repository, "v1") == setting.held.root
        assert made.asked("unreachable") == 0


async def test_no_answer_is_unreachable(setting: Setting) -> None:
    """A connection that ends without a word is Unreachable, after one more try."""
    setting.proxy.on("/v2/", hang_up)
    with pytest.raises(Unreachable):
        await setting.resolve()
    assert len(setting.proxy.asked) == 2
    assert not setting.upstream.is_reachable(REGISTRY)


async def test_tags_come_page_after_page(setting: Setting, docker_registry: DockerRegistry) -> None:
    """Pages are followed by their links, on the registry's host alone, and a list without end ends."""

    async def page(exchange: Exchange) -> None:
        last = exchange.asked.target.partition("last=")[2] or "0"
        link = {
            "0": f"<{setting.proxy.url}/v2/library/app/tags/list?last=1>",
            "1": "</v2/library/app/tags/list?last=2>",
        }
        headers = {"Link": f'{link[last]}; rel="next"'} if last in link else {}
        await exchange.send(200, headers, b'{"tags":["t%b","!","x",5]}' % last.encode())

    setting.proxy.on("/tags/list", page)
    assert await setting.tags() == ["t0", "t1", "t2", "x"]
    setting.proxy.clear()
    evil = {"Link": f'<{setting.other.url}/v2/library/app/tags/list>; rel="next"'}
    setting.proxy.on("/tags/list", answer(200, evil, b'{"tags":["a"]}'))
    assert await setting.tags() == ["a"]
    assert not setting.other.asked
    setting.proxy.clear()
    again = {"Link": '</v2/library/app/tags/list>; rel="next"'}
    setting.proxy.on("/tags/list", answer(200, again, b'{"tags":["a"]}'))
    assert await setting.tags() == ["a"]
    for body in (b"[]", b"{}", b'{"tags":null}'):
        setting.proxy.clear()
        setting.proxy.on("/tags/list", answer(200, {}, body))
        if body == b"[]":
            with pytest.raises(UpstreamRefused):
                await setting.tags()
        else:
            assert await setting.tags() == []


async def test_more_tags_than_a_page_holds(
    setting: Setting, docker_registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real registry's pages are followed to the end."""
    monkeypatch.setattr("p2pmirror.upstream.listing.PAGE_TAGS", 2)
    docker_registry.push_tags(setting.held, *(f"n{number}" for number in range(7)))
    assert {"v1", "latest", *(f"n{number}" for number in range(7))} <= set(await setting.tags())


async def test_a_list_of_referrers_is_preferred_to_the_tag(setting: Setting) -> None:
    """Where the registry has the endpoint, it is believed, empty too; where not, the referrers' tag is asked."""
    digest = setting.held.manifest_digest
    empty = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    setting.proxy.on("/referrers/", answer(200, {"Content-Type": mediatype.OCI_INDEX}, empty), times=1)
    assert await setting.upstream.referrers(REGISTRY, setting.held.repository, digest) == ()
    (found,) = await setting.upstream.referrers(REGISTRY, setting.held.repository, digest)
    assert found.digest == Digest.of(setting.held.signature)


async def test_one_line_a_question_and_no_word_of_a_refusal(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what was asked and how it ended; never what a refusal's body or a redirect's URL held."""
    caplog.set_level(logging.DEBUG)
    body = b'{"errors":[{"code":"DENIED","message":"token dckr_jti_secret hunter2"}]}'
    setting.proxy.on("HEAD", answer(403, {}, body))
    setting.proxy.on("/blobs/", redirect(f"{setting.other.url}/store?signature=hunter2"))
    with pytest.raises(UpstreamRefused, match=r"answered 403"):
        await setting.resolve()
    with pytest.raises(UpstreamRefused):
        await setting.layer()
    lines = [record for record in caplog.records if record.getMessage() == "upstream.asked"]
    told = [(each.fields["kind"], each.fields["status"], each.fields["outcome"]) for each in lines]
    assert told == [("manifest", 403, "denied"), ("blob", 502, "wrong")]
    ours = [record for record in caplog.records if record.name.startswith("p2pmirror")]
    assert "hunter2" not in str([vars(record) for record in ours])
