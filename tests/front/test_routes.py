"""Paths, names, filters, errors: which answer a request gets."""

import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.errors import BadRequest, NotHere, PeerMisbehaved, StoreFull, Unreachable, UpstreamRefused
from p2pmirror.oci import Descriptor, Digest, mediatype
from p2pmirror.oci.filters import Filters
from p2pmirror.peers.protocol import Follow, RegistrySaid
from p2pmirror.resolve.want import Content, InHand
from p2pmirror.wire.http_head import response_head
from p2pmirror.wire.ranges import Unsatisfiable
from tests.front.setting import THERE, Bench, send

DIGEST = Digest.of(b"{}")
MANIFEST = InHand(Content(DIGEST, 2, mediatype.OCI_MANIFEST), b"{}")
BLOB_TARGET = f"/v2/a/b/blobs/{DIGEST}"


def code_of(response):
    """Return the one OCI error code of a body that is exactly an OCI error."""
    assert response.headers["Content-Type"] == "application/json"
    document = json.loads(response.body)
    assert list(document) == ["errors"]
    [error] = document["errors"]
    assert {"code", "message"} <= set(error) <= {"code", "message", "detail"}
    assert error["message"]
    return error["code"]


@pytest.mark.parametrize("target", ["/v2/", "/v2", "/v2/?ns=docker.io"])
async def test_the_base_says_that_a_registry_is_here(bench, target):
    """`/v2/` with and without its slash is 200 with an empty object and the API's version, for HEAD too."""
    for method in ("GET", "HEAD"):
        response = await bench.ask(target, method)
        assert (response.status, response.body) == (200, b"{}")
        assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


async def test_who_waits_for_a_harbor_is_answered(bench):
    """Harbor's ping is 200, by which scripts see that their mirror is up; what only looks like it is not here."""
    for method in ("GET", "HEAD"):
        response = await bench.ask("/api/v2.0/ping", method)
        assert (response.status, response.body) == (200, b"Pong")
    assert (await bench.ask("/api/v2.0/pings")).status == 404
    assert (await bench.ask("/api/v2.0/ping", "POST")).status == 404


@pytest.mark.parametrize(
    ("query", "registry"),
    [
        ("", "docker.io"),
        ("?ns=ghcr.io", "ghcr.io"),
        ("?ns=index.docker.io", "docker.io"),
        ("?ns=registry-1.docker.io", "docker.io"),
        ("?ns=localhost%3A5000", "localhost:5000"),
        ("?x=1&ns=GHCR.io&ns=GHCR.io", "ghcr.io"),
    ],
)
async def test_ns_names_the_registry(bench, query, registry):
    """`ns` is decoded and brought to its one spelling; without it the default registry is meant."""
    await bench.ask(f"/v2/library/nginx/manifests/latest{query}")
    assert (bench.resolver.wants[0].registry, bench.resolver.wants[0].repository) == (registry, "library/nginx")


async def test_the_default_registry_is_an_option():
    """Requests without `ns` are for the configured registry, brought to its one spelling."""
    bench = Bench().build(default_registry="Registry.Example.com")
    await bench.ask("/v2/nginx/manifests/latest")
    assert bench.resolver.wants[0].name == "registry.example.com/nginx:latest"


