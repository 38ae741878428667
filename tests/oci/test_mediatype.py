import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import Invalid, mediatype


def test_every_listed_type_is_well_formed_and_listed_once():
    """All constants pass the syntax check and no two of them are the same."""
    listed = [value for name, value in vars(mediatype).items() if name.isupper() and isinstance(value, str)]
    assert len(listed) == len(set(listed)) == 22
    for media_type in listed:
        assert mediatype.check(media_type) == media_type


@pytest.mark.parametrize(
    ("media_type", "kinds"),
    [
        ("application/vnd.docker.distribution.manifest.v2+json", {"is_manifest", "describes"}),
        ("application/vnd.docker.distribution.manifest.list.v2+json", {"is_index", "describes"}),
        ("application/vnd.oci.image.manifest.v1+json", {"is_manifest", "describes"}),
        ("application/vnd.oci.image.index.v1+json", {"is_index", "describes"}),
        ("application/vnd.oci.artifact.manifest.v1+json", {"is_manifest", "describes"}),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", set()),
        ("application/vnd.docker.container.image.v1+json", set()),
        ("application/vnd.oci.image.config.v1+json", set()),
        ("application/vnd.oci.empty.v1+json", set()),
        ("application/vnd.oci.image.layer.v1.tar+zstd", set()),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", set()),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", {"is_foreign"}),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", {"is_foreign"}),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", {"is_foreign"}),
        ("application/octet-stream", set()),
        ("Application/vnd.oci.image.index.v1+json", set()),
        ("", set()),
    ],
)
def test_kinds(media_type, kinds):
    """Each media type is of exactly the kinds that the specifications give it, compared as it is written."""
    for kind in ("is_index", "is_manifest", "describes", "is_foreign"):
        assert getattr(mediatype, kind)(media_type) == (kind in kinds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "a/b;c=d",
        "a /b",
        "a/b\n",
        "ä/b",
        "+a/b",
        "a/.b",
        "a/" + "b" * 128,
        "a" * 128 + "/b",
    ],
)
def test_what_is_no_media_type_is_refused(text):
    """Parameters, spaces, missing or overlong halves are not taken for a media type."""
    with pytest.raises(Invalid) as refusal:
        mediatype.check(text)
    assert refusal.value.code == "MANIFEST_INVALID"


@given(st.text())
def test_arbitrary_text_is_a_media_type_or_invalid(text):
    """What the check lets through can stand in a header: visible ASCII with one slash."""
    try:
        mediatype.check(text)
    except Invalid:
        return
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert text.count("/") == 1
