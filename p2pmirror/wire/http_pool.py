"""Kept connections of the HTTP client, by address.

Laws:
- every change of state is made at once, without waiting; what is to be closed is returned to the caller;
- the connection that was used last is used first: the others grow idle, and are let go.
"""

from dataclasses import dataclass

from p2pmirror.wire.address import Address
from p2pmirror.wire.network import ByteStream


@dataclass(frozen=True, slots=True)
class Kept:
    """An idle connection and the time (seconds, trio's clock) at which it is too old to be used."""

    stream: ByteStream
    deadline: float


class Pool:
    """Idle connections; thinks, and leaves closing to others."""

    def __init__(self, *, idle_s: float, per_address_max: int, total_max: int) -> None:
        self._idle_s = idle_s
        self._per_address_max = per_address_max
        self._total_max = total_max
        self._kept: dict[Address, list[Kept]] = {}  # oldest first, everywhere

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def take(self, address: Address, now: float) -> ByteStream | None:
        """Return the connection to `address` that was used last, None when there is none to be used."""
        kept = self._kept.get(address)
        if not kept or kept[-1].deadline <= now:
            return None
        stream = kept.pop().stream
        if not kept:
            del self._kept[address]
        return stream

    def give(self, address: Address, stream: ByteStream, now: float) -> list[ByteStream]:
        """Keep a connection; return those that are to be closed for it (too many, too old)."""
        kept = self._kept.pop(address, [])
        kept.append(Kept(stream, now + self._idle_s))
        self._kept[address] = kept  # last in the order of use
        surplus = [kept.pop(0).stream] if len(kept) > self._per_address_max else []
        surplus += self.expire(now)
        while len(self) > self._total_max:
            surplus += self._drop_oldest()
        return surplus

    def expire(self, now: float) -> list[ByteStream]:
        """Return the connections that are too old, which are kept no longer."""
        old: list[ByteStream] = []
        for address, kept in tuple(self._kept.items()):
            while kept and kept[0].deadline <= now:
                old.append(kept.pop(0).stream)
            if not kept:
                del self._kept[address]
        return old

    def forget(self, address: Address) -> list[ByteStream]:
        """Return all connections to `address`, which are kept no longer: its host has restarted, or is gone."""
        return [kept.stream for kept in self._kept.pop(address, [])]

    def clear(self) -> list[ByteStream]:
        """Return all connections, which are kept no longer."""
        return [stream for address in tuple(self._kept) for stream in self.forget(address)]

    def _drop_oldest(self) -> list[ByteStream]:
        address, kept = next(iter(self._kept.items()))
        stream = kept.pop(0).stream
        if not kept:
            del self._kept[address]
        return [stream]
