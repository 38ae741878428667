"""Waiting until a DaemonSet has done its work on every node.

Laws:
- the word of a controller that has not seen the last change of the DaemonSet does not count;
- whatever goes wrong meanwhile may pass (a role that is a second old, an API that restarts): it is told, and asked
  again; only the caller's deadline ends it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from p2pmirror.errors import MirrorError, Unreachable
from p2pmirror.kubernetes.access import NoAccess
from p2pmirror.kubernetes.objects import ApiRefused, DaemonSet
from p2pmirror.kubernetes.session import Sessions

ASK_S: Final = 1.0  # between questions: somebody waits for it, and it is one object
ANSWER_S_MAX: Final = 10.0  # for one answer; then it is asked for again


@dataclass(frozen=True, slots=True)
class DaemonSetName:
    """A DaemonSet in a namespace, by name."""

    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Return where it is."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets/{self.name}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def progress(found: DaemonSet) -> tuple[bool, str]:
    """Return whether it is ready on every node, and how far it is, in words."""
    status = found.status
    if status.observed_generation < found.metadata.generation:
        return False, "its last change has not been seen by its controller yet"
    ready, desired = status.number_ready, status.desired_number_scheduled
    return ready == desired, f"{ready} of {desired} ready"


async def wait_until_ready(name: DaemonSetName, sessions: Sessions, tell: Callable[[str], None]) -> None:
    """Return when it is ready on every node; `tell` is told how far it is, as that changes.

    Raises `NoAccess` when there is no API to ask. Cancelled, nothing is left open.
    """
    last = ""
    while True:
        is_ready = False
        try:
            async with sessions() as session:
                with trio.fail_after(ANSWER_S_MAX):
                    is_ready, now = progress(await session.get(name.path, DaemonSet))
        except NoAccess:
            raise
        except trio.TooSlowError:
            now = f"the API did not answer within {ANSWER_S_MAX:g} s"
        except MirrorError as error:
            now = _words(error)
        if now != last:
            tell(now)
            last = now
        if is_ready:
            return
        await trio.sleep(ASK_S)


def _words(error: MirrorError) -> str:
    if isinstance(error, ApiRefused) and error.status == 404:
        return "there is none of this name"
    return f"the API cannot be asked: {error}" if isinstance(error, Unreachable) else str(error)
