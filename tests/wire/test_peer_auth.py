"""Promises of the proof on a peer's request: it holds for one request, one receiver, one life of it, one minute."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.wire.binding import AGE_MAX_MS, Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.keyring import KeyRing
from p2pmirror.wire.peer_auth import Asked, Unproven, check, prove

OLD, NEW = b"o" * 32, b"n" * 32
RING = KeyRing([OLD])
OWN = Binding(b"boot-id.", 1_000_000)
ASKED = Asked("GET", "/v2/a/blobs/sha256:0?ns=docker.io", "bytes=5-", NodeId(b"s" * 20))


def doubt(asked: Asked, proof: str | None, own: Binding, ring: KeyRing = RING) -> str | None:
    """Return why a proof does not hold, None when it does."""
    try:
        check(ring, asked, proof, own)
    except Unproven as error:
        return error.doubt
    return None


def test_a_proof_has_the_documented_form() -> None:
    """Boot id, milliseconds, tag; the tag covers both, method, target, Range and sender: any program can make it."""
    parts = (b"626f6f742d69642e.1000000", b"GET", ASKED.target.encode(), b"bytes=5-", b"s" * 20)
    assert prove(RING, ASKED, OWN) == f"626f6f742d69642e.1000000.{RING.tag(b'p2pmirror-http', *parts).hex()}"


@pytest.mark.parametrize("age_ms", [-AGE_MAX_MS, -1, 0, 1, AGE_MAX_MS])
def test_a_fresh_proof_holds(age_ms: int) -> None:
    """For a minute by the receiver's clock, and as far ahead of it."""
    assert doubt(ASKED, prove(RING, ASKED, OWN), Binding(OWN.boot_id, OWN.clock_ms + age_ms)) is None


@pytest.mark.parametrize("age_ms", [-AGE_MAX_MS - 1, AGE_MAX_MS + 1, 10**12])
def test_an_old_proof_does_not(age_ms: int) -> None:
    """A captured request is worth nothing a minute later, nor is one of a clock that runs ahead."""
    assert doubt(ASKED, prove(RING, ASKED, OWN), Binding(OWN.boot_id, OWN.clock_ms + age_ms)) == "stale"


def test_a_proof_is_for_one_life_of_one_node() -> None:
    """Sent to another node, or to the same one after its restart, it does not hold, whatever the clock says."""
    assert doubt(ASKED, prove(RING, ASKED, OWN), Binding(b"another.", OWN.clock_ms)) == "other_boot"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "HEAD"},
        {"target": "/v2/a/blobs/sha256:1?ns=docker.io"},
        {"target": "/v2/a/blobs/sha256:0"},
        {"byte_range": ""},
        {"byte_range": "bytes=0-"},
        {"sender": NodeId(b"x" * 20)},
        {"method": "GET/", "target": "v2/a/blobs/sha256:0?ns=docker.io"},
    ],
)
def test_a_proof_is_for_one_request(change: dict) -> None:
    """Another method, path, registry, range or sender, or the same bytes parted otherwise: it does not hold."""
    assert doubt(replace(ASKED, **change), prove(RING, ASKED, OWN), OWN) == "wrong_key"


def test_the_binding_cannot_be_rewritten() -> None:
    """A captured proof with a newer time or another boot id written into it does not hold."""
    boot, clock, tag = prove(RING, ASKED, OWN).split(".")
    later = Binding(OWN.boot_id, OWN.clock_ms + 61_000)
    assert doubt(ASKED, f"{boot}.{later.clock_ms}.{tag}", later) == "wrong_key"
    other = Binding(b"another.", OWN.clock_ms)
    assert doubt(ASKED, f"{other.boot_id.hex()}.{clock}.{tag}", other) == "wrong_key"


def test_a_key_is_changed_without_a_refusal() -> None:
    """Old; old and new; new and old; new: neighbours in this row believe one another, the ends do not."""
    rings = [KeyRing(keys) for keys in ([OLD], [OLD, NEW], [NEW, OLD], [NEW])]
    for one, signer in enumerate(rings):
        held = [doubt(ASKED, prove(signer, ASKED, OWN), OWN, each) is None for each in rings]
        assert all(held[max(0, one - 1) : one + 2])
    assert doubt(ASKED, prove(rings[0], ASKED, OWN), OWN, rings[3]) == "wrong_key"


@pytest.mark.parametrize(
    "proof",
    [
        None,
        "",
        "a.b.c",
        "..",
        f"{'0' * 16}.1.{'0' * 31}",
        f"{'0' * 16}.-1.{'0' * 32}",
        f"{'0' * 16}.1.{'0' * 32} ",
        f"{'0' * 16}.1.{'0' * 32}\n",
        f"{'0' * 16}.{'1' * 21}.{'0' * 32}",
        f"{'0' * 16}.\u0661.{'0' * 32}",
        f"{'A' * 16}.1.{'0' * 32}",
    ],
)
def test_what_is_no_proof_is_said_to_be_none(proof: str | None) -> None:
    """Absent, cut, too long, other digits: the request is unsigned."""
    assert doubt(ASKED, proof, OWN) == "unsigned"


TEXTS = st.text(st.characters(max_codepoint=255), max_size=80)  # what a header can hold


@given(TEXTS, TEXTS, TEXTS)
def test_whatever_is_sent_proves_nothing(proof: str, method: str, byte_range: str) -> None:
    """Any text, and any tag without the key, is refused in one way."""
    asked = Asked(method, "/v2/", byte_range, ASKED.sender)
    bound = f"{OWN.boot_id.hex()}.{OWN.clock_ms}"
    for each in (proof, f"{bound}.{proof}", f"{bound}.{'0' * 32}"):
        assert doubt(asked, each, OWN) in {"unsigned", "wrong_key"}