async def test_docker_io_has_its_library(bench):
    """docker.io's `nginx` is `library/nginx`; another registry's is its own."""
    await bench.ask("/v2/nginx/manifests/latest")
    await bench.ask("/v2/nginx/manifests/latest?ns=ghcr.io")
    assert [want.name for want in bench.resolver.wants] == ["docker.io/library/nginx:latest", "ghcr.io/nginx:latest"]


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/v2/a/manifests/latest?ns=http://evil", 400, "NAME_INVALID"),
        ("/v2/a/manifests/latest?ns=", 400, "NAME_INVALID"),
        ("/v2/a/manifests/latest?ns=a.io&ns=b.io", 400, "NAME_INVALID"),
        ("/v2/a/manifests/latest?x=" + "y" * 3000, 400, "UNSUPPORTED"),
        ("/v2/UPPER/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/../manifests/latest", 400, "NAME_INVALID"),
        ("/v2/a/manifests/-bad", 400, "TAG_INVALID"),
        ("/v2/a/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha256:abc", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"),
        ("/v2/a/manifests/blake3:" + "a" * 64, 400, "DIGEST_INVALID"),
        ("/v2/a/referrers/x", 400, "DIGEST_INVALID"),
        ("/v2/_catalog", 404, "UNSUPPORTED"),
        ("/v2/a/b/c", 404, "UNSUPPORTED"),
        ("/", 404, "UNSUPPORTED"),
        ("/p2p/v1/flights/x", 403, "DENIED"),
        ("/v2/a/manifests/latest", 404, "MANIFEST_UNKNOWN"),
        (BLOB_TARGET, 404, "BLOB_UNKNOWN"),
        ("/v2/a/tags/list", 404, "NAME_UNKNOWN"),
        (f"/v2/a/referrers/{DIGEST}", 404, "MANIFEST_UNKNOWN"),
    ],
)
async def test_each_wrong_request_has_its_code(bench, target, status, code):
    """Bad names, tags, digests and paths get their status and OCI code; HEAD has that body's length alone."""
    response = await bench.ask(target)
    assert (response.status, code_of(response)) == (status, code)
    head = await bench.ask(target, "HEAD")
    assert (head.status, head.body, head.headers) == (status, b"", response.headers)
    assert head.headers["Content-Length"] == str(len(response.body))


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "get", "BREW"])
@pytest.mark.parametrize("target", ["/v2/", "/v2", "/v2/a/blobs/uploads/", "/v2/a/manifests/latest", "/v2/?ns=%"])
async def test_writes_are_405(bench, method, target):
    """Everything but GET and HEAD under /v2 is 405 UNSUPPORTED, and says what is allowed."""
    response = await bench.ask(target, method)
    assert (response.status, code_of(response), response.headers["Allow"]) == (405, "UNSUPPORTED", "GET, HEAD")


@pytest.mark.parametrize(
    ("error", "with_fallback", "without"),
    [
        (NotHere("nobody"), (404, "BLOB_UNKNOWN", "miss"), (404, "BLOB_UNKNOWN", "miss")),
        (Unreachable("no answer"), (404, "BLOB_UNKNOWN", "error"), (503, "UNAVAILABLE", "error")),
        (StoreFull("full"), (404, "BLOB_UNKNOWN", "error"), (503, "UNAVAILABLE", "error")),
        (PeerMisbehaved("lies"), (404, "BLOB_UNKNOWN", "error"), (503, "UNAVAILABLE", "error")),
        (UpstreamRefused("401", status=401), (404, "BLOB_UNKNOWN", "error"), (403, "DENIED", "error")),
        (UpstreamRefused("404", status=404), (404, "BLOB_UNKNOWN", "error"), (404, "BLOB_UNKNOWN", "miss")),
        (UpstreamRefused("429", status=429), (404, "BLOB_UNKNOWN", "error"), (429, "TOOMANYREQUESTS", "error")),
        (UpstreamRefused("502", status=502), (404, "BLOB_UNKNOWN", "error"), (503, "UNAVAILABLE", "error")),
        (Unsatisfiable(7), (416, "RANGE_INVALID", "refused"), (416, "RANGE_INVALID", "refused")),
        (BadRequest("no"), (400, "UNSUPPORTED", "refused"), (400, "UNSUPPORTED", "refused")),
    ],
)
async def test_the_table_of_errors(error, with_fallback, without):
    """Each error before the head has its status, code and outcome, with fallback and without; never a challenge."""
    for fallback, (status, code, outcome) in ((True, with_fallback), (False, without)):
        bench = Bench().build(fallback=fallback)
        bench.resolver.found[DIGEST] = error
        response = await bench.ask(BLOB_TARGET)
        await send(response)
        assert (response.status, code_of(response), bench.front.recent()[0].outcome) == (status, code, outcome)
        assert "WWW-Authenticate" not in response.headers
        assert ("Retry-After" in response.headers) == (status == 503)


