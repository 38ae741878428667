"""The rule that every stream keeps for sending: one task at a time, and nothing after a send that was cut short."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from p2pmirror.errors import Unreachable


class OneSend:
    """Remembers whether a send is under way, and whether one ended before its last byte."""

    def __init__(self) -> None:
        self.under_way = False
        self._cut_short = False

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Hold the sending side for one send; whatever leaves the block as an exception has cut it short.

        Raises BusyResourceError while another task sends, and `Unreachable` after a send that was cut short.
        """
        if self.under_way:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._cut_short:
            raise Unreachable("an earlier send was cut short, so no more can be sent")
        self.under_way = self._cut_short = True
        try:
            yield
            self._cut_short = False
        finally:
            self.under_way = False
