"""What can go wrong, named by whose fault it is and what to do next.

A room translates at its border, once: no socket error, gRPC status or msgpack exception leaves the room that met it.
Anything that is not one of these is a bug; it crashes the task that has it, not the agent.
"""


class MirrorError(Exception):
    """Base of everything that p2pmirror raises on purpose; `str()` is one line for a log or a user."""


class NotHere(MirrorError):
    """This source does not have it: ask elsewhere."""


class PeerMisbehaved(MirrorError):
    """A peer sent what no honest peer sends: discard it and ban the peer for that digest."""


class Unreachable(MirrorError):
    """No answer in time, or the connection broke: retry, hedge, or go to another source."""


class UpstreamRefused(MirrorError):
    """A registry answered with an error of its own."""

    def __init__(self, message: str, *, status: int) -> None:
        """Keep the HTTP `status` that the registry gave (400 to 599)."""
        super().__init__(message)
        self.status = status


class BadRequest(MirrorError):
    """The caller asked for something that cannot be asked for: tell him why."""


class StoreFull(MirrorError):
    """No room left to keep the bytes: stream them through uncached."""


def only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what is no `MirrorError` in a group: a cancellation or a bug; else its first error, the others' cause."""
    _, others = group.split(MirrorError)
    if others is not None:
        return others
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
