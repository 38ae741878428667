"""The query of a request: which registry is meant, which page, which artifacts.

Laws: percent-encoding is taken off once; a plus is a plus (media types have them, and nothing here has a space);
unknown names are ignored; two different registries in one query are refused, since two readers would see two requests.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from p2pmirror.front.errors import Refused
from p2pmirror.oci import canonical_registry, check_registry

QUERY_CHARS_MAX: Final = 2_048  # a registry, a tag and a media type, all of them percent-encoded
QUERIES_REMEMBERED: Final = 512  # a cluster asks for a handful of registries; at the very most 2 MiB


@dataclass(frozen=True, slots=True)
class Query:
    """`registry` is canonical, None when the query names none; the rest is as it came, decoded."""

    registry: str | None = None
    n: str | None = None
    last: str | None = None
    artifact_type: str | None = None


def parse_query(text: str) -> Query:
    """Read what stands after the question mark. Raises `Refused`, and Invalid (NAME_INVALID) for a bad `ns`."""
    if len(text) > QUERY_CHARS_MAX:
        raise Refused("UNSUPPORTED", f"a query has at most {QUERY_CHARS_MAX} characters")
    return _parse(text)


@lru_cache(maxsize=QUERIES_REMEMBERED)
def _parse(text: str) -> Query:
    values: dict[str, str] = {}
    for field in text.split("&"):
        raw_name, _, raw_value = field.partition("=")
        name, value = unquote(raw_name), unquote(raw_value)
        if values.setdefault(name, value) != value and name == "ns":
            raise Refused("NAME_INVALID", "the query names two registries")
    registry = values.get("ns")
    return Query(
        registry=None if registry is None else canonical_registry(check_registry(registry)),
        n=values.get("n"),
        last=values.get("last"),
        artifact_type=values.get("artifactType"),
    )
