import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import (
    Digest,
    Invalid,
    Reference,
    TagName,
    canonical_registry,
    check_registry,
    check_repository,
    check_tag,
)
from tests.oci.strategies import digests, registries, repositories, tags

DIGEST = "sha256:" + "1a" * 32
LONG = "x" * 255

READ = {  # what a person writes -> registry, repository, tag, digest
    "nginx": ("docker.io", "library/nginx", None, None),
    "nginx:1.27": ("docker.io", "library/nginx", "1.27", None),
    f"nginx@{DIGEST}": ("docker.io", "library/nginx", None, DIGEST),
    f"nginx:1.27@{DIGEST}": ("docker.io", "library/nginx", "1.27", DIGEST),
    "bitnami/redis": ("docker.io", "bitnami/redis", None, None),
    "a/b/c/d": ("docker.io", "a/b/c/d", None, None),
    "docker.io/nginx": ("docker.io", "library/nginx", None, None),
    "docker.io/library/nginx": ("docker.io", "library/nginx", None, None),
    "index.docker.io/nginx": ("docker.io", "library/nginx", None, None),
    "registry-1.docker.io/bitnami/redis:7": ("docker.io", "bitnami/redis", "7", None),
    "Index.Docker.IO/nginx": ("docker.io", "library/nginx", None, None),
    "ghcr.io/nginx": ("ghcr.io", "nginx", None, None),
    "GHCR.io/owner/app:V1": ("ghcr.io", "owner/app", "V1", None),
    "localhost/app": ("localhost", "app", None, None),
    "LOCALHOST/app": ("localhost", "app", None, None),
    "localhost:5000/app": ("localhost:5000", "app", None, None),
    "registry/app": ("docker.io", "registry/app", None, None),
    "Registry/app": ("Registry", "app", None, None),
    "registry:5000/app:1": ("registry:5000", "app", "1", None),
    "registry:5000": ("docker.io", "library/registry", "5000", None),
    "10.0.0.1/app": ("10.0.0.1", "app", None, None),
    "10.0.0.1:80": ("docker.io", "library/10.0.0.1", "80", None),
    f"[2001:db8::1]:5000/a/b:t@{DIGEST}": ("[2001:db8::1]:5000", "a/b", "t", DIGEST),
    "[::1]/app": ("[::1]", "app", None, None),
    "xn--bcher-kva.example/app": ("xn--bcher-kva.example", "app", None, None),
    "a-b.c--d.example:1/x": ("a-b.c--d.example:1", "x", None, None),
    "a__b/c---d/e.f_g": ("docker.io", "a__b/c---d/e.f_g", None, None),
    "1a" * 32 + ":tag": ("docker.io", "library/" + "1a" * 32, "tag", None),
    "docker.io/" + "1a" * 32: ("docker.io", "library/" + "1a" * 32, None, None),
    f"ghcr.io/{LONG}": ("ghcr.io", LONG, None, None),
    "app:" + "t" * 128: ("docker.io", "library/app", "t" * 128, None),
    "app:_Tag.-": ("docker.io", "library/app", "_Tag.-", None),
}

