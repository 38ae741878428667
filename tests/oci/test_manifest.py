import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import (
    DOCUMENT_BYTES_MAX,
    Descriptor,
    Digest,
    Index,
    Invalid,
    Manifest,
    Platform,
    children,
    media_type_of,
    mediatype,
)
from p2pmirror.oci import parse_manifest as parse
from tests.oci.documents import descriptor, encoded, image, index

CONFIG = descriptor(mediatype.OCI_CONFIG, b"{}")
LAYER = descriptor(mediatype.OCI_LAYER_GZIP, b"layer")

DOCKER_IMAGE = b"""{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
   "config": {
      "mediaType": "application/vnd.docker.container.image.v1+json",
      "size": 1472,
      "digest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
   },
   "layers": [
      {
         "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
         "size": 1718332879,
         "digest": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
         "urls": ["https://layers.example/base"]
      },
      {
         "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
         "size": 2811969,
         "digest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
      }
   ]
}"""


def refusal_of(document, media_type=None):
    data = document if isinstance(document, bytes) else encoded(document)
    with pytest.raises(Invalid) as refusal:
        parse(data, media_type)
    return refusal.value


def test_a_docker_image_as_docker_writes_it():
    """A schema 2 manifest is read whole: config first, then the layers in order, foreign ones with their addresses."""
    manifest = parse(DOCKER_IMAGE, mediatype.DOCKER_MANIFEST)
    assert isinstance(manifest, Manifest)
    assert manifest.media_type == mediatype.DOCKER_MANIFEST
    assert manifest.config == Descriptor(mediatype.DOCKER_CONFIG, Digest.of(b""), 1472)
    foreign, layer = manifest.layers
    assert foreign.digest == Digest.of(b"abc")
    assert foreign.urls == ("https://layers.example/base",)
    assert mediatype.is_foreign(foreign.media_type)
    assert layer.size == 2811969
    assert children(manifest) == (manifest.config, foreign, layer)
    assert (manifest.subject, manifest.artifact_type, dict(manifest.annotations)) == (None, None, {})


def test_an_index_with_all_that_an_index_may_have():
    """Platforms, annotations, artifact types and the subject come through; fields nobody needs do not disturb."""
    arm = descriptor(
        mediatype.OCI_MANIFEST,
        b"arm",
        platform={"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1", "features": []},
        annotations={"a": "b", "A": "c", "ü": "☃"},
        artifactType="application/vnd.example+json",
        data="e30=",
    )
    other = descriptor(mediatype.OCI_INDEX, b"other", platform={"os": None})
    data = encoded(
        index(arm, other, subject=LAYER, artifactType="x/y", annotations={"k": "v"}, unknown={"Layers": [1.5, True]})
    )
    read = parse(data, None)
    assert isinstance(read, Index)
    assert children(read) == read.manifests
    assert read.manifests[0].platform == Platform("linux", "arm64", "v8")
    assert str(read.manifests[0].platform) == "linux/arm64/v8"
    assert read.manifests[0].annotations == {"a": "b", "A": "c", "ü": "☃"}
    assert read.manifests[0].artifact_type == "application/vnd.example+json"
    assert read.manifests[1].platform == Platform("", "")
    assert read.subject is not None
    assert read.subject.digest == Digest.of(b"layer")
    assert (read.artifact_type, dict(read.annotations)) == ("x/y", {"k": "v"})
    with pytest.raises(TypeError):
        read.annotations["k"] = "changed"


def test_an_artifact_manifest_has_blobs_and_no_config():
    """The blobs of an artifact manifest are its layers; there is no config among its children."""
    document = {
        "mediaType": mediatype.OCI_ARTIFACT_MANIFEST,
        "artifactType": "x/y",
        "blobs": [LAYER],
        "subject": CONFIG,
    }
    manifest = parse(encoded(document), mediatype.OCI_ARTIFACT_MANIFEST)
    assert isinstance(manifest, Manifest)
    assert manifest.config is None
    assert children(manifest) == manifest.layers
    assert [layer.digest for layer in manifest.layers] == [Digest.of(b"layer")]
    assert manifest.subject is not None


def test_values_can_be_keys():
    """Descriptors, manifests and indexes are equal when their texts are, and hash alike."""
    data = encoded(index(descriptor(mediatype.OCI_MANIFEST, annotations={"a": "b"}), annotations={"c": "d"}))
    assert parse(data, None) == parse(data, mediatype.OCI_INDEX)
    assert len({parse(data, None), parse(data, None)}) == 1
    assert len({parse(DOCKER_IMAGE, None), parse(DOCKER_IMAGE, None)}) == 1


