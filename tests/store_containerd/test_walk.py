"""What containerd's images amount to, decided without any containerd."""

import pytest

from p2pmirror.oci import Digest, Invalid, TagName
from p2pmirror.store.containerd.api.containerd_pb2 import Image as ImageRecord
from p2pmirror.store.containerd.api.containerd_pb2 import Target
from p2pmirror.store.containerd.walk import Listing, listing_of, read_image, survey_of
from tests.store.images import Image, make_image

NAME = "registry.example/app:v1"


def record(name: str, image: Image) -> ImageRecord:
    root = image.root
    return ImageRecord(name=name, target=Target(media_type=root.media_type, digest=str(root.digest), size=root.size))


def walked(image: Image, names: list[str], absent: set[Digest] | None = None, **changed: bytes) -> Listing:
    """Walk one image under several names, without `absent`; `changed` gives other bytes by hex digest."""
    roots = [read_image(record(name, image)) for name in names]
    held = {digest: len(data) for digest, (data, _) in image.content.items() if digest not in (absent or set())}
    survey = survey_of(roots)
    read = set()
    while reads := survey.next_reads():
        for descriptor in reads:
            data = image.content[descriptor.digest][0] if descriptor.digest in held else None
            survey.answered(descriptor, changed.get(descriptor.digest.hex, data))
            read.add(descriptor.digest)
    return listing_of(survey, roots, held, read, 7.0)


@pytest.mark.parametrize(
    ("name", "tag", "odd"),
    [
        ("docker.io/library/nginx:1.27", "docker.io/library/nginx:1.27", False),
        ("index.docker.io/library/nginx:1.27", "docker.io/library/nginx:1.27", False),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", False),
        ("ghcr.io/a/b", None, False),
        ("ghcr.io/a/b@sha256:" + "0" * 64, None, False),
        ("ghcr.io/a/b:c@sha256:" + "0" * 64, None, False),
        ("sha256:" + "0" * 64, None, False),
        ("import-2024-01-01", None, True),
        ("nginx:latest", None, True),
        ("library/nginx:latest", None, True),
        ("", None, True),
        ("a\x00b", None, True),
    ],
)
def test_what_a_name_means(name, tag, odd):
    """A whole reference with a tag and no digest is a tag; what is no reference is odd, except CRI's alias."""
    root = read_image(record(name, make_image(None)))
    assert root.tag == (TagName.parse(tag) if tag else None)
    assert root.is_odd == odd


@pytest.mark.parametrize("digest", ["", "sha256:abc", "md5:" + "0" * 32])
def test_a_target_that_names_nothing(digest):
    """An image whose target has no digest is Invalid, and nothing else is raised."""
    with pytest.raises(Invalid):
        read_image(ImageRecord(name=NAME, target=Target(media_type="a/b", digest=digest, size=1)))
    with pytest.raises(Invalid):
        read_image(ImageRecord(name=NAME, target=Target(media_type="a/b", digest="sha256:" + "0" * 64, size=-1)))


def test_all_of_an_image():
    """Everything held is listed with its descriptor's media type and the names of all images that lead to it."""
    image = make_image(NAME)
    listing = walked(image, [NAME, f"registry.example/b@{image.root.digest}", "odd"])
    assert {info.digest: (info.size, info.media_type) for info in listing.blobs} == {
        digest: (len(data), media_type) for digest, (data, media_type) in image.content.items()
    }
    assert {info.names for info in listing.blobs} == {frozenset({"registry.example/app", "registry.example/b"})}
    assert [(str(tag.name), tag.digest, tag.since) for tag in listing.tags] == [(NAME, image.root.digest, 7.0)]


def test_missing_content_is_not_listed():
    """What is absent is not listed; content below an absent manifest is listed without a media type."""
    image = make_image(NAME, with_index=False)
    listing = walked(image, [NAME], absent={image.layers[0]})
    assert image.layers[0] not in {info.digest for info in listing.blobs}
    assert len(listing.tags) == 1
    listing = walked(image, [NAME], absent={image.root.digest})
    assert not listing.tags
    assert {info.media_type for info in listing.blobs} == {None}


def test_a_broken_manifest_is_no_tag():
    """A tag whose manifest has other bytes than its digest is not offered."""
    image = make_image(NAME)
    assert not walked(image, [NAME], **{image.root.digest.hex: b"{}"}).tags
