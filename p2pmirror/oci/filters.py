"""Which images this node takes part in: an ordered list of patterns over names, the last match decides."""

import re
import warnings
from collections.abc import Iterable

PATTERN_CHARS_MAX = 1000  # an alternation of some dozens of names; longer ones are a mistake


class Filters:
    """Regular expressions matched fully against `registry/repository` or `registry/repository:tag`.

    `!` in front of a pattern excludes. The last pattern that matches decides. What no pattern matches is let through
    when all patterns exclude, and kept out as soon as one of them includes. A pattern that is to bind a repository
    whether it is asked for by tag or by digest ends in `(:.*)?`.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        """Compile `patterns`; ValueError names the one that cannot be."""
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for text in patterns:
            excludes = text.startswith("!")
            body = text[1:] if excludes else text
            if not body or len(body) > PATTERN_CHARS_MAX:
                raise ValueError(f"{text[:80]!a} is not a pattern of 1 to {PATTERN_CHARS_MAX} characters")
            self._rules.append((not excludes, _compiled(body, text)))
        self._unmatched = not any(includes for includes, _ in self._rules)

    @property
    def empty(self) -> bool:
        """Whether everything is let through because there is no pattern."""
        return not self._rules

    def allows(self, name: str) -> bool:
        """Return whether this node serves and advertises `name`."""
        for includes, pattern in reversed(self._rules):
            if pattern.fullmatch(name):
                return includes
        return self._unmatched


def _compiled(body: str, text: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # `[[a-z]` will mean something else to a later Python
            return re.compile(body)
    except (re.error, OverflowError, RecursionError, FutureWarning) as error:
        why = str(error).encode("unicode_escape").decode()  # it quotes the pattern as it stands
        raise ValueError(f"{text[:80]!a} is not a regular expression: {why}") from None
