"""The rule that every stream keeps for sending: one task at a time, and nothing after a send that was cut short."""

from types import TracebackType
from typing import Self

import trio

from p2pmirror.errors import Unreachable


class OneSend:
    """Remembers whether a send is under way, and whether one ended before its last byte."""

    __slots__ = ("_cut_short", "under_way")

    def __init__(self) -> None:
        self.under_way = False
        self._cut_short = False

    def begin(self) -> Self:
        """Return the block that holds the sending side for one send; what leaves it as an exception has cut it short.

        Raises BusyResourceError while another task sends, and `Unreachable` after a send that was cut short.
        """
        if self.under_way:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._cut_short:
            raise Unreachable("an earlier send was cut short, so no more can be sent")
        self.under_way = True
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.under_way = False
        self._cut_short = kind is not None
