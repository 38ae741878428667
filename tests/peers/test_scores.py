"""Promises of the scores: bans end, failures fade, the quick and near are preferred, memory is bounded."""

from random import Random

import pytest

from p2pmirror.oci import Digest
from p2pmirror.peers import scores as module
from p2pmirror.peers.scores import BAN_S, FAILURE_S, RATED_BYTES_MIN, RATES_MAX, Scores
from p2pmirror.wire.identity import NodeId

A, B, C = (NodeId(bytes([number]) * 20) for number in (1, 2, 3))
ONE, OTHER = Digest.of(b"one"), Digest.of(b"other")


@pytest.fixture
def scores() -> Scores:
    return Scores(Random(1))


def share(scores: Scores, candidates: list[tuple[NodeId, bool]], now: float = 0.0) -> dict[NodeId, int]:
    picked = [candidates[scores.pick(candidates, now)][0] for _ in range(300)]
    return {node: picked.count(node) for node, _ in candidates}


def test_a_ban_holds_for_one_digest_and_ends(scores: Scores) -> None:
    """Who lied about one blob is not asked for it for a while, and is asked for others."""
    scores.ban(A, ONE, 0.0, "it lied")
    assert scores.banned(A, ONE, BAN_S - 1)
    assert not scores.banned(A, OTHER, 1.0)
    assert not scores.banned(B, ONE, 1.0)
    assert not scores.banned(A, ONE, BAN_S)
    assert not scores.banned(A, ONE, 1.0), "a ban that has ended does not come back"


def test_bans_are_bounded(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of liars pushes out the oldest bans, not the agent's memory."""
    monkeypatch.setattr(module, "BANS_MAX", 3)
    for number in range(5):
        scores.ban(NodeId(bytes([number]) * 20), ONE, 0.0, "it lied")
    assert [scores.banned(NodeId(bytes([number]) * 20), ONE, 1.0) for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_peers_are_bounded(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that come and go are forgotten, the one unused for longest first."""
    monkeypatch.setattr(module, "PEERS_MAX", 2)
    scores.failed(A, 0.0)
    scores.failed(B, 0.0)
    scores.failed(C, 0.0)
    assert share(scores, [(A, True), (B, True), (C, True)], 1.0)[A] == 300, "A's failure is forgotten"


def test_unknown_peers_share_the_load(scores: Scores) -> None:
    """Without knowledge nobody is everybody's first choice."""
    shares = share(scores, [(A, True), (B, True), (C, True)])
    assert min(shares.values()) > 60


def test_a_single_candidate_is_picked(scores: Scores) -> None:
    """One is enough."""
    assert scores.pick([(A, False)], 0.0) == 0


def test_the_own_zone_comes_first(scores: Scores) -> None:
    """Bytes do not cross a zone's border while somebody nearer has them."""
    assert share(scores, [(A, False), (B, True), (C, False)])[B] == 300


def test_a_failure_makes_the_last_choice_for_a_while(scores: Scores) -> None:
    """Who failed a moment ago is asked after all others, even those of other zones."""
    scores.failed(A, 0.0)
    assert share(scores, [(A, True), (B, False)], FAILURE_S - 1)[A] == 0
    assert share(scores, [(A, True), (B, False)], FAILURE_S)[A] == 300


def test_the_quicker_of_two_is_asked(scores: Scores) -> None:
    """A measured rate counts."""
    for node, seconds in ((A, 1.0), (B, 10.0)):
        scores.began(node)
        scores.ended(node, 1_000_000, seconds)
    assert share(scores, [(A, True), (B, True)])[A] == 300


def test_the_newest_measurement_moves_the_average(scores: Scores) -> None:
    """A peer that became slow loses its place after some transfers."""
    for node, seconds in ((A, 1.0), (B, 2.0)):
        scores.ended(node, 1_000_000, seconds)
    for _ in range(5):
        scores.ended(A, 1_000_000, 100.0)
    assert share(scores, [(A, True), (B, True)])[B] == 300


def test_the_one_with_fewer_requests_in_flight_is_asked(scores: Scores) -> None:
    """Load counts, and an ended request is no load; ending twice does no harm."""
    scores.began(A)
    assert share(scores, [(A, True), (B, True)])[B] == 300
    scores.ended(A)
    scores.ended(A)
    assert min(share(scores, [(A, True), (B, True)]).values()) > 60


def test_what_is_usual_is_the_median_of_large_transfers(scores: Scores) -> None:
    """Small ones tell about round trips; nothing is usual before there was one; old ones are forgotten."""
    scores.ended(A, RATED_BYTES_MIN - 1, 1.0)
    assert scores.usual_rate() is None
    for megabytes in (1, 2, 90):
        scores.ended(A, megabytes * 1_000_000, 1.0)
    assert scores.usual_rate() == 2_000_000
    for _ in range(RATES_MAX):
        scores.ended(B, 7_000_000, 1.0)
    assert scores.usual_rate() == 7_000_000


def test_a_short_ban_does_not_end_a_long_one(scores: Scores) -> None:
    """A peer that lied stays banned when it is given up for a moment later."""
    scores.ban(A, ONE, 0.0, "it lied")
    scores.ban(A, ONE, 1.0, "it is slow", 5.0)
    assert scores.banned(A, ONE, BAN_S - 1)
    scores.ban(B, ONE, 0.0, "it is slow", 5.0)
    assert not scores.banned(B, ONE, 5.0)


def test_a_ban_is_told_once() -> None:
    """Whoever listens hears whom it concerns, for what, how long and why; not again while it lasts."""
    told: list[tuple[NodeId, Digest, float, str]] = []
    scores = Scores(Random(1), lambda *ban: told.append(ban))
    scores.ban(A, ONE, 0.0, "it lied")
    scores.ban(A, ONE, 1.0, "it is slow", 5.0)
    assert told == [(A, ONE, BAN_S, "it lied")]
    scores.ban(A, ONE, BAN_S, "it lied again")
    assert told[1:] == [(A, ONE, BAN_S, "it lied again")]
