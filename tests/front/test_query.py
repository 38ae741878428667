"""The query of a request: which registry is meant, said once."""

import pytest

from p2pmirror.front.errors import Refused
from p2pmirror.front.query import QUERY_CHARS_MAX, Query, parse_query


def test_what_is_read() -> None:
    """The registry in its one spelling, the page and the type as they came, decoded once; other names are ignored."""
    text = "ns=Docker.IO&n=5&last=a%2526&artifactType=application/vnd.x%2By+json&x=1"
    assert parse_query(text) == Query("docker.io", "5", "a%26", "application/vnd.x+y+json")
    assert parse_query("") == Query()


@pytest.mark.parametrize(
    ("text", "says"),
    [("ns=docker.io&ns=ghcr.io", "two registries"), ("last=" + "a" * QUERY_CHARS_MAX, "at most 2048 characters")],
)
def test_what_is_refused(text: str, says: str) -> None:
    """Two registries in one query, which two readers would see differently, and what is longer than any real one."""
    with pytest.raises(Refused, match=says):
        parse_query(text)
    assert parse_query("ns=docker.io&ns=docker.io").registry == "docker.io"