async def test_a_miss_tells_how_many_were_asked(bench):
    """The detail of a miss counts the peers that were asked; a wrong request has no such detail."""
    bench.resolver.attempts = 3
    assert json.loads((await bench.ask(BLOB_TARGET)).body)["errors"][0]["detail"] == {"attempts": 3}
    assert "detail" not in json.loads((await bench.ask("/v2/A/blobs/x")).body)["errors"][0]


@pytest.mark.parametrize(
    ("said", "waits_s"),
    [("500", 0.5), ("999999", 999.999), ("1000000", 0), ("-5", 0), ("1.5", 0), ("", 0), ("\u0665", 0), ("x", 0)],
)
async def test_a_peer_says_how_long_it_waits(bench, said, waits_s):
    """In milliseconds; nonsense is no wait at all."""
    await bench.ask("/v2/a/manifests/1", "HEAD", P2PMirror_Peer=THERE.hex(), P2PMirror_Waits=said)
    assert bench.resolver.wants[-1].waits_s == waits_s


@pytest.mark.parametrize(("status", "outcome"), [(404, "miss"), (403, "error"), (429, "error"), (503, "error")])
async def test_a_peer_that_waits_is_told_what_the_registry_said(status, outcome):
    """A 404 with the registry's status, with fallback and without: what it means to containerd is the peer's to say."""
    for fallback in (True, False):
        bench = Bench().build(fallback=fallback)
        bench.resolver.found["1"] = RegistrySaid("refused", status)
        response = await bench.ask("/v2/a/manifests/1", "HEAD", P2PMirror_Peer=THERE.hex(), P2PMirror_Waits="500")
        await send(response, "HEAD")
        assert (response.status, response.headers["P2PMirror-Upstream"]) == (404, str(status))
        assert bench.front.recent()[0].outcome == outcome


async def test_a_peer_that_waits_in_vain_is_told_to_go_on(bench):
    """503 that names this node: it is still asking."""
    bench.resolver.found["1"] = Follow("still", THERE)
    response = await bench.ask("/v2/a/manifests/1", "HEAD", P2PMirror_Peer=THERE.hex(), P2PMirror_Waits="500")
    assert (response.status, response.headers["P2PMirror-Leader"]) == (503, THERE.hex())


async def test_a_long_message_is_cut(bench):
    """What an error says is bounded, whoever wrote it."""
    bench.resolver.found[DIGEST] = NotHere("x" * 10_000)
    assert len((await bench.ask(BLOB_TARGET)).body) < 500


async def test_filters_bind_clients_and_peers():
    """A name that is not let through is not here, for containerd and for peers, and is not looked for."""
    bench = Bench().build(filters=Filters(["!ghcr.io/secret/.*"]))
    bench.resolver.found[DIGEST] = bench.resolver.found["v1"] = MANIFEST
    bench.resolver.held_tags["ghcr.io/secret/x"] = ["v1"]
    for headers in ({}, {"P2PMirror_Peer": THERE.hex()}):
        for target in (f"blobs/{DIGEST}", f"manifests/{DIGEST}", "manifests/v1", "tags/list", f"referrers/{DIGEST}"):
            assert (await bench.ask(f"/v2/secret/x/{target}?ns=ghcr.io", **headers)).status == 404
    assert bench.resolver.wants == []
    assert (await bench.ask("/v2/open/x/manifests/v1?ns=ghcr.io")).status == 200


async def test_registries_only_serves_the_configured():
    """With `registries_only` another registry is 404; an alias of a configured one is the configured one."""
    bench = Bench().build(registries_only=True, registries=frozenset({"index.docker.io", "ghcr.io"}))
    bench.resolver.found["v1"] = MANIFEST
    for registry, status in (("docker.io", 200), ("ghcr.io", 200), ("quay.io", 404)):
        assert (await bench.ask(f"/v2/a/manifests/v1?ns={registry}")).status == status


