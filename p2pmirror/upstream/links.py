"""Where a list goes on: the `Link` field of a page, and whether it leads anywhere that we follow.

Laws: pure; any text gives a target or None, never an error; a target on another host is None.

Follows RFC 8288, section 3, and the OCI distribution specification, "Listing Tags".
"""

import re
from typing import Final
from urllib.parse import urljoin, urlsplit

FIELD_CHARS_MAX: Final = 2048  # of the field: real ones have 200

_LINK: Final = re.compile(r"<([^>]*)>((?:[^,\"<]++|\"(?:[^\"\\]++|\\.)*+\")*+)")  # possessive: no way back is kept
_NEXT: Final = re.compile(r";\s*rel\s*=\s*\"?(?:[^\";,]*\s)?next(?=[\s\";,]|$)", re.IGNORECASE)


def next_page(field: str, url: str) -> str | None:
    """Return the URL of the page behind `url`, as its `Link` field names it; None when it names none on its host."""
    for target, parameters in _LINK.findall(field[:FIELD_CHARS_MAX]):
        if _NEXT.search(parameters):
            return _on_same_host(target.strip(), url)
    return None


def _on_same_host(target: str, url: str) -> str | None:
    if not target.isascii() or not target.isprintable() or " " in target:
        return None
    try:
        joined = urljoin(url, target)
        there, here = urlsplit(joined), urlsplit(url)
        same = (there.scheme, there.netloc.lower()) == (here.scheme, here.netloc.lower())
    except ValueError:
        return None
    return joined if same and there.path.startswith("/v2/") else None