REFUSED = {  # what nobody may write -> the code that says what is wrong with it
    "": "NAME_INVALID",
    ":": "NAME_INVALID",
    "@": "NAME_INVALID",
    ":tag": "NAME_INVALID",
    f"@{DIGEST}": "NAME_INVALID",
    "1a" * 32: "NAME_INVALID",
    "Nginx": "NAME_INVALID",
    "owner/App": "NAME_INVALID",
    "ghcr.io/Owner/app": "NAME_INVALID",
    "ghcr.io/": "NAME_INVALID",
    "ghcr.io/:tag": "NAME_INVALID",
    "/app": "NAME_INVALID",
    "//app": "NAME_INVALID",
    "app/": "NAME_INVALID",
    "a//b": "NAME_INVALID",
    "ghcr.io//app": "NAME_INVALID",
    "../app": "NAME_INVALID",
    "ghcr.io/../app": "NAME_INVALID",
    "-app": "NAME_INVALID",
    "app-": "NAME_INVALID",
    "a..b": "NAME_INVALID",
    "a___b": "NAME_INVALID",
    "a._b": "NAME_INVALID",
    "a/-b": "NAME_INVALID",
    "https://ghcr.io/app": "NAME_INVALID",
    "-ghcr.io/app": "NAME_INVALID",
    "ghcr.io-/app": "NAME_INVALID",
    "ghcr..io/app": "NAME_INVALID",
    "ghcr.io:/app": "NAME_INVALID",
    "ghcr.io:port/app": "NAME_INVALID",
    "user@ghcr.io/app": "NAME_INVALID",
    "fc00::1/app": "NAME_INVALID",
    "[fc00::1/app": "NAME_INVALID",
    "[fc00::1%eth0]/app": "NAME_INVALID",
    "[fc00::1]app/app": "NAME_INVALID",
    "[fc00::1]": "NAME_INVALID",
    "app\n": "NAME_INVALID",
    " app": "NAME_INVALID",
    "app ": "NAME_INVALID",
    "äpp": "NAME_INVALID",
    "app\u0660": "NAME_INVALID",
    "a\0b": "NAME_INVALID",
    f"ghcr.io/{LONG}x": "NAME_INVALID",
    "x" * 248: "NAME_INVALID",
    "h" * 259 + ".io/app": "NAME_INVALID",
    "a/" * 5000 + "b": "NAME_INVALID",
    "app:": "TAG_INVALID",
    "app:a b": "TAG_INVALID",
    "app:.a": "TAG_INVALID",
    "app:-a": "TAG_INVALID",
    "app:a:b": "TAG_INVALID",
    "app:a/b": "NAME_INVALID",
    "app:tag\n": "TAG_INVALID",
    "app:täg": "TAG_INVALID",
    "app:" + "t" * 129: "TAG_INVALID",
    "app@": "DIGEST_INVALID",
    "app@sha256": "DIGEST_INVALID",
    "app@sha256:1a": "DIGEST_INVALID",
    "app@md5:" + "1a" * 16: "DIGEST_INVALID",
    f"app@{DIGEST}@{DIGEST}": "DIGEST_INVALID",
    f"app@{DIGEST}:tag": "DIGEST_INVALID",
}


def written(reference):
    return (reference.registry, reference.repository, reference.tag, reference.digest and str(reference.digest))


@pytest.mark.parametrize("text", READ)
def test_what_people_write_is_read_in_full(text):
    """Each way to write a reference gives its parts, and its full form gives them again."""
    reference = Reference.parse(text)
    assert written(reference) == READ[text]
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_reference_is_refused(text):
    """Each way to write it wrong is refused with the code of the part that is wrong."""
    with pytest.raises(Invalid) as refusal:
        Reference.parse(text)
    assert refusal.value.code == REFUSED[text]


def test_the_default_registry_can_be_another():
    """Without a registry in front the given one is meant, and only docker.io has a `library/`."""
    assert str(Reference.parse("app", default_registry="mirror.example:5000")) == "mirror.example:5000/app"
    assert str(Reference.parse("app", default_registry="index.docker.io")) == "docker.io/library/app"
    assert str(Reference.parse("ghcr.io/app", default_registry="mirror.example")) == "ghcr.io/app"


def test_latest_is_added_only_on_request():
    """Parsing leaves the tag open; `with_default_tag` says `latest` where neither tag nor digest says what is meant."""
    assert Reference.parse("nginx").tag is None
    assert str(Reference.parse("nginx").with_default_tag()) == "docker.io/library/nginx:latest"
    for text in ("nginx:1", f"nginx@{DIGEST}"):
        assert Reference.parse(text).with_default_tag() == Reference.parse(text)


def test_parts_of_a_reference():
    """A reference tells its name without tag and digest, and the name of its tag if it has one."""
    reference = Reference.parse(f"nginx:1@{DIGEST}")
    assert reference.name == "docker.io/library/nginx"
    assert reference.tag_name == TagName("docker.io", "library/nginx", "1")
    assert Reference.parse("nginx").tag_name is None


