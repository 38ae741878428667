"""The setting `credentials`: a kind and a path.

Law: pure; what stands at the path is looked at when it is needed, and may be absent at the start.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

Kind = Literal["docker-config", "kubernetes-secret", "file"]

KINDS: Final = "docker-config:PATH, kubernetes-secret:PATH or file:PATH, each with an absolute path"


@dataclass(frozen=True, slots=True)
class CredentialsSetting:
    """Where a registry's credentials are kept, and in which form."""

    kind: Kind
    path: Path

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}"


def read_credentials(text: str) -> CredentialsSetting | None:
    """Read `KIND:PATH`; None for an empty text. ValueError says what is allowed, and quotes nothing."""
    if not text:
        return None
    said, _, path = text.partition(":")
    for kind in get_args(Kind):
        if said == kind and path.startswith("/") and "\0" not in path:
            return CredentialsSetting(kind, Path(path))
    raise ValueError(KINDS)
