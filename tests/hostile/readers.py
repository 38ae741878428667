"""Every reader of foreign text and bytes that needs nothing but its input, with real input to begin from."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from p2pmirror.config.keyfile import BadKeyFile, parse_keys
from p2pmirror.config.quantities import parse_duration, parse_size
from p2pmirror.front.errors import Refused
from p2pmirror.front.query import parse_query
from p2pmirror.kubernetes.objects import EndpointSlices, Event, NoObject, decode, refusal_of
from p2pmirror.oci import Digest, Invalid, Reference, TagName, Walk, mediatype, parse_manifest, parse_path
from p2pmirror.oci.filters import Filters
from p2pmirror.routing import bootstrap
from p2pmirror.routing.bootstrap.endpoints import Endpoints, places_of
from p2pmirror.store.cache import records
from p2pmirror.store.cache.pins import canonical_pin, readable
from p2pmirror.store.containerd.api import containerd_pb2 as api
from p2pmirror.store.containerd.framing import FrameLengths, FramingError, Unframer, frame
from p2pmirror.store.containerd.walk import listing_of, read_image, survey_of
from p2pmirror.store.ocilayout.index import check_marker, read_roots, with_tag, without_tag
from p2pmirror.upstream.challenge import parse_challenges
from p2pmirror.upstream.credentials import dockerconfig
from p2pmirror.upstream.credentials.login import BadCredentials
from p2pmirror.upstream.links import next_page
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import Binding
from p2pmirror.wire.identity import NodeId, parse_node_id
from p2pmirror.wire.keyring import KeyRing
from p2pmirror.wire.peer_auth import Asked, Unproven, check, prove
from p2pmirror.wire.ranges import Span, Unsatisfiable, parse_content_range, parse_range
from tests.hostile.bearing import Reader, hold_line
from tests.hostile.mutation import of_bytes, of_json
from tests.kubernetes_api.api import slice_object, status_object
from tests.oci.documents import descriptor, encoded, image, index

DIGEST = str(Digest.of(b"layer"))
LONG = str(Digest.of(b"layer", "sha512"))
TAG = TagName("docker.io", "library/nginx", "1.27")
SIZE = 1000

NAMES = [
    b"nginx",
    b"docker.io/library/nginx:1.27",
    b"ghcr.io/a/b/c:v1@" + DIGEST.encode(),
    b"[fd00::1]:5000/x/y:z",
    b"localhost/app",
    DIGEST.encode(),
]
PATHS = [
    b"/v2/",
    b"/v2/library/nginx/manifests/1.27",
    b"/v2/library/nginx/manifests/" + DIGEST.encode(),
    b"/v2/a/b/blobs/" + LONG.encode(),
    b"/v2/a/manifests/tags/list",
    b"/v2/a%2Fb/referrers/sha256%3A" + DIGEST[7:].encode(),
]
RANGES = [b"bytes=0-", b"bytes=5-9", b"bytes=-7", b"bytes=0-0,5-9", b"bytes 5-9/1000", b"bytes 0-999/*"]
MANY = image(*(b"%d" % number for number in range(200)))
DOCUMENTS = [
    encoded(image(b"one", b"two", subject=descriptor(mediatype.OCI_MANIFEST), annotations={"a": "b"})),
    encoded(image(b"one", media_type=mediatype.DOCKER_MANIFEST)),
    encoded(index(descriptor(mediatype.OCI_MANIFEST, b"m", platform={"os": "linux", "architecture": "arm64"}))),
    encoded({"mediaType": mediatype.OCI_ARTIFACT_MANIFEST, "blobs": [descriptor(mediatype.OCI_LAYER, b"x")]}),
    encoded(MANY),
]
ROOT = descriptor(mediatype.OCI_MANIFEST, b"m", annotations={"org.opencontainers.image.ref.name": str(TAG)})
INDEXES = [
    encoded(index(ROOT)),
    encoded(index(ROOT, descriptor(mediatype.OCI_INDEX, b"n", annotations={"io.containerd.image.name": "v1"}))),
]
TEXT_INSERTS = (
    b"/",
    b":",
    b"%2e%2e",
    b"%00",
    b"\r\n",
    b"\xff",
    b"..",
    b",",
    b"@",
    b"-" * 200,
    b"9" * 5000,
    b"%",
    b"a" * 1500,
)


def _text(data: bytes) -> str:
    """Return what Python makes of an argument or a header: bytes that are no UTF-8 become half characters."""
    return data.decode("utf-8", "surrogateescape")


def _of_text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(_text(data))


def _same_again(parse: Callable[[str], object]) -> Callable[[bytes, object], None]:
    """Hold that what was read can be written, and read again as the same."""

    def hold(_data: bytes, value: object) -> None:
        assert parse(str(value)) == value

    return hold


# --- oci ---


def _path_is_plain(_data: bytes, value: Any) -> None:
    repository = getattr(value, "repository", "x")
    assert "\0" not in repository
    assert not {"", ".", ".."} & set(repository.split("/"))


def _walk(data: bytes) -> object:
    """Read a manifest as whatever it may be asked for as, then walk it from a descriptor that names it."""
    root = index(descriptor(mediatype.OCI_MANIFEST, data), descriptor(mediatype.OCI_INDEX, data))
    walk = Walk(read_roots(encoded(index(descriptor(mediatype.OCI_INDEX, encoded(root))))).entries[0].descriptor)
    answers: dict[Digest, bytes] = {Digest.of(encoded(root)): encoded(root), Digest.of(data): data}
    while reads := walk.next_reads():
        for wanted in reads:
            walk.answered(wanted, answers.get(wanted.digest))
    assert walk.is_done
    return parse_manifest(data, None)


def _edit(data: bytes) -> object:
    roots = read_roots(data)
    edited = with_tag(data, TAG, Walk(read_roots(INDEXES[0]).entries[0].descriptor).visits[0].descriptor)
    assert TAG in read_roots(edited).tags()
    assert TAG not in read_roots(without_tag(edited, TAG)).tags()
    return roots


# --- wire ---


def _range(data: bytes) -> object:
    return parse_range(data.decode("latin-1"), SIZE)


def _within(_data: bytes, value: Any) -> None:
    assert value is None or (value.count >= 1 and value.offset >= 0 and value.offset + value.count <= SIZE)


def _consistent(_data: bytes, value: Any) -> None:
    span, size = value
    assert isinstance(span, Span)
    assert span.count >= 1
    assert size is None or span.offset + span.count <= size


RING = KeyRing([bytes(32)])
OWN = Binding(b"bootboot", 70_000)
ASKED = Asked("GET", "/v2/", "", NodeId(bytes(20)))
PROOF = prove(RING, ASKED, OWN)


def _proof(data: bytes) -> object:
    return check(RING, ASKED, data.decode("latin-1"), OWN)


def _only_the_real(data: bytes, _value: object) -> None:
    assert data == PROOF.encode()


# --- containerd ---

IMAGE = api.Image(
    name=str(TAG), target=api.Target(media_type=mediatype.OCI_INDEX, digest=str(Digest.of(INDEXES[0])), size=9)
)
MESSAGES = [frame(IMAGE.SerializeToString()), frame(b""), frame(b"x" * 300)]
PROTOBUF_INSERTS = (b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x07", b"\x12", b"\x00", b"\x7a\x02")


def _unframe(data: bytes) -> list[bytes]:
    """Take messages whole and byte by byte: the same come out."""
    FrameLengths(16_384).check(data)
    whole = list(Unframer(1 << 20).feed(data))
    single = Unframer(1 << 20)
    assert [message for at in range(len(data)) for message in single.feed(data[at : at + 1])] == whole
    return whole


def _survey(data: bytes) -> object:
    """Take an image of containerd's all the way to a listing."""
    try:
        made = api.Image.FromString(data)
    except DecodeError as error:
        raise Invalid("MANIFEST_INVALID", "no image") from error
    root = read_image(made)
    survey = survey_of([root])
    while reads := survey.next_reads():
        for wanted in reads:
            survey.answered(wanted, INDEXES[0])
    return listing_of(survey, [root], {root.target.digest: root.target.size}, {root.target.digest}, 0.0)