@pytest.mark.parametrize(
    ("query", "tags", "link"),
    [
        ("", ["1", "2", "A", "b"], None),
        ("n=2", ["1", "2"], '</v2/x/y/tags/list?n=2&last=2>; rel="next"'),
        ("n=2&last=2", ["A", "b"], None),
        ("n=2&last=1&ns=a.io%3A5", ["2", "A"], '</v2/x/y/tags/list?n=2&last=A&ns=a.io%3A5>; rel="next"'),
        ("last=1x", ["2", "A", "b"], None),
        ("last=zz", [], None),
        ("n=0", [], None),
        ("n=999999999", ["1", "2", "A", "b"], None),
    ],
)
async def test_tags_come_in_pages(bench, query, tags, link):
    """`n` and `last` cut pages out of the sorted tags; Link names the next page as long as there is one."""
    for name in ("docker.io/x/y", "a.io:5/x/y"):
        bench.resolver.held_tags[name] = ["1", "2", "A", "b"]
    response = await bench.ask(f"/v2/x/y/tags/list?{query}")
    assert json.loads(response.body) == {"name": "x/y", "tags": tags}
    assert (response.status, response.headers.get("Link")) == (200, link)


@pytest.mark.parametrize("n", ["-1", "x", "", "1e3", "9" * 5000])
async def test_n_is_a_number(bench, n):
    """A page of an `n` that is no number is 400 (or 400 for its length)."""
    bench.resolver.held_tags["docker.io/x/y"] = ["1"]
    assert (await bench.ask(f"/v2/x/y/tags/list?n={n}")).status == 400


async def test_tags_are_filtered_one_by_one():
    """Tags that the filters keep back are not listed."""
    bench = Bench().build(filters=Filters(["!.*:secret.*"]))
    bench.resolver.held_tags["docker.io/x/y"] = ["open", "secret-1"]
    assert json.loads((await bench.ask("/v2/x/y/tags/list")).body)["tags"] == ["open"]


SIGNATURE = Descriptor(
    mediatype.OCI_MANIFEST, Digest.of(b"s"), 5, artifact_type="application/vnd.sig+json", annotations={"k": "v"}
)
SBOM = Descriptor(mediatype.OCI_MANIFEST, Digest.of(b"b"), 6, artifact_type="application/spdx")


async def test_referrers_are_an_index(bench):
    """Held referrers come as an image index with types and annotations."""
    bench.resolver.held_referrers[DIGEST] = (SIGNATURE, SBOM)
    response = await bench.ask(f"/v2/a/referrers/{DIGEST}")
    assert response.headers["Content-Type"] == mediatype.OCI_INDEX
    assert "OCI-Filters-Applied" not in response.headers
    assert json.loads(response.body) == {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": [
            {
                "mediaType": mediatype.OCI_MANIFEST,
                "digest": str(SIGNATURE.digest),
                "size": 5,
                "artifactType": "application/vnd.sig+json",
                "annotations": {"k": "v"},
            },
            {
                "mediaType": mediatype.OCI_MANIFEST,
                "digest": str(SBOM.digest),
                "size": 6,
                "artifactType": "application/spdx",
            },
        ],
    }


@pytest.mark.parametrize(
    ("asked", "count"),
    [("application/vnd.sig%2Bjson", 1), ("application/vnd.sig+json", 1), ("application/spdx", 1), ("a/none", 0)],
)
async def test_referrers_by_artifact_type(bench, asked, count):
    """Only those of the type asked for are listed, the answer says that it did so, and none is a valid answer."""
    bench.resolver.held_referrers[DIGEST] = (SIGNATURE, SBOM)
    response = await bench.ask(f"/v2/a/referrers/{DIGEST}?artifactType={asked}")
    assert response.headers["OCI-Filters-Applied"] == "artifactType"
    assert len(json.loads(response.body)["manifests"]) == count