@pytest.mark.parametrize(
    ("document", "asked", "media_type"),
    [
        (image(), None, mediatype.OCI_MANIFEST),
        (image(media_type=mediatype.DOCKER_MANIFEST), None, mediatype.DOCKER_MANIFEST),
        (image(media_type=None), None, mediatype.OCI_MANIFEST),
        (image(media_type=""), mediatype.DOCKER_MANIFEST, mediatype.DOCKER_MANIFEST),
        (image(media_type=None), mediatype.DOCKER_MANIFEST, mediatype.DOCKER_MANIFEST),
        (image(layers=None), mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        ({"config": CONFIG, "layers": []}, None, mediatype.OCI_MANIFEST),
        ({"config": CONFIG, "layers": [], "manifests": None}, None, mediatype.OCI_MANIFEST),
        (index(media_type=None), None, mediatype.OCI_INDEX),
        (index(media_type=mediatype.DOCKER_MANIFEST_LIST), None, mediatype.DOCKER_MANIFEST_LIST),
        (index(manifests=None), None, mediatype.OCI_INDEX),
    ],
)
def test_the_media_type_is_the_askers_then_the_documents_then_the_shapes(document, asked, media_type):
    """Who names a document knows what it is; else its own word counts, and else its shape. Null is absent."""
    assert parse(encoded(document), asked).media_type == media_type


@pytest.mark.parametrize(
    "document",
    [
        image(manifests=[]),
        image(media_type=None, manifests=[]),
        index(layers=[]),
        index(config=CONFIG),
        index(blobs=[]),
        image(blobs=[]),
        image(media_type=mediatype.OCI_ARTIFACT_MANIFEST),
        image(Layers=[]),
        image(LAYERS=[]),
        {**image(), "layer\u017f": []},
        image(Manifests=[]),
        index(media_type=None, MediaType=mediatype.OCI_MANIFEST),
        image(config={**CONFIG, "Digest": LAYER["digest"]}),
        b'{"schemaVersion": 2, "manifests": [], "manifests": []}',
        b'{"schemaVersion": 2, "manifests": [], "annotations": {"a": "b", "a": "c"}}',
    ],
)
def test_a_document_with_two_meanings_is_refused(document):
    """No document is an index to one reader and an image to another, by its parts, its spelling or repeated keys."""
    assert refusal_of(document).code == "MANIFEST_INVALID"


@pytest.mark.parametrize(
    ("document", "asked"),
    [
        (image(), mediatype.DOCKER_MANIFEST),
        (image(), mediatype.OCI_INDEX),
        (image(media_type=None), mediatype.OCI_INDEX),
        (index(), mediatype.OCI_MANIFEST),
        (index(media_type=None), mediatype.DOCKER_MANIFEST),
    ],
)
def test_a_document_is_what_it_was_asked_for_as(document, asked):
    """A document whose media type or parts contradict the descriptor that names it is refused."""
    assert refusal_of(document, asked).code == "MANIFEST_INVALID"


@pytest.mark.parametrize(
    ("document", "asked"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, None),
        ({"schemaVersion": 1}, mediatype.DOCKER_MANIFEST_V1_SIGNED),
        ({"fsLayers": []}, None),
        (image(schemaVersion=3), None),
        (image(media_type=mediatype.DOCKER_MANIFEST_V1), None),
        (image(media_type="application/json"), None),
        (image(media_type=None), mediatype.OCI_CONFIG),
    ],
)
def test_what_we_do_not_know_is_unsupported(document, asked):
    """Schema 1 and foreign kinds of manifest are told apart from broken ones."""
    assert refusal_of(document, asked).code == "UNSUPPORTED"


WRONG = [None, True, 0, -1, 1.0, 2**63, "", "x", [], ["x"], {}, {"x": 1}, "\ud800"]


