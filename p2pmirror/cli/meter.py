"""How a command shows how far it is: a line that is redrawn on a terminal, else a line now and then.

Laws: what is quick says nothing; results go to stdout, this to stderr.
"""

import time
from collections.abc import Callable
from typing import Final, TextIO

import click

from p2pmirror.cli.text import share, size

REDRAW_S: Final = 0.2  # on a terminal: smooth enough for the eye
LINE_S: Final = 5.0  # in a log


class Meter:
    """Counts bytes and shows them."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`, which is redrawn where it is a terminal."""
        self._stream = stream
        self._redraws = stream.isatty()
        self._every_s = REDRAW_S if self._redraws else LINE_S
        self._text = ""
        self._all: int | None = None
        self._done = 0
        self._due = 0.0
        self._shown = False

    def begin(self, text: str, total: int | None = None) -> None:
        """Count from 0, up to `total` bytes where that is known."""
        self._text, self._all, self._done = text, total, 0
        self._due = time.monotonic() + self._every_s

    def then(self, text: str) -> Callable[[int], None]:
        """Return what counts a next part of the work, which begins when it is first told something."""

        def count(more: int) -> None:
            if self._text != text:
                self.begin(text)
            self.add(more)

        return count

    def add(self, count: int) -> None:
        """Count more bytes; show them when it is time."""
        self._done += count
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._every_s
            part = f"{share(self._done / self._all)} of {size(self._all)}" if self._all else size(self._done)
            line = f"{self._text}: {part}"
            click.echo(f"\r{line}\x1b[K" if self._redraws else line, file=self._stream, nl=not self._redraws)
            self._shown = True

    def end(self) -> None:
        """Take the line away."""
        if self._shown and self._redraws:
            click.echo("\r\x1b[K", file=self._stream, nl=False)
        self._shown = False
