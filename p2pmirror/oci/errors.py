"""The one error of this room: what was given is not what the OCI specifications allow.

Laws: nothing in this room raises anything else for bad input; a message quotes at most 80 characters of that input,
escaped, so that it can stand in a log line or an answer; the code is the one that a registry's error body carries.

Follows the OCI distribution specification, section "Error Codes" (TAG_INVALID is Docker's registry API, version 2).
"""

from typing import Literal

Code = Literal["DIGEST_INVALID", "MANIFEST_INVALID", "NAME_INVALID", "TAG_INVALID", "UNSUPPORTED"]

QUOTED_CHARACTERS_MAX = 80  # characters: shows a whole sha256 digest; input of any length stays one short line


class Invalid(ValueError):
    """Input that is not valid; `code` is the OCI error code, `str()` the sentence for people."""

    code: Code

    def __init__(self, code: Code, what: str, offending: str | None = None) -> None:
        """Say `what` is wrong, and quote the beginning of the `offending` input when there is one."""
        super().__init__(what if offending is None else f"{what}: {_quoted(offending)}")
        self.code = code


def _quoted(text: str) -> str:
    if len(text) <= QUOTED_CHARACTERS_MAX:
        return ascii(text)
    return f"{text[:QUOTED_CHARACTERS_MAX]!a}… ({len(text)} characters)"
