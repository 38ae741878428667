"""What must hold: a scenario declares it by name and looks at it as the run goes on; the first violation ends the run.

Laws: a declared check that nobody looked at fails too, since it would never have told; a violation carries its time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

POLL_S = 0.25  # virtual seconds between two looks at what is waited for; the granularity of such figures


class Violation(Exception):
    """A check that did not hold: `check` is its name, `detail` what was seen, `at_s` the virtual time."""

    def __init__(self, check: str, detail: str, at_s: float) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.detail = detail
        self.at_s = at_s


class Check:
    """One thing that must hold."""

    def __init__(self, name: str, now: Callable[[], float]) -> None:
        self.name = name
        self.looks = 0  # how often it was looked at and held
        self._now = now

    def holds(self, condition: bool, detail: str | Callable[[], str]) -> None:  # noqa: FBT001  # an assertion
        """Raise `Violation` with `detail` unless `condition` is true; a function is only called then."""
        if not condition:
            self.violated(detail if isinstance(detail, str) else detail())
        self.looks += 1

    def violated(self, detail: str) -> NoReturn:
        """Raise `Violation`: it does not hold."""
        raise Violation(self.name, detail, self._now())

    async def within(
        self, limit_s: float, missing: Callable[[], Awaitable[str | None]], *, every_s: float = POLL_S
    ) -> float:
        """Wait until `missing` returns None; return after how many virtual seconds it did.

        `missing` says what is still wrong. Raises `Violation` with its last word when that takes more than `limit_s`.
        """
        began = self._now()
        while (wrong := await missing()) is not None:
            self.holds(self._now() < began + limit_s, f"not within {limit_s:g} s: {wrong}")
            await trio.sleep(every_s)
        took = self._now() - began
        self.holds(took <= limit_s, f"took {took:.3f} s and not {limit_s:g} s")
        return took


class Checks:
    """The checks of one run."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._declared: dict[str, Check] = {}

    def declare(self, name: str) -> Check:
        """Return the check of this name, a sentence that says what must hold."""
        return self._declared.setdefault(name, Check(name, self._now))

    def finish(self) -> dict[str, int]:
        """Return how often each check was looked at. Raises `Violation` for one that never was."""
        for check in self._declared.values():
            if check.looks == 0:
                check.violated("it was declared, and nobody ever looked at it")
        return {check.name: check.looks for check in self._declared.values()}
