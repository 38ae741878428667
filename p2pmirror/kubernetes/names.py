"""Names of what is in a namespace, as people write them: `NAMESPACE/NAME`.

Follows Kubernetes' "Object Names and IDs": a namespace and a service have labels of RFC 1123, most others its names.
"""

import re
from typing import Final

SHOWN_CHARACTERS_MAX: Final = 100  # of what is none: enough to find it again

_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")


def read_name(text: str) -> tuple[str, str]:
    """Read `NAMESPACE/NAME`. Raises ValueError with a clear text."""
    namespace, _, name = text.partition("/")
    if not _LABEL.fullmatch(namespace) or not _NAME.fullmatch(name):
        raise ValueError(_refusal(text, "NAME"))
    return namespace, name


def read_service_name(text: str) -> tuple[str, str]:
    """Read `NAMESPACE/SERVICE`. Raises ValueError with a clear text."""
    namespace, _, service = text.partition("/")
    if not _LABEL.fullmatch(namespace) or not _LABEL.fullmatch(service):
        raise ValueError(_refusal(text, "SERVICE"))
    return namespace, service


def _refusal(text: str, noun: str) -> str:
    shown = ascii(text) if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]!a}…"
    return f"{shown} is not as NAMESPACE/{noun}, each a name of Kubernetes"