@pytest.mark.parametrize(
    "document",
    [
        *[image(config={**CONFIG, "size": wrong}) for wrong in WRONG if wrong is not WRONG[2]],
        *[image(config={**CONFIG, "digest": wrong}) for wrong in WRONG],
        *[image(config={**CONFIG, "mediaType": wrong}) for wrong in WRONG],
        *[image(config={**CONFIG, "artifactType": wrong}) for wrong in WRONG if wrong not in (None, "", "x")],
        *[image(config={**CONFIG, "platform": wrong}) for wrong in (0, "", [], {"os": 1}, {"OS": "linux"})],
        *[image(config={**CONFIG, "urls": wrong}) for wrong in (0, "x", {}, [1], [None], ["\udfff"], ["x"] * 101)],
        *[
            image(config={**CONFIG, "annotations": wrong})
            for wrong in (0, "x", [], {"a": 1}, {"a": None}, {"\ud800": ""})
        ],
        *[image(config=wrong) for wrong in WRONG],
        *[image(layers=wrong) for wrong in WRONG if wrong not in (None, [])],
        *[image(subject=wrong) for wrong in WRONG if wrong is not None],
        *[image(annotations=wrong) for wrong in (0, [], {"a": 1}, {str(n): "" for n in range(1001)})],
        *[image(schemaVersion=wrong) for wrong in ("2", 2.0, True, [])],
        *[image(media_type=wrong) for wrong in (0, [], {}, "\ud800")],
        *[index(wrong) for wrong in WRONG],
        index(manifests={}),
        {},
        {"blobs": []},
        {"config": CONFIG},
        {"architecture": "amd64", "config": {}, "rootfs": {}},
    ],
)
def test_a_wrong_type_anywhere_is_refused(document):
    """Whatever stands where something else should, the answer is MANIFEST_INVALID."""
    assert refusal_of(document).code == "MANIFEST_INVALID"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"{}x",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"schemaVersion": NaN}',
        b'{"a": -Infinity}',
        b'{"size": ' + b"9" * 5000 + b"}",
        b"\xff",
        b"\xef\xbb\xbf{}",
        encoded(index()).decode().encode("utf-16"),
    ],
)
def test_what_is_no_json_object_is_refused(data):
    """Broken, deep, foreign or misleadingly encoded JSON is MANIFEST_INVALID, never another error."""
    assert refusal_of(data).code == "MANIFEST_INVALID"


def test_the_size_of_a_document_is_bounded():
    """A document of exactly the limit is read; one byte more is refused before it is looked at."""
    data = encoded(index()).ljust(DOCUMENT_BYTES_MAX)
    assert parse(data, None) == parse(encoded(index()), None)
    assert str(DOCUMENT_BYTES_MAX) in str(refusal_of(data + b" "))


def test_the_number_of_descriptors_is_bounded():
    """Ten thousand descriptors are read, one more is refused."""
    small = {"mediaType": "a/b", "digest": LAYER["digest"], "size": 0}
    assert len(children(parse(encoded(index(*[small] * 10_000)), None))) == 10_000
    assert refusal_of(index(*[small] * 10_001)).code == "MANIFEST_INVALID"


@pytest.mark.parametrize("size", [0, 2**63 - 1])
def test_the_ends_of_sizes(size):
    """The smallest and the largest size are sizes."""
    assert parse(encoded(index({**LAYER, "size": size})), None).manifests[0].size == size


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([CONFIG, LAYER]),
    lambda below: st.lists(below) | st.dictionaries(st.text() | st.sampled_from([*LAYER, "platform", "urls"]), below),
    max_leaves=10,
)
types = st.none() | st.sampled_from(sorted(mediatype.MANIFESTS | mediatype.INDEXES)) | st.text()
shapes = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.just(2) | anything,
        "mediaType": types | anything,
        "config": st.just(CONFIG) | anything,
        "layers": st.lists(st.just(LAYER) | anything) | anything,
        "manifests": st.lists(st.just(LAYER) | anything) | anything,
        "blobs": anything,
        "subject": anything,
        "annotations": st.dictionaries(st.text(), st.text()) | anything,
    },
)


@given(shapes | anything, types)
def test_arbitrary_json_is_a_document_or_invalid(value, asked):
    """No JSON makes reading fail in another way; what is read has only whole descriptors."""
    try:
        document = parse(json.dumps(value).encode(), asked)
    except Invalid:
        return
    assert mediatype.describes(document.media_type)
    assert all(isinstance(child, Descriptor) and child.size >= 0 for child in children(document))


@given(st.binary() | st.binary().map(lambda noise: DOCKER_IMAGE[: len(noise) * 7] + noise), types)
def test_arbitrary_bytes_are_a_document_or_invalid(data, asked):
    """No bytes make reading fail in another way, as a start of a manifest with noise behind it does not."""
    try:
        document = parse(data, asked)
    except Invalid:
        return
    assert isinstance(document, (Manifest, Index))


def test_the_media_type_alone() -> None:
    """A document's type is told without its descriptors: its own word, else its shape; never against what names it."""
    assert media_type_of(DOCKER_IMAGE, None) == mediatype.DOCKER_MANIFEST
    assert media_type_of(encoded(index()), None) == mediatype.OCI_INDEX
    with pytest.raises(Invalid):
        media_type_of(DOCKER_IMAGE, mediatype.OCI_INDEX)
