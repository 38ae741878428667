"""Ctrl-C and its relatives, as an error among others: so that what is left behind is decided in one place."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from p2pmirror.demo.failed import DemoFailed


@asynccontextmanager
async def interruptible() -> AsyncIterator[None]:
    """Raise `DemoFailed` in the block when somebody wants the demo to end."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt, signals)
            yield
            nursery.cancel_scope.cancel()


async def _interrupt(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        raise DemoFailed(f"interrupted ({signal.Signals(number).name}); nothing is left behind")
