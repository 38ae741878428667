"""Whose certificates a registry's servers may show.

Laws: the system's authorities are trusted and, besides them, those of the registry's own file; names are always
checked; files are read in a thread, when the first connection needs them, and again after a failure.
"""

import ssl
from collections.abc import Iterable
from pathlib import Path

import certifi
import trio

from p2pmirror.errors import Unreachable


class Alpn(ssl.SSLContext):
    """Takes the place of a context where httpcore wants one: keeps which protocols it would offer, and nothing else."""

    protocols: tuple[str, ...] = ("http/1.1",)

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Keep them."""
        self.protocols = tuple(alpn_protocols)

    @classmethod
    def fresh(cls) -> "Alpn":
        """Return one."""
        return cls(ssl.PROTOCOL_TLS_CLIENT)


class Trust:
    """The contexts of one registry, made when they are first needed."""

    def __init__(self, ca_file: Path | None) -> None:
        """Read nothing yet."""
        self._ca_file = ca_file
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}

    async def context(self, protocols: tuple[str, ...]) -> ssl.SSLContext:
        """Return the context that offers these protocols. Raises `Unreachable` when a file cannot be used."""
        context = self._contexts.get(protocols)
        if context is None:
            try:
                context = await trio.to_thread.run_sync(_context, self._ca_file)
            except OSError as error:  # ssl.SSLError is one
                raise Unreachable(f"ca_file {self._ca_file} cannot be used: {error}") from None
            context.set_alpn_protocols(protocols)
            self._contexts[protocols] = context
        return context


def _context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not _has_directory():
        context.load_verify_locations(certifi.where())  # an image without a system's certificates
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def _has_directory() -> bool:
    """Say whether there is a directory from which OpenSSL takes authorities one by one, as it needs them."""
    directory = Path(ssl.get_default_verify_paths().openssl_capath)
    return directory.is_dir() and any(directory.iterdir())
