"""Datagrams are valid or refused, and fit."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import Digest
from p2pmirror.routing.dht.codec import DATAGRAM_BYTES_MAX, Fitter, NullSeal, Unsealed, decode, encode
from p2pmirror.routing.dht.messages import (
    ALIVE,
    COMPLETE,
    LEADING,
    NO_COOKIE,
    Challenge,
    Claim,
    Contact,
    Contacts,
    Entry,
    Found,
    Granted,
    Knock,
    Malformed,
    Members,
    News,
    NodeInfo,
    Noted,
    Providers,
    Reached,
    Reply,
    Request,
    Store,
    pack_address,
    unpack_address,
)
from p2pmirror.routing.protocol import TagClaim
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND, Binding

HOME = pack_address(Address("10.0.0.1", 29998))
FITTER = Fitter(DATAGRAM_BYTES_MAX - NullSeal.overhead_bytes)
values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=30)
    | st.binary(max_size=30)
    | st.sampled_from([bytes(20), bytes(8), HOME, "q", "r", *range(1, 48)]),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=30,
)


def info(number: int) -> NodeInfo:
    return NodeInfo(number.to_bytes(20, "big"), bytes(8), 3, HOME, HOME, "z" * 63)


def reply(answer: Any) -> Reply:
    return Reply(bytes(8), bytes(20), answer)


@given(st.binary(max_size=1300))
def test_random_bytes_are_malformed_or_a_message(data: bytes) -> None:
    """Nothing but `Malformed` comes of any bytes, with the seal and without."""
    for read in (decode, NullSeal().open):
        try:
            read(data)
        except Malformed:
            continue


@given(values)
def test_random_structures_are_malformed_or_a_message(value: Any) -> None:
    """Nothing but `Malformed` comes of any msgpack, and what passes can be written again."""
    try:
        message = decode(msgspec.msgpack.encode(value))
    except Malformed:
        return
    assert decode(encode(message)) == message


@given(st.data())
def test_damaged_messages(data: Any) -> None:
    """A good message with bytes changed, cut or doubled is refused or another valid message."""
    found = Found(bytes(20), HOME, HOME, "z", COMPLETE, 600, Claim(0, bytes(32), "a/b", 5, 1.0, confirmed=True))
    payload = bytearray(encode(reply(Providers(True, (found,), (Contact(bytes(20), HOME),)))))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    for each in (bytes(payload), cut, bytes(payload) + cut):
        try:
            decode(each)
        except Malformed:
            continue


PING = ["q", bytes(8), bytes(20), b"", [1, [bytes(20), bytes(8), 0, b"", HOME, ""], bytes(8), 7], []]
CONTACTS = ["r", bytes(8), bytes(20), [34, [[bytes(20), HOME]]], []]
CLAIM = [0, bytes(32), "a/b", 5, 1.0, True]
PROVIDERS = ["r", bytes(8), bytes(20), [35, True, [[bytes(20), HOME, HOME, "", 2, 600, CLAIM]], []], []]
NEWS = ["r", bytes(8), bytes(20), [38], [[bytes(20), bytes(8), 0, 0, [bytes(20), bytes(8), 0, HOME, HOME, ""]]]]
STORE = ["q", bytes(8), bytes(20), b"", [5, bytes(8), HOME, "", 60, [[bytes(20), 1, 2, None]]], []]
WANT = ["q", bytes(8), bytes(20), b"", [10, bytes(20), [bytes(20), bytes(8), 0, b"", HOME, "", True], 7], []]
REPORT = ["q", bytes(8), bytes(20), b"", [11, bytes(20), [bytes(20), bytes(8), 0, b"", HOME, ""], 7, 2**40], []]
LED = ["q", bytes(8), bytes(20), b"", [13, bytes(20), [bytes(20), bytes(8), 0, HOME, HOME, ""], 7], []]
GRANTED = ["r", bytes(8), bytes(20), [40, False, [bytes(20), HOME, HOME, "", 3, 2, None], []], []]
GOOD = [PING, CONTACTS, PROVIDERS, NEWS, STORE, WANT, REPORT, LED, GRANTED]


def put(tree: Any, path: list[int], value: Any) -> Any:
    """Return the tree with another value at a path."""
    if not path:
        return value
    return [put(each, path[1:], value) if n == path[0] else each for n, each in enumerate(tree)]


@pytest.mark.parametrize("tree", GOOD)
def test_the_examples_are_messages(tree: Any) -> None:
    """What the next test damages is valid before."""
    decode(msgspec.msgpack.encode(tree))


@pytest.mark.parametrize(
    ("tree", "path", "value"),
    [
        (PING, [0], "x"),
        (PING, [1], bytes(7)),
        (PING, [2], bytes(21)),
        (PING, [3], bytes(33)),
        (PING, [4, 0], 99),
        (PING, [4, 1, 0], "a" * 20),
        (PING, [4, 1, 2], -1),
        (PING, [4, 1, 3], b"abc"),
        (PING, [4, 1, 4], bytes(6)),
        (PING, [4, 1, 4], b"\x0a\x00\x00\x01\x00\x00"),
        (PING, [4, 1, 4], b"\xff" * 6),
        (PING, [4, 1, 4], b"\xe0\x00\x00\x01\x00\x05"),
        (PING, [4, 1, 5], "z" * 64),
        (PING, [4, 2], bytes(9)),
        (PING, [4, 3], -1),
        (CONTACTS, [3, 1], [[bytes(20), HOME]] * 41),
        (CONTACTS, [3, 1, 0, 1], bytes(7)),
        (CONTACTS, [3, 1, 0, 1], bytes(18)),
        (PROVIDERS, [3, 2, 0, 4], 0),
        (PROVIDERS, [3, 2, 0, 5], 3601),
        (PROVIDERS, [3, 2, 0, 5], True),
        (PROVIDERS, [3, 2, 0, 6, 0], 1),
        (PROVIDERS, [3, 2, 0, 6, 0], 2),
        (PROVIDERS, [3, 2, 0, 6, 2], "no type"),
        (PROVIDERS, [3, 2, 0, 6, 3], 2**63),
        (PROVIDERS, [3, 2, 0, 6, 4], float("nan")),
        (PROVIDERS, [3, 2, 0, 6, 4], -1.0),
        (PROVIDERS, [3, 2, 0, 6, 4], float("inf")),
        (NEWS, [4, 0, 0], b"x" * 20),
        (NEWS, [4, 0, 3], 4),
        (NEWS, [4, 0, 4, 3], b""),
        (WANT, [4, 1], bytes(19)),
        (WANT, [4, 2], None),
        (WANT, [4, 2, 4], bytes(6)),
        (WANT, [4, 2, 6], 1),
        (WANT, [4, 3], -1),
        (REPORT, [4, 4], 2**63),
        (REPORT, [4, 4], 1.5),
        (LED, [4, 2, 3], b"\x0a\x00\x00\x01\x00\x00"),
        (GRANTED, [3, 1], 0),
        (GRANTED, [3, 2, 4], 0),
        (GRANTED, [3, 3], [[bytes(20), HOME, HOME, "", 2, 600]] * 17),
        (STORE, [4, 5, 0, 2], 4),
        (STORE, [4, 5], [[bytes(20), 1, 2, None]] * 65),
    ],
)
def test_what_no_honest_node_sends(tree: Any, path: list[int], value: Any) -> None:
    """Wrong kinds, lengths, counts, ports, addresses, ranges and numbers that are none are refused."""
    with pytest.raises(Malformed):
        decode(msgspec.msgpack.encode(put(tree, path, value)))


def test_another_version_or_seal_is_refused() -> None:
    """A datagram of another version, or sealed with a key, is not opened."""
    seal = NullSeal()
    assert seal.open(seal.seal(b"x", Binding(b"12345678", 5))) == (b"x", UNBOUND)
    for datagram in (b"\x02\x00x", b"\x01\x01x", b"\x01", b""):
        with pytest.raises(Malformed):
            seal.open(datagram)
    with pytest.raises(Unsealed):
        seal.open(b"\x01\x01x")


@pytest.mark.parametrize("text", ["10.0.0.1:29998", "[fd00::1]:1", "255.1.1.1:65535"])
def test_addresses(text: str) -> None:
    """Addresses of both families come back as they went."""
    assert unpack_address(pack_address(Address.parse(text))) == Address.parse(text)


def test_a_mapped_address_is_refused() -> None:
    """One host has one spelling on the wire."""
    with pytest.raises(Malformed):
        unpack_address(bytes(10) + b"\xff\xff\x0a\x00\x00\x01\x00\x05")


def test_claims() -> None:
    """A tag claim says on the wire what it said; ages are held to what the wire takes."""
    for algorithm in ("sha256", "sha512"):
        claim = TagClaim(Digest.of(b"x", algorithm), "application/json", 7, 1.5, confirmed=True)
        assert Claim.of(claim).as_tag() == claim
        old = TagClaim(claim.digest, claim.media_type, 7, 1e12, confirmed=False)
        assert Claim.of(old).as_tag().age_s < 1e9


def test_what_is_too_long_is_cut_from_the_end() -> None:
    """Answers lose the ends of their lists until they fit; contacts before records, a page of members says so."""
    contacts = tuple(Contact(bytes([n]) * 20, HOME) for n in range(1, 41))
    found = tuple(Found(bytes([n]) * 20, HOME, HOME, "z" * 63, COMPLETE, 600) for n in range(1, 17))
    cut = decode(FITTER.encode(reply(Providers(True, found, contacts))))
    assert isinstance(cut, Reply)
    assert isinstance(cut.answer, Providers)
    assert len(cut.answer.closer) == 8
    assert cut.answer.found == found[: len(cut.answer.found)] != ()
    named = Found(bytes(20), HOME, HOME, "z" * 63, LEADING, 2)
    granted = decode(FITTER.encode(reply(Granted(False, named, found))))
    assert isinstance(granted, Reply)
    assert isinstance(granted.answer, Granted)
    assert granted.answer.leader == named
    assert granted.answer.found == found[: len(granted.answer.found)] != ()
    members = decode(FITTER.encode(reply(Members(True, tuple(info(n) for n in range(20))))))
    assert isinstance(members, Reply)
    assert isinstance(members.answer, Members)
    assert not members.answer.last
    shorter = Fitter(200).encode(reply(Contacts(contacts)))
    assert len(shorter) <= 200
    for answer in (
        Reached(alive=True),
        Noted(),
        Contacts(()),
        Members(True, ()),
        Providers(True, (), ()),
        Granted(True, None, ()),
    ):
        with pytest.raises(ValueError, match="a message of"):
            Fitter(10).encode(reply(answer))


def test_a_knock_is_shorter_than_a_name_and_longer_than_a_challenge() -> None:
    """Whoever names an address has no more sent there than he sends himself; no answer is longer than the knock."""
    knock = encode(Request(bytes(8), bytes(20), NO_COOKIE, Knock()))
    name = msgspec.msgpack.encode(News(bytes(20), bytes(8), 0, ALIVE, NodeInfo(bytes(20), bytes(8), 0, HOME, HOME, "")))
    challenge = encode(reply(Challenge(bytes(8), bytes(8), 2**63 - 1)))
    assert len(challenge) <= len(knock) < len(name) - NullSeal.overhead_bytes


def test_news_is_left_out_first() -> None:
    """News rides only where there is room."""
    news = tuple(News(n.to_bytes(20, "big"), bytes(8), 0, ALIVE, info(n)) for n in range(8))
    message = Request(bytes(8), bytes(20), b"", Store(bytes(8), HOME, "", 60, (Entry(bytes(20), 1, 2),) * 30), news)
    cut = decode(FITTER.encode(message))
    assert isinstance(cut, Request)
    assert cut.question == message.question
    assert 0 < len(cut.news) < 8
    with pytest.raises(ValueError, match="a message of"):
        Fitter(100).encode(message)


@given(st.lists(st.integers(0, 2), max_size=200))
def test_batches_fit_and_lose_nothing(kinds: list[int]) -> None:
    """Entries of any mixture go out in order, in batches that fit, none empty."""
    claims = [
        None,
        Claim(0, bytes(32), "a/b", 5, 1.0, confirmed=True),
        Claim(1, bytes(64), "a/" + "b" * 100, 2**60, 1.0, True),
    ]
    entries = tuple(Entry(n.to_bytes(20, "big"), n + 2**40, 2, claims[kind]) for n, kind in enumerate(kinds))
    store = Store(bytes(8), HOME, "zone", 600, entries)
    sample = Request(bytes(8), bytes(20), bytes(8), store)
    batches = FITTER.batches(store, sample)
    assert tuple(entry for batch in batches for entry in batch.entries) == entries
    for batch in batches:
        message = Request(bytes(8), bytes(20), bytes(8), batch)
        assert decode(FITTER.encode(message)) == message
        assert batch.entries