# --- the cache ---

SUBJECT = records.Referrer(LONG, "a/b", {"by": "me"})
RECORDS = [
    records.encode(records.Facts(3, 1.8e9, mediatype.OCI_MANIFEST, ("docker.io/library/nginx",), SUBJECT)),
    records.encode(records.TagRecord(str(TAG), DIGEST, mediatype.OCI_INDEX, 3, True, 1.8e9)),
    records.encode(records.PinRecord(str(TAG))),
]


def _record(data: bytes) -> object:
    """Read a file as each kind of record, and a manifest's as what the referrers list says of it."""
    facts = records.read_facts(data)
    referrer = None if facts is None else records.referrer_of(facts, Digest.of(b"layer"))
    pin = records.read_pin(data)
    return facts, referrer, records.read_tag(data), readable([] if pin is None else [pin])


def _record_is_usable(_data: bytes, value: Any) -> None:
    facts, _, tag, pins = value
    assert facts is None or facts.size >= 0
    assert tag is None or TagName.parse(str(tag[0])) == tag[0]
    assert all(canonical_pin(pin) == pin for pin in pins)


# --- registries ---

PAGE = "https://registry.test/v2/a/tags/list?n=2"
CHALLENGES = [
    b'Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a/b:pull"',
    b'Negotiate YII=, Basic realm="a, b"',
]
LINKS = [b'</v2/a/tags/list?n=2&last=b>; rel="next"', b'<https://registry.test/v2/x>; title="a, b"; rel=next']
CONFIGS = [
    b'{"auths": {"ghcr.io": {"auth": "YWRhOnB3"}, "https://index.docker.io/v1/": {"identitytoken": "t"}}}',
    b'{"credsStore": "pass", "credHelpers": {"ghcr.io": "ecr-login"}}',
]


