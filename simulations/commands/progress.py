"""How far a run is, on stderr: a line that is redrawn on a terminal, else a new one at intervals."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

from simulations.playing import Glimpse

REDRAW_S = 0.2  # on a terminal: smooth enough for the eye
LINE_S = 5.0  # in a log


class Progress:
    """Shows one run every `every_s` real seconds; on leaving the block the line is cleared from a terminal."""

    def __init__(self, name: str, stream: TextIO, *, every_s: float | None = None) -> None:
        self._name = name
        self._stream = stream
        self._redraws = stream.isatty()
        self._began = time.monotonic()
        self._every_s = every_s or (REDRAW_S if self._redraws else LINE_S)
        self._due = self._began + self._every_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._redraws:
            self._write("\r\x1b[K")

    def show(self, glimpse: Glimpse) -> None:
        """Show it, if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + self._every_s
        text = (
            f"{self._name}: {glimpse.nodes} nodes, {glimpse.seconds_virtual:.1f} s virtual, "
            f"{glimpse.datagrams:,} datagrams, {now - self._began:.0f} s real"
        )
        self._write(f"\r\x1b[K{text}" if self._redraws else f"{text}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
