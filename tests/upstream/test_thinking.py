"""Promises of what only thinks: challenges, hints of limits, links, addresses. Any text is read without an error."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.upstream.addresses import is_public
from p2pmirror.upstream.challenge import Challenge, parse_challenges
from p2pmirror.upstream.hints import RETRY_AFTER_S_MAX, Hints, read_go_duration, read_hints, read_retry_after
from p2pmirror.upstream.links import next_page
from p2pmirror.upstream.options import read_proxy, registry
from p2pmirror.upstream.urls import URL_CHARS_MAX, read_url

PAGE = "https://registry.test/v2/a/tags/list?n=2"
NOW_S = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="a, b"', [("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.test/token",
                        "service": "registry.test",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('BEARER Realm = "x" , error=invalid_token', [("bearer", {"realm": "x", "error": "invalid_token"})]),
        (
            'Negotiate, Basic realm="x", Bearer realm="y"',
            [("negotiate", {}), ("basic", {"realm": "x"}), ("bearer", {"realm": "y"})],
        ),
        ("Negotiate YII4bm8=, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="a \\"quoted\\" word"', [("bearer", {"realm": 'a "quoted" word'})]),
        ("Bearer realm=https://a.test/t,service=x", [("bearer", {"realm": "https://a.test/t", "service": "x"})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        (',, ,Basic realm="x",,', [("basic", {"realm": "x"})]),
        ('realm="x"', []),
        ('Basic realm="never closed', [("basic", {})]),
        ('Basic realm=, Bearer realm="y"', [("basic", {}), ("bearer", {"realm": "y"})]),
        ("\x00\x01", []),
    ],
)
def test_challenges_are_read(field: str, found: list[tuple[str, dict[str, str]]]) -> None:
    """Several challenges, quoted commas, escapes; what is broken ends the reading."""
    assert parse_challenges(field) == [Challenge(scheme, parameters) for scheme, parameters in found]


@given(st.text(max_size=300) | st.text(alphabet='aB=", \\\t;', max_size=80))
def test_any_text_is_challenges(text: str) -> None:
    """Whatever stands there, reading ends, with a bounded list."""
    assert len(parse_challenges(text)) <= 8


TOKENS = st.text(alphabet="abcdefghij-", min_size=1, max_size=8)
VALUES = st.text(alphabet='abc,:/" \\=', max_size=20)


@given(st.lists(st.tuples(TOKENS, st.dictionaries(TOKENS, VALUES, max_size=4)), min_size=1, max_size=6))
def test_what_is_written_is_read(challenges: list[tuple[str, dict[str, str]]]) -> None:
    """Every list of challenges that is written by the rules is read as it was meant."""

    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    written = ", ".join(
        f"{scheme} {', '.join(f'{name}={quoted(value)}' for name, value in parameters.items())}".strip()
        for scheme, parameters in challenges
    )
    assert parse_challenges(written) == [Challenge(scheme, parameters) for scheme, parameters in challenges]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("1m30s", 90.0),
        ("880.092µs", 880.092e-6),
        ("1h0m0.5s", 3600.5),
        ("100ms", 0.1),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:12:20 GMT", 0.0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("1m30", None),
        ("Tue, 99 Nov 2023 22:14:20 GMT", None),
    ],
)
def test_retry_after_in_each_form(text: str, seconds: float | None) -> None:
    """Seconds, dates and Go's durations are understood; anything else is as if nothing had been said."""
    found = read_retry_after(text, NOW_S)
    assert found == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=60) | st.text(alphabet="0123456789.hmsµun ", max_size=20))
def test_any_wait_is_a_wait_or_nothing(text: str) -> None:
    """Whatever stands there, it is seconds from 0 on, or not understood."""
    for found in (read_retry_after(text, NOW_S), read_go_duration(text)):
        assert found is None or found >= 0


def test_hints_of_a_quota() -> None:
    """Docker Hub's fields, as it writes them."""
    headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}
    assert read_hints(200, headers, "", NOW_S) == Hints(200, 100, 76, 21600.0, None)
    assert read_hints(200, {"ratelimit-remaining": "many", "ratelimit-limit": ""}, "", NOW_S) == Hints(200)