def _on_same_host(_data: bytes, value: Any) -> None:
    assert value is None or value.lower().startswith("https://registry.test/v2/"), value


# --- settings ---

DURATIONS = [b"30ms", b"1h30m", b"1.5s", b"512Mi", b"20GB", b"0"]
BOOTSTRAPS = [
    b"static:10.0.0.1,[fd00::1]:29998,node-3:1",
    b"dns:p2pmirror.kube-system.svc:29998",
    b"http://10.0.0.1:9090/api/v1/peers?x=1",
    b"http:http://[fd00::1]/",
    b"file:/etc/p2pmirror/peers",
    b"kubernetes:kube-system/p2pmirror-router",
]
SLICES = [encoded(slice_object("x", ["10.0.0.1", host], "kube-system", "x")) for host in ("10.0.0.2", "fd00::1")]
PATTERNS = [b"docker.io/library/.*", b"!ghcr.io/(a|b)/[a-z]+(:.*)?"]


def _listed(data: bytes) -> object:
    """Read a page of EndpointSlices, of which `data` is the one item, and the same as a change that a watch tells."""
    known, answers = Endpoints(), []
    known.take(decode(b'{"type": "ADDED", "object": %s}' % data.replace(b"\n", b" "), Event))
    page = decode(b'{"metadata": {"resourceVersion": "7"}, "items": [%s]}' % data, EndpointSlices)
    known.replace(page.metadata.resource_version, {each.metadata.name: places_of(each) for each in page.items or ()})
    answers += [each.host for each in known.places]
    return answers


def _refused(data: bytes) -> object:
    """Read what an API says when it refuses; whatever that is, it becomes one line."""
    refused = refusal_of(403, {"retry-after": data[:9].decode("latin-1")}, data)
    hold_line(refused, "a refusal")
    return refused.retry_s


VALUE = (ValueError,)
INVALID = (Invalid,)

