"""Promises of the files with credentials: whose login they give, and that nothing of a broken one is shown."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.upstream.credentials.dockerconfig import (
    DOCKER_HUB,
    Entry,
    read_answer,
    read_basic,
    read_config,
    read_pair,
)
from p2pmirror.upstream.credentials.login import BadCredentials, Login
from p2pmirror.upstream.credentials.setting import read_credentials

ADA = {"auth": base64.b64encode(b"ada:pass:word").decode()}


def config(**sections: object) -> bytes:
    return json.dumps(sections).encode()


@pytest.mark.parametrize(
    ("key", "name", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"),
        ("docker.io", "docker.io", "registry-1.docker.io"),
        ("ghcr.io", "ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io", "ghcr.io"),
        ("http://registry.test:5000/v2/", "registry.test:5000", "registry.test:5000"),
        ("10.0.0.5:5000", "registry.test", "10.0.0.5:5000"),
    ],
)
def test_a_login_is_found_under_each_spelling(key: str, name: str, host: str) -> None:
    """Docker and people write a registry's key in many ways."""
    found = read_config(config(auths={"other.test": {"auth": "!"}, key: ADA}), name, host)
    assert found.login == Login("ada", "pass:word")
    assert found.helper is None


@pytest.mark.parametrize(
    "key", ["ghcr.io.evil.test", "ghcr.io/org", "evil.test/ghcr.io", "https://ghcr.io@evil.test", "http://[ghcr.io"]
)
def test_a_login_is_given_to_nobody_else(key: str) -> None:
    """Another host's login, or one for a part of a registry, is not this registry's."""
    assert read_config(config(auths={key: ADA}), "ghcr.io", "ghcr.io") == Entry(None, "ghcr.io", None)


def test_helpers_are_named_for_one_registry_or_for_all() -> None:
    """CredHelpers goes before credsStore; a helper is asked by the name that Docker asks by."""
    both = config(credsStore="pass", credHelpers={"ghcr.io": "ecr-login"}, auths={"quay.io": ADA})
    assert read_config(both, "ghcr.io", "ghcr.io") == Entry("ecr-login", "ghcr.io", None)
    assert read_config(both, "quay.io", "quay.io") == Entry("pass", "quay.io", Login("ada", "pass:word"))
    assert read_config(both, "docker.io", "registry-1.docker.io").server == DOCKER_HUB


def test_identity_tokens_and_plain_fields() -> None:
    """What Docker writes after a login with an identity token, and what people write by hand."""
    auths = {"a.test": ADA | {"identitytoken": "t0ken"}, "b.test": {"username": "bob", "password": "pw"}, "c.test": {}}
    assert read_config(config(auths=auths), "a.test", "a.test").login == Login("ada", "", "t0ken")
    assert read_config(config(auths=auths), "b.test", "b.test").login == Login("bob", "pw")
    assert read_config(config(auths=auths), "c.test", "c.test").login is None


@pytest.mark.parametrize("name", ["../../bin/sh", "/bin/sh", "a b", "a;b", "", "-x", "x" * 65, 5, "a\n"])
def test_a_helper_is_a_name_and_no_path(name: object) -> None:
    """What is no name of a helper is refused, or is none."""
    content = config(credHelpers={"ghcr.io": name})
    with pytest.raises(BadCredentials, match="a helper's name"):
        read_config(content, "ghcr.io", "ghcr.io")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"hunter2", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"\xff", "not text"),
        (b"[" * 100_000, "not JSON"),
        (config(auths=["hunter2"]), "auths is not a JSON object"),
        (config(auths={"ghcr.io": "hunter2"}), "an entry of auths"),
        (config(auths={"ghcr.io": {"auth": "hunter2!"}}), "base64 of user:password"),
        (config(auths={"ghcr.io": {"auth": "aHVudGVyMg=="}}), "base64 of user:password"),
        (config(auths={"ghcr.io": {"username": "a\nhunter2", "password": "x"}}), "cannot be printed"),
    ],
)
def test_a_broken_file_says_why_and_shows_nothing(content: bytes, says: str) -> None:
    """The complaint tells what is wrong, and quotes nothing."""
    with pytest.raises(BadCredentials, match=says) as caught:
        read_config(content, "ghcr.io", "ghcr.io")
    assert "hunter2" not in str(caught.value)


def test_other_forms() -> None:
    """One line user:password; the two files of a secret; a helper's answer."""
    assert read_pair(b"ada:open:sesame\n") == Login("ada", "open:sesame")
    assert read_basic(b"ada\n", b" spaced \r\n") == Login("ada", " spaced ")
    assert read_answer(b'{"ServerURL":"x","Username":"AWS","Secret":"s"}') == Login("AWS", "s")
    assert read_answer(b'{"Username":"<token>","Secret":"t"}') == Login("", "", "t")
    for read in (read_pair, read_answer, lambda data: read_basic(b" \n", data)):
        with pytest.raises(BadCredentials):
            read(b"nothing of use")


def test_a_secret_without_a_name_is_none() -> None:
    """A basic-auth secret whose username is empty is nobody's login."""
    with pytest.raises(BadCredentials, match="username is empty"):
        read_basic(b" \n", b"secret")


def test_a_key_that_is_no_url_is_nobodys() -> None:
    """A key that no reader of URLs takes does not hide the logins behind it."""
    assert read_config(config(auths={"https://[": ADA, "http://ghcr.io": ADA}), "ghcr.io", "ghcr.io").login is not None


def test_what_is_sent_of_a_login() -> None:
    """The scheme Basic takes the base64 of both (RFC 7617); accounts are told apart by the name."""
    login = Login("Aladdin", "open sesame")
    assert login.basic == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert login.account == "Aladdin"


def test_where_credentials_are() -> None:
    """A setting prints as it is read, and an empty one is none."""
    assert str(read_credentials("file:/etc/login")) == "file:/etc/login"
    assert read_credentials("") is None


def test_a_login_shows_no_secret() -> None:
    """What is printed of a login is its name."""
    shown = repr(Login("ada", "hunter2", "hunter3"))
    assert "ada" in shown
    assert "hunter" not in shown
    assert Login("ada", "pw").basic == "Basic YWRhOnB3"
    assert Login("ada", "pw").account == "ada"


KEYS = st.sampled_from(["auths", "credHelpers", "credsStore", "ghcr.io", "auth", "username"])
TREES = st.recursive(
    st.none() | st.text() | st.integers(), lambda each: st.lists(each) | st.dictionaries(KEYS, each), max_leaves=8
)


@given(st.binary(max_size=200) | TREES.map(lambda tree: json.dumps(tree).encode()))
def test_any_file_is_an_entry_or_a_complaint(content: bytes) -> None:
    """Whatever stands in a file, there is an entry or one kind of error."""
    for read in (lambda data: read_config(data, "ghcr.io", "ghcr.io"), read_pair, read_answer):
        try:
            found = read(content)
        except BadCredentials:
            continue
        assert isinstance(found, Entry | Login)
