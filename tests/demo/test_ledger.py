"""Who got which bytes from whom: sums that are exact, whoever died."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.demo.ledger import divide, received

REPOSITORY = "demo/app"


def request(count, *, peer="", from_peer=None, digest="d", source="peer", method="GET"):
    entry = {
        "method": method,
        "repository": REPOSITORY,
        "source": source,
        "digest": digest,
        "peer": peer,
        "bytes": count,
    }
    return entry if from_peer is None else {**entry, "from_peer": from_peer}


def test_an_answer_from_one_peer_is_all_his():
    """No question has to be asked where only one peer was used."""
    requests = {"me": [request(100, peer="dead"), request(7, peer="dead", digest="e")]}
    assert received("me", requests, REPOSITORY) == {"dead": 107}


def test_the_dead_gave_what_the_living_did_not():
    """An answer that went on elsewhere is divided by what the living one says that it sent to this node."""
    requests = {
        "me": [request(100, peer="dead,living")],
        "living": [
            request(60, from_peer="me", source="store"),
            request(60, from_peer="another", source="store"),
            request(60, from_peer="me", source="store", digest="other"),
            request(60, from_peer="me", source="store", method="HEAD"),
        ],
    }
    assert received("me", requests, REPOSITORY) == {"dead": 40, "living": 60}


def test_only_what_came_from_peers_for_the_own_client_counts():
    """Answers from the own store, to peers, and for other images are no part of a pull."""
    requests = {
        "me": [
            request(1, source="store"),
            request(2, peer="x", from_peer="x", source="store"),
            {**request(4, peer="x"), "repository": "other"},
            request(8, peer="x"),
        ]
    }
    assert received("me", requests, REPOSITORY) == {"x": 8}


def test_a_manifest_in_memory_came_from_whom_it_was_fetched():
    """What HEAD made the agent fetch, and GET then found in its memory, came from that peer; the rest from nobody."""
    requests = {
        "me": [
            request(518, source="cache"),
            request(0, peer="x", method="HEAD"),
            request(9, source="cache", digest="never fetched"),
        ]
    }
    assert received("me", requests, REPOSITORY) == {"x": 518}


@given(
    st.integers(0, 1000),
    st.lists(st.sampled_from("abcde"), unique=True, min_size=1),
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2000)),
)
def test_nothing_is_lost_and_nothing_doubled(total, peers, sent):
    """Whatever the peers say that they sent, the parts add up to the whole and none is negative."""
    parts = divide(total, peers, sent)
    assert sum(parts.values()) == total
    assert min(parts.values()) >= 0
    assert set(parts) == set(peers)
