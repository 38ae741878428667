import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import Digest, Invalid

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
algorithms = st.sampled_from(["sha256", "sha512"])


def test_known_digests():
    """The hash of nothing is the one everybody knows, and sha512 is as long as it should be."""
    assert str(Digest.of(b"")) == EMPTY
    assert str(Digest.of(b"abc", "sha512")).startswith("sha512:ddaf35a193617abacc417349ae204131")
    assert len(Digest.of(b"", "sha512").hex) == 128


@given(data=st.binary(), algorithm=algorithms)
def test_a_digest_survives_its_text(data, algorithm):
    """Parsing a digest's text gives the same digest: equal, with the same hash, ordered as its text."""
    digest = Digest.of(data, algorithm)
    assert Digest.parse(str(digest)) == digest
    assert hash(Digest.parse(str(digest))) == hash(digest)
    assert (digest < Digest.of(b"")) == (str(digest) < EMPTY)


@given(pieces=st.lists(st.binary()), algorithm=algorithms)
def test_content_matches_however_it_arrives(pieces, algorithm):
    """A hasher that was fed the content piece by piece matches its digest, and one byte more does not."""
    digest = Digest.of(b"".join(pieces), algorithm)
    hasher = digest.hasher()
    for piece in pieces:
        hasher.update(piece)
    assert digest.matches(hasher)
    hasher.update(b"\0")
    assert not digest.matches(hasher)


def test_a_hasher_of_another_algorithm_never_matches():
    """The hex of sha512 is not taken for sha256, whatever was hashed."""
    assert not Digest.of(b"").matches(hashlib.sha512())


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY + "\n",
        " " + EMPTY,
        EMPTY.upper(),
        EMPTY.replace("sha256", "SHA256"),
        EMPTY.replace("sha256", "sha512"),
        EMPTY.replace("sha256", "sha384"),
        EMPTY.replace("sha256", "md5"),
        EMPTY.replace("e3b0", "E3B0"),
        EMPTY.replace("e3b0", "g3b0"),
        EMPTY.replace("e3b0", "\u0663\u0663\u0663\u0663"),  # digits, but not hex digits
        EMPTY.replace(":", "@"),
        EMPTY.replace(":", "::"),
    ],
)
def test_what_is_no_digest_is_refused(text):
    """Anything but a known algorithm, a colon and lower-case hex of the exact length is DIGEST_INVALID."""
    with pytest.raises(Invalid) as refusal:
        Digest.parse(text)
    assert refusal.value.code == "DIGEST_INVALID"


def test_no_digest_of_an_unknown_algorithm():
    """Content is not hashed by an algorithm that no registry accepts."""
    with pytest.raises(Invalid, match="md5"):
        Digest.of(b"", "md5")


@given(st.text() | st.from_regex(r"sha(256|512):[0-9a-f]{60,70}\n?", fullmatch=True))
def test_arbitrary_text_gives_a_digest_or_invalid(text):
    """No text makes parsing fail in another way, and what parses is what was written."""
    try:
        digest = Digest.parse(text)
    except Invalid:
        return
    assert str(digest) == text


@given(st.text(min_size=81, alphabet=st.characters(codec=None)))
def test_a_message_quotes_at_most_80_characters(text):
    """However long or odd the input, the message shows its first 80 characters, printable ones only."""
    message = str(Invalid("NAME_INVALID", "wrong", text))
    assert message.startswith(f"wrong: {text[:80]!a}")
    assert message.endswith(f"({len(text)} characters)")
    assert message.isprintable()
