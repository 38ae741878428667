"""What is wrong with a bootstrap, for the log: each thing once, and again only when it changes."""

import logging
from collections.abc import Collection

from p2pmirror.routing.bootstrap.places import shown

REASON_CHARS_MAX = 500  # of one line of a log: foreign text is quoted in it

_log = logging.getLogger(__name__)


class Complaints:
    """Remembers what it has said; what it forgets it would say again."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}  # subject -> why

    def wrong(self, subject: str, why: str) -> None:
        """Warn, unless that was the last word on this subject."""
        if self._said.get(subject) != why:
            self._said[subject] = why
            _log.warning("bootstrap %s %s", shown(subject), shown(why, REASON_CHARS_MAX))

    def right(self, subject: str, now: str) -> None:
        """Say what is right `now`, if something was wrong."""
        if self._said.pop(subject, None) is not None:
            _log.info("bootstrap %s %s", shown(subject), now)

    def keep_only(self, subjects: Collection[str]) -> None:
        """Forget what was said of everything else: nobody asks for it any more."""
        for subject in [each for each in self._said if each not in subjects]:
            del self._said[subject]