READERS = [
    Reader(
        "digest",
        _of_text(Digest.parse),
        of_bytes([DIGEST.encode(), LONG.encode()], TEXT_INSERTS),
        INVALID,
        _same_again(Digest.parse),
    ),
    Reader("media type", _of_text(mediatype.check), of_bytes([mediatype.OCI_INDEX.encode()], TEXT_INSERTS), INVALID),
    Reader(
        "reference", _of_text(Reference.parse), of_bytes(NAMES, TEXT_INSERTS), INVALID, _same_again(Reference.parse)
    ),
    Reader("strict reference", _of_text(Reference.parse_strict), of_bytes(NAMES, TEXT_INSERTS), INVALID),
    Reader("tag name", _of_text(TagName.parse), of_bytes(NAMES, TEXT_INSERTS), INVALID, _same_again(TagName.parse)),
    Reader("path", _of_text(parse_path), of_bytes(PATHS, TEXT_INSERTS), INVALID, _path_is_plain),
    Reader(
        "query",
        _of_text(parse_query),
        of_bytes([b"ns=docker.io&n=5&last=a", b"ns=ghcr.io&artifactType=a%2Fb"], TEXT_INSERTS),
        (Refused, Invalid),
    ),
    Reader("manifest", _walk, of_json(DOCUMENTS), INVALID),
    Reader("layout index", _edit, of_json(INDEXES), INVALID),
    Reader("layout marker", check_marker, of_json([b'{"imageLayoutVersion": "1.0.0"}']), INVALID),
    Reader("range", _range, of_bytes(RANGES, TEXT_INSERTS), (Unsatisfiable,), _within),
    Reader(
        "content range",
        lambda data: parse_content_range(data.decode("latin-1")),
        of_bytes(RANGES, TEXT_INSERTS),
        VALUE,
        _consistent,
    ),
    Reader("node id", _of_text(parse_node_id), of_bytes([b"ab" * 20], TEXT_INSERTS), VALUE),
    Reader("proof", _proof, of_bytes([PROOF.encode()], TEXT_INSERTS), (Unproven,), _only_the_real),
    Reader(
        "address",
        _of_text(Address.parse),
        of_bytes([b"10.0.0.1:80", b"[fd00::1]:29998", b"[fe80::1%eth0]:1"], TEXT_INSERTS),
        VALUE,
    ),
    Reader(
        "gRPC messages",
        _unframe,
        of_bytes(MESSAGES, (b"\x00\x00\x00\x00\x00", b"\x00\xff\xff\xff\xff", b"\x01")),
        (FramingError,),
    ),
    Reader("containerd's image", _survey, of_bytes([IMAGE.SerializeToString()], PROTOBUF_INSERTS), INVALID),
    Reader("cache record", _record, of_json(RECORDS), (), _record_is_usable),
    Reader("challenge", _of_text(parse_challenges), of_bytes(CHALLENGES, (*TEXT_INSERTS, b'"', b'\\"', b"=")), ()),
    Reader(
        "link",
        lambda data: next_page(_text(data), PAGE),
        of_bytes(LINKS, (*TEXT_INSERTS, b"<", b">;", b'"', b"//evil.test")),
        (),
        _on_same_host,
    ),
    Reader(
        "Docker's config",
        lambda data: dockerconfig.read_config(data, "ghcr.io", "ghcr.io"),
        of_json(CONFIGS),
        (BadCredentials,),
    ),
    Reader("duration", _of_text(parse_duration), of_bytes(DURATIONS, TEXT_INSERTS), VALUE),
    Reader("size", _of_text(parse_size), of_bytes(DURATIONS, TEXT_INSERTS), VALUE),
    Reader("bootstrap setting", _of_text(bootstrap.parse), of_bytes(BOOTSTRAPS, TEXT_INSERTS), VALUE),
    Reader("Kubernetes' slices", _listed, of_json(SLICES), (NoObject,)),
    Reader("Kubernetes' refusals", _refused, of_json([encoded(status_object(403, "Forbidden", "may not"))]), ()),
    Reader(
        "filters",
        lambda data: Filters([_text(data)]),
        of_bytes(PATTERNS, (b"(", b"[", b"{9999999999}", b"*", b"\\", b"(?P<", b"\xff")),
        VALUE,
    ),
    Reader(
        "key file",
        parse_keys,
        of_bytes([b"a" * 64 + b"\n" + b"b" * 64 + b"\n"], (b"\n", b"\r", b"\0", b"\xff", b" ")),
        (BadKeyFile,),
    ),
]
