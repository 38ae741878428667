"""Tables and quantities as a person reads them at a glance."""

from collections.abc import Sequence

from p2pmirror.cli.asking import plain

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return lines of a table whose columns are as wide as they need be; numbers stand to the right."""
    cells = [[plain(str(cell)) for cell in row] for row in rows]
    widths = [max(len(each) for each in column) for column in zip(head, *cells, strict=True)]
    right = [bool(rows) and all(isinstance(row[index], int | float) for row in rows) for index in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [line(head), *(line(row) for row in cells)]


def counted(count: int, noun: str) -> str:
    """Write a number of things, as in `1 tag`, `12 tags`, `no tags`."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def share(ratio: float) -> str:
    """Write a part of a whole, as in `83%`; only all of it is `100%`, and only nothing is `0%`."""
    if 0 < ratio < 0.01:
        return "less than 1%"
    return f"{int(ratio * 100 + 1e-9)}%"  # cut, not rounded; 0.29 * 100 is a little less than 29


def size(count: float) -> str:
    """Write bytes with three digits and a unit, as in `1.25 GiB`."""
    power = 0
    while count >= 999.5 and power < len(_UNITS) - 1:  # as it is rounded, so that no size needs a fourth digit
        count /= 1024
        power += 1
    digits = 0 if power == 0 or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f} {_UNITS[power]}"


def duration(seconds: float) -> str:
    """Write seconds in the unit in which people say them, as in `3.2 ms`, `12 s`, `5 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def short_digest(digest: str) -> str:
    """Return enough of a digest to tell it from the others on the screen."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}:{encoded[:12]}" if encoded else digest
