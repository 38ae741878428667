"""Whoever gives up asking for first members, or following them, leaves nothing open and nothing half known."""

from __future__ import annotations

from typing import Any

import trio

from tests.cancellation import cancel_at
from tests.kubernetes_api.certificates import Certificate
from tests.kubernetes_api.setting import named, pod

NAMES = [f"10.0.{number // 10}.{number % 10}:29998" for number in range(10, 25)]


async def test_finding_endpoints(certificate: Certificate, autojump_clock: Any, long: bool) -> None:
    """A list of two pages, and a watch with news, cancelled anywhere: no connection is left, and all are named next."""
    async with pod(certificate) as place:
        for number in range(10, 25):
            place.api.put(f"part-{number}", [f"10.0.{number // 10}.{number % 10}"])
        bootstrap = place.bootstrap()

        async def operation() -> None:
            bootstrap._told = frozenset()
            bootstrap._endpoints.version = ""  # nothing is known from which a watch could go on
            await bootstrap.changed()

        async def check() -> None:
            await trio.sleep(5)
            assert place.world.open_streams == 0
            assert await named(bootstrap) == NAMES

        number = 1
        while await cancel_at(number, operation):
            await check()
            number += 1 if long else 6
        await check()
        assert number > 40