def test_hints_in_a_body_and_their_limit() -> None:
    """A wait may stand in the body, as GHCR has it; no wait is believed beyond an hour."""
    body = '{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: 1m2.5s, allowed: 44000/minute"}]}'
    assert read_hints(429, {}, body, NOW_S).retry_after_s == 62.5
    assert read_hints(429, {"retry-after": "3"}, body, NOW_S).retry_after_s == 3.0
    assert read_hints(429, {"retry-after": "999999999"}, "", NOW_S).retry_after_s == RETRY_AFTER_S_MAX


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.text(max_size=100))
def test_any_head_is_hints(limit: str, remaining: str, wait: str, body: str) -> None:
    """Whatever a head and a body say, hints are numbers within their limits, or absent."""
    headers = {"ratelimit-limit": limit, "ratelimit-remaining": remaining, "retry-after": wait}
    hints = read_hints(429, headers, body, NOW_S)
    assert hints.retry_after_s is None or 0 <= hints.retry_after_s <= RETRY_AFTER_S_MAX
    assert hints.limit is None or hints.limit >= 0


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ('</v2/a/tags/list?last=b&n=2>; rel="next"', "https://registry.test/v2/a/tags/list?last=b&n=2"),
        ("<https://registry.test/v2/a/tags/list?last=b>; rel=next", "https://registry.test/v2/a/tags/list?last=b"),
        ('<?last=b>; title="a, b"; rel="prev next"', "https://registry.test/v2/a/tags/list?last=b"),
        ('</v2/x>; rel="prev", </v2/y>; rel="next"', "https://registry.test/v2/y"),
        ('<https://evil.test/v2/a/tags/list>; rel="next"', None),
        ('<//evil.test/v2/a/tags/list>; rel="next"', None),
        ('<http://registry.test/v2/a/tags/list>; rel="next"', None),
        ('<https://registry.test@evil.test/v2/a>; rel="next"', None),
        ('</metrics>; rel="next"', None),
        ('</v2/x>; rel="nextish"', None),
        ("</v2/x>", None),
        ("<http://[>; rel=next", None),
        ("</v2/ä>; rel=next", None),
        ("", None),
    ],
)
def test_a_link_leads_on_to_the_same_host_or_nowhere(field: str, found: str | None) -> None:
    """The next page is one of this registry's API."""
    assert next_page(field, PAGE) == found


@given(st.text(max_size=200) | st.text(alphabet='</>;rel="next", v2:', max_size=80))
def test_any_link_stays_on_its_host(field: str) -> None:
    """Whatever stands there, it leads nowhere else."""
    found = next_page(field, PAGE)
    assert found is None or found.startswith("https://registry.test/v2/")


@pytest.mark.parametrize(
    "host",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "0.0.0.0", "169.254.169.254", "100.64.0.1"),
        *("224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1"),
        *("2002:0a00:0001::1", "2002:a9fe:a9fe::", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    ],
)
def test_what_is_not_dialled(host: str) -> None:
    """Private, loopback, link-local, shared, reserved and multicast addresses, in whatever dress they come."""
    assert not is_public(host)


@pytest.mark.parametrize(
    "host",
    ["1.1.1.1", "140.82.112.33", "2606:4700::6810:84e5", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1", "2002:101:101::1"],
)
def test_what_is_dialled(host: str) -> None:
    """Addresses of the internet at large, also behind NAT64 and 6to4."""
    assert is_public(host)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://store.test/a?b=c#d", "https://store.test/a?b=c"),
        ("/elsewhere", "https://registry.test/elsewhere"),
        ("//store.test:8443/a", "https://store.test:8443/a"),
        ("https://1.1.1.1/", "https://1.1.1.1/"),
        ("https://[2606:4700::1]/", "https://[2606:4700::1]/"),
        ("https://my_bucket.store.test./x", "https://my_bucket.store.test./x"),
    ],
)
def test_urls_that_are_followed(text: str, found: str) -> None:
    """Names and addresses in their usual spelling, whole or relative."""
    assert str(read_url(text, httpx.URL(PAGE), {"https"})) == found


def test_a_url_without_end_is_not_followed() -> None:
    """Signed addresses are long, but not that long."""
    assert read_url("https://store.test/" + "a" * 20_000, None, {"https"}) is None


@given(st.text(max_size=80) | st.text(alphabet="htps:/@[]%.0x1a#?", max_size=40).map("https://".__add__))
def test_any_text_is_a_url_that_is_followed_or_none(text: str) -> None:
    """Whatever stands there, what is followed has an allowed scheme, a plain host and nobody's password."""
    found = read_url(text, httpx.URL(PAGE), {"https"})
    if found is not None:
        assert (found.scheme, found.userinfo) == ("https", b"")
        assert not set(found.host) & set("@/?#%[]\\ ")


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "a.0x1", "[::1", "fe80::1%eth0"])
def test_addresses_in_disguise_are_not_followed(host: str) -> None:
    """What a resolver would read as an address is one only in its usual spelling."""
    assert read_url(f"https://{host}/", None, {"https"}) is None


def test_what_no_url_is_made_of_leads_nowhere() -> None:
    """A target with a space or a letter beyond ASCII, and a URL longer than any real one, are not followed."""
    assert next_page('</v2/a b>; rel="next"', PAGE) is None
    assert next_page('</v2/\N{LATIN SMALL LETTER E WITH ACUTE}>; rel="next"', PAGE) is None
    assert read_url("https://store.test/" + "a" * URL_CHARS_MAX, None, {"https"}) is None


def test_proxies() -> None:
    """No text is no proxy; a proxy is a host with a port, and a login where it wants one."""
    assert read_proxy("") is None
    assert read_proxy("http://me:secret@proxy.lab:3128/") == "http://me:secret@proxy.lab:3128"
    with pytest.raises(ValueError, match="a URL such as http://proxy"):
        read_proxy("http://proxy.lab:3128/path")


def test_which_registries_are_asked_over_tls() -> None:
    """A registry is asked over TLS unless its URL says otherwise."""
    assert registry("docker.io").is_secure
    assert registry("registry.test", "https://registry.test:5000").is_secure
    assert not registry("registry.test", "http://10.0.0.5:5000").is_secure
