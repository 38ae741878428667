"""Numeric addresses: one spelling a host, and every text is an address or a complaint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.wire.address import Address


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[FD00:0::1]:29998", "[fd00::1]:29998"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1"),
        ("10.0.0.1:00080", "10.0.0.1:80"),
    ],
)
def test_one_spelling(text: str, plain: str) -> None:
    """Whatever way an address is written, it is the same one, and reads back."""
    address = Address.parse(text)
    assert str(address) == plain
    assert Address.parse(plain) == address
    assert address.is_ipv6 == plain.startswith("[")


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_survives(ip: object, port: int) -> None:
    """What is written is read as the same."""
    address = Address.of(str(ip), port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["node-3:1", "10.0.0.1", "10.0.0.1:65536", "10.0.0:1", "[10.0.0.1", ":1", "[x]:1"])
def test_what_is_none(text: str) -> None:
    """A name, a missing port, a port that there is not: a complaint that quotes the text."""
    with pytest.raises(ValueError, match=r"port|address"):
        Address.parse(text)


def test_ports_that_there_are_not() -> None:
    """An address with a port that no socket takes is never made."""
    for port in (-1, 65536):
        with pytest.raises(ValueError, match="is not in 0 to 65535"):
            Address.of("10.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "unspecified"), [("0.0.0.0", True), ("::", True), ("10.0.0.1", False), ("::1", False)]
)
def test_what_can_only_be_listened_on(host: str, unspecified: bool) -> None:
    """All addresses of a host are no address to dial."""
    assert Address.of(host, 1).is_unspecified is unspecified
