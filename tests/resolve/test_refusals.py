"""What registries refused is not asked for again at once, and nothing else is kept from anybody."""

import pytest

from p2pmirror.errors import NotHere, Unreachable, UpstreamRefused
from p2pmirror.oci import Digest
from p2pmirror.resolve import refusals as room
from p2pmirror.resolve.refusals import ABSENT_S, DENIED_S, Refusals
from p2pmirror.resolve.want import Want

DIGEST = Digest.of(b"layer")


def want(reference: Digest | str = DIGEST, repository: str = "a/b") -> Want:
    return Want("manifest" if isinstance(reference, str) else "blob", "docker.io", repository, reference)


@pytest.mark.parametrize("status", [401, 403])
def test_a_repository_that_is_denied(status: int) -> None:
    """A refusal for want of rights stands for its whole repository, and for half a minute."""
    refusals = Refusals()
    refused = UpstreamRefused("no", status=status)
    refusals.note(want(), refused, 0.0)
    for asked in (want(), want("latest"), want(Digest.of(b"other"))):
        with pytest.raises(UpstreamRefused) as caught:
            refusals.check(asked, DENIED_S - 1)
        assert caught.value is refused
    refusals.check(want(repository="a/c"), 0.0)
    refusals.check(want(), DENIED_S)


def test_content_that_is_absent() -> None:
    """What a registry does not have is absent for a moment: an image may be pushed; other content is asked for."""
    refusals = Refusals()
    refusals.note(want("latest"), NotHere("no"), 0.0)
    with pytest.raises(NotHere):
        refusals.check(want("latest"), ABSENT_S / 2)
    refusals.check(want("1.27"), 0.0)
    refusals.check(want("latest"), ABSENT_S)


@pytest.mark.parametrize(
    "error", [Unreachable("no"), UpstreamRefused("slow down", status=429), UpstreamRefused("oh", status=500)]
)
def test_trouble_is_no_refusal(error: Unreachable | UpstreamRefused) -> None:
    """Trouble that may be over is not remembered here."""
    refusals = Refusals()
    refusals.note(want(), error, 0.0)
    refusals.check(want(), 0.0)


def test_the_oldest_is_forgotten(monkeypatch) -> None:
    """However much is refused, so many refusals are remembered; one that is repeated is as young as its last time."""
    monkeypatch.setattr(room, "KEPT_MAX", 2)
    refusals = Refusals()
    for name in ("one", "two", "one", "three"):
        refusals.note(want(name), NotHere(name), 0.0)
    refusals.check(want("two"), 0.1)
    for name in ("one", "three"):
        with pytest.raises(NotHere):
            refusals.check(want(name), 0.1)


def test_names_for_filters() -> None:
    """A tag is filtered by its whole name, a digest by its repository's."""
    assert want("1.27").name == "docker.io/a/b:1.27"
    assert want().name == "docker.io/a/b"
