from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import (
    Base,
    BlobPath,
    Digest,
    Invalid,
    ManifestPath,
    NotAPath,
    ReferrersPath,
    TagsPath,
    blob_path,
    manifest_path,
    parse_path,
)
from tests.oci.strategies import digests, repositories, tags

DIGEST = Digest.of(b"abc")

READ = {
    "/v2": Base(),
    "/v2/": Base(),
    "/v2/library/nginx/manifests/latest": ManifestPath("library/nginx", "latest"),
    f"/v2/library/nginx/manifests/{DIGEST}": ManifestPath("library/nginx", DIGEST),
    f"/v2/nginx/blobs/{DIGEST}": BlobPath("nginx", DIGEST),
    "/v2/a/b/c/tags/list": TagsPath("a/b/c"),
    f"/v2/a/referrers/{DIGEST}": ReferrersPath("a", DIGEST),
    "/v2/manifests/manifests/manifests": ManifestPath("manifests", "manifests"),
    "/v2/blobs/manifests/blobs": ManifestPath("blobs", "blobs"),
    f"/v2/a/manifests/b/blobs/{DIGEST}": BlobPath("a/manifests/b", DIGEST),
    "/v2/a/tags/list/tags/list": TagsPath("a/tags/list"),
    f"/v2/a/blobs/{str(DIGEST).replace(':', '%3A')}": BlobPath("a", DIGEST),
    "/v2/library%2Fnginx/manifests/v1%2e2": ManifestPath("library/nginx", "v1.2"),
}

REFUSED = {
    "/v2//manifests/latest": "NAME_INVALID",
    "/v2/a//b/manifests/latest": "NAME_INVALID",
    "/v2/a//manifests/latest": "NAME_INVALID",
    "/v2//a/manifests/latest": "NAME_INVALID",
    "/v2/../a/manifests/latest": "NAME_INVALID",
    "/v2/a/../../manifests/latest": "NAME_INVALID",
    "/v2/a/%2e%2e/manifests/latest": "NAME_INVALID",
    "/v2/a%252fb/manifests/latest": "NAME_INVALID",
    "/v2/a%00/manifests/latest": "NAME_INVALID",
    "/v2/a\0/manifests/latest": "NAME_INVALID",
    "/v2/a%/manifests/latest": "NAME_INVALID",
    "/v2/a%zz/manifests/latest": "NAME_INVALID",
    "/v2/a%ff/manifests/latest": "NAME_INVALID",
    "/v2/A/tags/list": "NAME_INVALID",
    "/v2/ä/tags/list": "NAME_INVALID",
    "/v2/a" + "/a" * 150 + "/tags/list": "NAME_INVALID",
    "/v2/" + "a" * 2000 + "/tags/list": "NAME_INVALID",
    "/v2/a/manifests/": "TAG_INVALID",
    "/v2/a/manifests/..": "TAG_INVALID",
    "/v2/a/manifests/a%20b": "TAG_INVALID",
    "/v2/a/manifests/latest?ns=docker.io": "TAG_INVALID",
    "/v2/a/manifests/sha256:abc": "DIGEST_INVALID",
    "/v2/a/blobs/": "DIGEST_INVALID",
    "/v2/a/blobs/latest": "DIGEST_INVALID",
    f"/v2/a/blobs/{DIGEST}%00": "DIGEST_INVALID",
    "/v2/a/referrers/latest": "DIGEST_INVALID",
}

NOT_PATHS = [
    "",
    "/",
    "v2/",
    "/v1/",
    "/V2/",
    "//v2/",
    "/v2a",
    "/v2//",
    "/v2/_catalog",
    "/v2/manifests/latest",
    "/v2/tags/list",
    "/v2/a/tags",
    "/v2/a/tags/",
    "/v2/a/tags/other",
    "/v2/a/manifests",
    "/v2/a/manifests/b/c",
    "/v2/a/manifests/b%2Fc",
    "/v2/a/blobs/uploads/",
    f"/v2/a/blobs/{DIGEST}/",
    f"/x/v2/a/blobs/{DIGEST}",
    "/p2p/v1/flights/x",
    "/metrics",
]


@pytest.mark.parametrize("path", READ)
def test_each_endpoint_is_read(path):
    """The endpoints that read are told apart by their last two components, percent-encoded or not."""
    assert parse_path(path) == READ[path]


@pytest.mark.parametrize("path", REFUSED)
def test_a_wrong_part_is_named(path):
    """An endpoint's path with a wrong name, tag or digest is refused with that part's code, every time."""
    for _ in range(2):
        with pytest.raises(Invalid) as refusal:
            parse_path(path)
        assert not isinstance(refusal.value, NotAPath)
        assert refusal.value.code == REFUSED[path]


@pytest.mark.parametrize("path", NOT_PATHS)
def test_other_paths_are_not_ours(path):
    """A path of no endpoint is told apart from a wrong one."""
    with pytest.raises(NotAPath):
        parse_path(path)


@given(repositories, tags, digests.map(Digest.parse))
def test_a_path_survives(repository, tag, digest):
    """Built paths are read as what they were built of, and again when everything in them is percent-encoded."""
    for path, meant in (
        (manifest_path(repository, tag), ManifestPath(repository, tag)),
        (manifest_path(repository, digest), ManifestPath(repository, digest)),
        (blob_path(repository, digest), BlobPath(repository, digest)),
    ):
        assert parse_path(path) == meant
        assert parse_path(quote(path, safe="/")) == meant


def test_no_path_is_built_of_wrong_parts():
    """A name or tag that would make another path of it is refused before anything is sent."""
    for build in (
        lambda: manifest_path("../x", "latest"),
        lambda: manifest_path("a", "../blobs"),
        lambda: blob_path("a?b", DIGEST),
    ):
        with pytest.raises(Invalid):
            build()


@given(st.text() | st.from_regex(r"/v2/([a-z./%0-9]|manifests|blobs|tags/list)*", fullmatch=True))
def test_arbitrary_paths_are_read_or_invalid(path):
    """No path makes reading fail in another way, and no part that is read can lead out of its place."""
    try:
        read = parse_path(path)
    except Invalid:
        return
    if not isinstance(read, Base):
        assert not {"", ".", ".."} & set(read.repository.split("/"))
