"""Answers with the tags of a repository that are held here, in pages where the client asks for them.

Laws: tags stand in ASCII order; `last` is not repeated; a page that leaves something out names the next one.

Follows the OCI distribution specification, section "Listing Tags".
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from p2pmirror.front.errors import API_VERSION, Refused
from p2pmirror.front.query import Query
from p2pmirror.wire.http import Response

DIGITS_MAX: Final = 9  # of `n`: more tags than any repository has


def answer(repository: str, tags: Sequence[str], query: Query) -> Response:
    """Return a page of `tags`, which are sorted. Raises `Refused` for an `n` that is no number."""
    start = 0 if query.last is None else bisect_right(tags, query.last)
    page = tags[start:] if query.n is None else tags[start : start + _number(query.n)]
    headers = {"Content-Type": "application/json", "Docker-Distribution-Api-Version": API_VERSION}
    if page and start + len(page) < len(tags):
        registry = "" if query.registry is None else f"&ns={quote(query.registry, safe='')}"
        headers["Link"] = f'</v2/{repository}/tags/list?n={len(page)}&last={page[-1]}{registry}>; rel="next"'
    return Response(200, headers, json.dumps({"name": repository, "tags": list(page)}).encode())


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise Refused("PAGINATION_NUMBER_INVALID", "n is a number of tags")
    return int(text)
