"""What people write to say which hosts containerd is to ask, and how: read and refused before anything is written.

Law: what passes here stands in the files of every platform as it is, so it has no character that any of them would need
to be told about.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from p2pmirror.hostconfig.hosts import CAPABILITIES

AGENT: Final = "http://127.0.0.1:29999"  # the registry port that an agent has unless it is told another

_HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\x20-\x7e]+)")  # RFC 9110, sections 5.1 and 5.5
_DURATION: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m)")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_/-]+")


def read_address(text: str) -> str:
    """Return the URL of a host without a slash at its end. ValueError."""
    said = "an address such as http://127.0.0.1:29999"
    if not _URL.fullmatch(text):
        raise ValueError(f"{said}, with http:// or https://, without a login or a query")
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # raises when it is none
    except ValueError as error:
        raise ValueError(f"{said} ({error})") from None
    if not parts.hostname:
        raise ValueError(said)
    return text.rstrip("/")


def read_header(text: str) -> tuple[str, str]:
    """Return name and value of a header. ValueError."""
    if (match := _HEADER.fullmatch(text.strip())) is None:
        raise ValueError("a header such as 'Authorization: Basic dXNlcjpwYXNzd29yZA=='")
    return match[1], match[2]


def read_capabilities(text: str) -> tuple[str, ...]:
    """Return what containerd may ask a host for. ValueError."""
    words = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not set(words) <= set(CAPABILITIES) or "pull" not in words:
        raise ValueError("pull, or pull,resolve: any other word makes some containerds ignore the whole file")
    return words


def read_dial_timeout(text: str) -> str:
    """Return a duration as Go reads it, empty for none (0). ValueError."""
    if text == "0":
        return ""
    if not _DURATION.fullmatch(text):
        raise ValueError("a duration such as 200ms or 1s; 0: none is written")
    return text