async def test_no_referrers_is_said_by_who_holds_the_subject(bench):
    """An empty index comes only from a node that holds the subject, or from its registry; no peer is asked for it."""
    assert (await bench.ask(f"/v2/a/referrers/{DIGEST}")).status == 404
    bench.resolver.held_referrers[DIGEST] = ()
    response = await bench.ask(f"/v2/a/referrers/{DIGEST}")
    assert (response.status, json.loads(response.body)["manifests"]) == (200, [])
    assert bench.resolver.wants == []


@pytest.mark.parametrize(
    ("target", "registry", "repository"),
    [
        ("/v2/ghcr.io/org/app/manifests/1", "ghcr.io", "org/app"),
        ("/v2/index.docker.io/nginx/manifests/1", "docker.io", "library/nginx"),
        ("/v2/org/app/manifests/1", "docker.io", "org/app"),
        ("/v2/nginx/manifests/1", "docker.io", "library/nginx"),
        ("/v2/ghcr.io/manifests/1", "docker.io", "library/ghcr.io"),
        ("/v2/ghcr.io/org/app/manifests/1?ns=quay.io", "quay.io", "ghcr.io/org/app"),
    ],
)
async def test_a_name_may_begin_with_its_registry(bench, target, registry, repository):
    """Clients that send no `ns` name the registry in the path; with one, the path is the repository's alone."""
    await bench.ask(target)
    assert [(want.registry, want.repository) for want in bench.resolver.wants] == [(registry, repository)]


async def test_a_stale_tag_says_so(bench):
    """What a registry said before it fell silent is answered with a warning."""
    bench.resolver.found["1"] = MANIFEST
    assert "Warning" not in (await bench.ask("/v2/a/manifests/1")).headers
    bench.resolver.is_stale = True
    assert (await bench.ask("/v2/a/manifests/1")).headers["Warning"].startswith("110 ")


async def test_a_bug_is_left_to_the_server(bench):
    """An error that nobody foresaw goes on to the server, and is counted as an error once."""
    bench.resolver.found[DIGEST] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await bench.ask(BLOB_TARGET)
    assert bench.metric("requests_total", kind="blob", source="none", outcome="error") == 1
    assert bench.front.recent()[0].status == 500


TEXTS = st.text(alphabet=st.characters(max_codepoint=255), max_size=40)
TARGETS = st.one_of(
    TEXTS,
    st.builds("/v2/{}/{}/{}?{}={}".format, TEXTS, st.sampled_from(["manifests", "blobs", "tags", "referrers"]), TEXTS,
              st.sampled_from(["ns", "n", "last", "artifactType", "%"]), TEXTS),
    st.builds("/v2/a/tags/list?n={}&last={}&ns={}".format, TEXTS, TEXTS, TEXTS),
    st.builds(f"/v2/a/blobs/{DIGEST}?ns={{}}".format, TEXTS),
)  # fmt: skip
FIELDS = st.dictionaries(st.sampled_from(["range", "if-range", "if-none-match", "p2pmirror-peer", "accept"]), TEXTS)


@given(target=TARGETS, method=st.sampled_from(["GET", "HEAD", "PUT", ""]), headers=FIELDS)
def test_whatever_comes_in_gets_a_proper_answer(target, method, headers):
    """Arbitrary paths, queries and headers get content, 304 or an OCI error, and their headers can be sent."""

    async def main():
        bench = Bench().build()
        bench.resolver.found[DIGEST] = MANIFEST
        bench.resolver.held_tags["docker.io/library/a"] = ["x", "y"]
        response = await bench.ask(target, method, **headers)
        assert response.status in {200, 206, 304, 400, 404, 405, 416}
        response_head(response, method=method, date="now", connection=None)  # ValueError when it cannot be sent
        assert "WWW-Authenticate" not in response.headers
        if response.status >= 400 and method != "HEAD":
            code_of(response)
        await send(response, method)
        assert bench.metric("in_flight_requests") == 0

    trio.run(main)