@pytest.mark.parametrize(
    "text",
    ["nginx", "library/nginx:1", "Registry/app", DIGEST, "", "ghcr.io", "ghcr.io/", "/app", "localhost", "x" * 2000],
)
def test_the_strict_form_needs_its_registry(text):
    """Names without a host in front, as CRI's `sha256:…` of an image, are no full names of containerd's."""
    with pytest.raises(Invalid) as refusal:
        Reference.parse_strict(text)
    assert refusal.value.code == "NAME_INVALID"


@pytest.mark.parametrize("text", ["localhost/app", "registry:5000/app:1", "ghcr.io/a/b", f"[::1]/app@{DIGEST}"])
def test_the_strict_form_is_a_reference(text):
    """What the strict form takes means the same as elsewhere."""
    assert Reference.parse_strict(text) == Reference.parse(text)


@given(registries, repositories, st.none() | tags, st.none() | digests)
def test_a_reference_survives_its_text(registry, repository, tag, digest):
    """A reference, written in full and read again, is the same, by both parsers."""
    reference = Reference(registry, repository, tag, None if digest is None else Digest.parse(digest))
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse_strict(str(reference)) == reference


@given(registries, repositories, tags)
def test_a_tags_name_survives_its_text(registry, repository, tag):
    """A tag's name, written and read again, is the same, and the same as a reference's."""
    name = TagName(registry, repository, tag)
    assert TagName.parse(str(name)) == name
    assert Reference.parse(str(name)).tag_name == name


def test_a_tags_name_has_one_spelling():
    """All names of docker.io and of an official image lead to one key; any host may stand in front."""
    for text in ("docker.io/nginx:1", "index.docker.io/library/nginx:1", "REGISTRY-1.docker.io/nginx:1"):
        assert str(TagName.parse(text)) == "docker.io/library/nginx:1"
    assert TagName.parse("mirror/app:1") == TagName("mirror", "app", "1")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "NAME_INVALID"),
        ("nginx:1", "NAME_INVALID"),
        ("docker.io/nginx", "TAG_INVALID"),
        ("docker.io/nginx:", "TAG_INVALID"),
        ("docker.io/nginx:a:b", "TAG_INVALID"),
        ("docker.io/:1", "NAME_INVALID"),
        ("/nginx:1", "NAME_INVALID"),
        ("docker.io/Nginx:1", "NAME_INVALID"),
        ("docker.io:x/nginx:1", "NAME_INVALID"),
        ("d/" * 600 + "n:1", "NAME_INVALID"),
    ],
)
def test_what_is_no_tags_name_is_refused(text, code):
    """A tag's name has all of its three parts, well formed."""
    with pytest.raises(Invalid) as refusal:
        TagName.parse(text)
    assert refusal.value.code == code


def test_no_value_is_built_of_wrong_parts():
    """What did not come through a parser is checked as well."""
    for parts in (("ghcr.io/", "a", "t"), ("ghcr.io", "A", "t"), ("ghcr.io", "a", "t t")):
        with pytest.raises(Invalid):
            TagName(*parts)
        with pytest.raises(Invalid):
            Reference(*parts)


@given(st.text() | st.from_regex(r"[a-zA-Z0-9.:/@_\-\[\]]*", fullmatch=True))
def test_arbitrary_text_gives_a_value_or_invalid(text):
    """No text makes a parser fail in another way; what is read can be written and read again."""
    for parse in (Reference.parse, Reference.parse_strict, TagName.parse):
        try:
            value = parse(text)
        except Invalid:
            continue
        assert parse(str(value)) == value


@given(st.text())
def test_validators_return_what_they_accept(text):
    """The validators give back the very text or refuse it."""
    for check in (check_registry, check_repository, check_tag):
        try:
            returned = check(text)
        except Invalid:
            continue
        assert returned is text


@given(registries)
def test_canonical_names_are_canonical(registry):
    """Whatever its case, a host has one canonical name, which stays as it is."""
    assert canonical_registry(registry.upper()) == canonical_registry(registry) == registry
