"""The rows of the table: a figure of ours, the peer's beside it, and the budget that both are held to.

Laws: a ratio is computed from the two figures, never measured by itself; a row without a figure says why and has met
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal, TypeVar

T = TypeVar("T")

_MET = {None: "", True: "yes", False: "NO"}


@dataclass(frozen=True)
class Budget:
    """A bound on our figure, or on its ratio to the peer's."""

    sign: Literal["<=", ">="]
    bound: float
    of: Literal["ours", "ratio"] = "ours"

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}{' x' if self.of == 'ratio' else ''}"

    def allows(self, value: float) -> bool:
        """Tell whether a figure keeps to it."""
        return value <= self.bound if self.sign == "<=" else value >= self.bound


@dataclass(frozen=True)
class Row:
    """One line of the table; `ours` and `peer` are in `unit`; `note` says how it was measured, or why it was not."""

    name: str
    unit: str
    ours: float | None = None
    peer: float | None = None
    budget: Budget | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours as a multiple of the peer's."""
        return None if self.ours is None or not self.peer else self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """Whether the budget is kept; None: there is none, or nothing to compare with it."""
        value = self.ratio if self.budget is not None and self.budget.of == "ratio" else self.ours
        return None if self.budget is None or value is None else self.budget.allows(value)

    def json(self) -> dict[str, Any]:
        """Return the row as it stands in the JSON file."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": _rounded(self.ours),
            "peer": _rounded(self.peer),
            "ratio": _rounded(self.ratio),
            "budget": None if self.budget is None else str(self.budget),
            "met": self.met,
            "note": self.note,
        }


def turns(rounds: int, ours: Callable[[], T], peer: Callable[[], T] | None) -> tuple[list[T], list[T]]:
    """Measure both sides in turns, A B A B, after one turn of each that does not count; None: there is no peer."""
    sides = [ours] if peer is None else [ours, peer]
    figures: list[list[T]] = [[], []]
    for number in range(rounds + 1):
        for side, measure in enumerate(sides):
            figure = measure()
            if number:
                figures[side].append(figure)
    return figures[0], figures[1]


def compared(row: Row, ours: Sequence[float], peer: Sequence[float]) -> Row:
    """Return the row with the medians of figures that were taken in turns; `peer` may be empty."""
    spread = f"ours {_span(ours)}" + (f", peer {_span(peer)}" if peer else "")
    note = f"{row.note}; {spread}" if row.note else spread
    return replace(row, ours=median(ours), peer=median(peer) if peer else None, note=note)


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a table in Markdown, with the notes below it."""
    lines = [["what", "unit", "ours", "peer", "ratio", "budget", "met"]]
    notes: list[str] = []
    for row in rows:
        if row.note:
            notes.append(f"{len(notes) + 1}. {row.note}")
        mark = f" ({len(notes)})" if row.note else ""
        figures = (_figure(row.ours), _figure(row.peer), _figure(row.ratio))
        lines.append([row.name + mark, row.unit, *figures, str(row.budget or ""), _MET[row.met]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in padded), "", *notes])


def _span(figures: Sequence[float]) -> str:
    return f"{_figure(min(figures))} to {_figure(max(figures))}"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
