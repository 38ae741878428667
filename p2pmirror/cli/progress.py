"""How the demo shows what it is doing: a block that is redrawn on a terminal, else a line a second.

Laws: lines that are written stay; only the block below them is drawn over.
"""

import time
from typing import Final, TextIO

import click

from p2pmirror.cli.text import size
from p2pmirror.demo import NodeView

BAR_CHARS: Final = 20  # the whole line then fits into 80 columns, so that it takes one line to draw over
REDRAW_S: Final = 0.2  # on a terminal: smooth enough for the eye
LINE_S: Final = 1.0  # in a log


class Progress:
    """The demo's `Display` on a stream."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`, which is redrawn where it is a terminal."""
        self._stream = stream
        self._redraws = stream.isatty()
        self._block = 0  # lines of the block that is on the screen
        self._began = time.monotonic()

    @property
    def every_s(self) -> float:
        """How often the nodes are to be shown."""
        return REDRAW_S if self._redraws else LINE_S

    def stage(self, text: str) -> None:
        """Write what begins now; it stays."""
        self._write([f"{self._clock()}  {text}"], block=0)

    def nodes(self, views: list[NodeView]) -> None:
        """Show how far the nodes are."""
        if self._redraws:
            lines = [bar(view) for view in views]
            self._write(lines, block=len(lines))
        elif any(view.state == "pulling" for view in views):
            self._write([f"{self._clock()}  {', '.join(brief(view) for view in views)}"], block=0)

    def finish(self) -> None:
        """Leave the block that is on the screen as it is."""
        self._block = 0

    def _write(self, lines: list[str], *, block: int) -> None:
        back = f"\x1b[{self._block}F\x1b[J" if self._block else ""  # to the block's first line, and clear from there
        click.echo(back + "\n".join(lines), file=self._stream)
        self._block = block

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:5.1f} s"


def bar(view: NodeView) -> str:
    """Return a node's line of the block."""
    done = view.received_bytes / view.total_bytes if view.total_bytes else 0.0
    full = round(BAR_CHARS * done)
    shown = f"[{'#' * full}{'.' * (BAR_CHARS - full)}] {done:4.0%}" if view.state in {"pulling", "pulled"} else ""
    rate = f"{size(view.received_bytes / view.seconds)}/s, {view.seconds:.1f} s" if shown and view.seconds else ""
    return f"  node {view.number}  {view.host}  {view.state:<8}  {shown}  {rate}".rstrip()


def brief(view: NodeView) -> str:
    """Return a node's part of a log line."""
    done = f" {view.received_bytes / view.total_bytes:.0%}" if view.state == "pulling" and view.total_bytes else ""
    return f"node {view.number} {view.state}{done}"
