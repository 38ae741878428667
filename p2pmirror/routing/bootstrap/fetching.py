"""Asking a host for its list of members over HTTP, at whichever of its addresses answers well first.

Laws: every address is tried, in the order of chance, the next one when one fails or takes its time; whoever answers
there may be anything: time and bytes are bounded, redirects are not followed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import trio

from p2pmirror.errors import MirrorError
from p2pmirror.routing.bootstrap.listing import LIST_BYTES_MAX, NAMED_MAX
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.network import Network

ASK_S_MAX: Final = 5.0  # a list of 1 MiB comes in less from another continent
HEDGE_S: Final = 0.25  # after this the next address is tried too: a lost SYN costs 1 s
TRIED_MAX: Final = 64  # addresses of one host: when that many fail, the next question tries others


class NoList(MirrorError):
    """Nobody answered with a list; says what they did instead."""


@dataclass(frozen=True, slots=True)
class Source:
    """What to ask for: `authority` is the URL's host and port as it writes them, `target` its path and query."""

    authority: str
    target: str


async def fetch(hosts: Sequence[Address], source: Source, network: Network, random: Random) -> list[Any]:
    """Return the first list of peers that an address of the host answers with, its entries unread. Raises `NoList`.

    Takes `ASK_S_MAX` at most. Cancelled, its connections are closed.
    """
    client = HttpClient(network, ClientOptions(dial_timeout_s=ASK_S_MAX))
    question = _Question(client, source)
    chosen = random.sample(hosts, min(len(hosts), TRIED_MAX))
    try:
        with trio.move_on_after(ASK_S_MAX):
            async with trio.open_nursery() as nursery:
                for address in chosen:
                    failed = trio.Event()
                    nursery.start_soon(question.ask, address, failed, nursery.cancel_scope)
                    with trio.move_on_after(HEDGE_S):
                        await failed.wait()
    finally:
        await client.aclose()
    if question.answer is None:
        raise NoList(question.failure(chosen))
    return question.answer


@dataclass
class _Question:
    """One question to all addresses of a host: the first good answer, and what went wrong elsewhere."""

    client: HttpClient
    source: Source
    answer: list[Any] | None = None
    failures: dict[Address, str] = field(default_factory=dict)

    async def ask(self, address: Address, failed: trio.Event, everybody: trio.CancelScope) -> None:
        """Ask one address; a good answer ends all."""
        headers = {"Host": self.source.authority, "Accept": "application/json", "Connection": "close"}
        try:
            async with self.client.request(address, "GET", self.source.target, headers) as response:
                _check(response.status, response.headers, address)
                self.answer = _peers(await response.read(LIST_BYTES_MAX), address)
            everybody.cancel()
        except MirrorError as error:
            self.failures[address] = str(error)
            failed.set()

    def failure(self, asked: Sequence[Address]) -> str:
        """Say what the first few did instead of answering: the same words for the same state of the world."""
        if not asked:
            return "it has no address"
        late = f"did not answer within {ASK_S_MAX:g} s"
        told = [self.failures.get(address, f"{address} {late}") for address in sorted(asked)]
        more = f" and {len(told) - NAMED_MAX} more" if len(told) > NAMED_MAX else ""
        return f"{'; '.join(told[:NAMED_MAX])}{more}"


def _check(status: int, headers: Mapping[str, str], address: Address) -> None:
    if status == 200:
        return
    followed = ", and redirects are not followed" if 300 <= status < 400 and "location" in headers else ""
    raise NoList(f"{address} answered with {status}{followed}")


def _peers(body: bytes, address: Address) -> list[Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):  # broken, not Unicode, a number of a thousand digits; or a very deep one
        raise NoList(f"{address} answered with what is no JSON") from None
    peers = said.get("peers") if isinstance(said, dict) else None
    if not isinstance(peers, list):
        raise NoList(f'{address} answered with JSON that is not {{"peers": [...]}}')
    return peers
