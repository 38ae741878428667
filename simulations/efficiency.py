"""How near a stampede came to the optimum.

The optimum of a blob of M pieces for N nodes is (S/u)(1 + floor(log2 N)/M) (J. Mundinger, R. Weber, G. Weiss, Optimal
Scheduling of Peer-to-Peer File Dissemination, 2008).
"""

from collections.abc import Iterable
from math import floor, log2

from simulations.scenario import Figure


def optimum_s(nodes: int, pieces: int, piece_s: float, upstream: float) -> float:
    """Return seconds for nodes whose links take `piece_s` a piece; the registry has `upstream` times their rate."""
    return pieces * piece_s / min(1.0, upstream) + piece_s * floor(log2(max(1, nodes)))


def figures(best_s: float, took_s: Iterable[float]) -> dict[str, Figure]:
    """Return the figures of nodes that took so long, one of them at least."""
    seconds = sorted(took_s)
    median, late, last = seconds[len(seconds) // 2], seconds[int(0.99 * (len(seconds) - 1))], seconds[-1]
    return {
        "seconds_optimum": round(best_s, 3),
        "seconds_median": round(median, 3),
        "seconds_max": round(last, 3),
        "efficiency": {
            "p50": round(best_s / median, 3),
            "p99": round(best_s / late, 3),
            "max": round(best_s / last, 3),
        },
    }
