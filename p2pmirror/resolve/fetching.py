"""One piece on its way from a peer: noted while it is asked for, received until too little comes.

Laws: a piece is noted for exactly as long as somebody is asked for it; a peer that gives nothing for `STALL_S`, or not
all within `PIECE_S`, is left.
"""

from typing import Final

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.peers.protocol import Answer
from p2pmirror.resolve.flight import Flight

STALL_S: Final = 2.0  # a piece of which nothing comes for so long is asked of somebody else
PIECE_S: Final = 30.0  # and so is one that drips: 4 MiB at 140 KiB/s
PIECE_GATHER_S: Final = 0.25  # for much at a time: nobody reads a piece before it is whole; several share a link


class Fetching:
    """A piece that is being fetched, for as long as the block lasts."""

    def __init__(self, flight: Flight, index: int) -> None:
        self._flight = flight
        self._index = index

    def __enter__(self) -> None:
        self._began = trio.current_time()
        self._flight.fetching.setdefault(self._index, []).append(self._began)

    def __exit__(self, *_: object) -> None:
        asked = self._flight.fetching[self._index]
        asked.remove(self._began)
        if not asked:
            del self._flight.fetching[self._index]
        self._flight.changed_pieces()


async def receive(answer: Answer, room: memoryview, deadline: float) -> int:
    """Receive some bytes, many at a time, at least one. Raises `Unreachable`, after `deadline` too."""
    got = 0
    with trio.move_on_at(min(deadline, trio.current_time() + STALL_S)):
        got = await answer.receive_into(room, PIECE_GATHER_S)
    if not got:
        raise Unreachable("a piece ended early, or nothing of it comes")
    return got
