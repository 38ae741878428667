"""Where the API is and as whom it is asked: what the kubelet gives a pod in its environment and in a mounted directory.

Laws:
- the token is read for each question and the authorities for each connection: the kubelet exchanges both while a pod
  runs (a token after some 50 minutes), and whoever keeps them is refused one day;
- only the authorities in the mounted file are trusted, not the system's;
- a token is never shown.

Follows Kubernetes' "Accessing the API from a Pod", section "Without using a proxy".
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from p2pmirror.errors import MirrorError, NotHere, Unreachable
from p2pmirror.store.files import Files
from p2pmirror.wire.address import PORT_DIGITS_MAX, PORT_MAX

DIRECTORY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST_VARIABLE: Final = "KUBERNETES_SERVICE_HOST"
PORT_VARIABLE: Final = "KUBERNETES_SERVICE_PORT"
TOKEN_BYTES_MAX: Final = 16 << 10  # real ones have 1 to 2 KiB; a request's head may have 32 KiB
AUTHORITIES_BYTES_MAX: Final = 1 << 20  # a bundle of two hundred certificates has 400 KiB
QUOTED_CHARACTERS_MAX: Final = 80  # of what stands in the environment in place of a host


class NoAccess(MirrorError):
    """This process has not what a pod is given to ask the API with; says what is missing, and who gives it."""


@dataclass(frozen=True, slots=True)
class Access:
    """`host` and `port` as they stand in the environment, `directory` with `token` and `ca.crt`."""

    host: str = ""
    port: str = ""
    directory: Path = DIRECTORY

    @classmethod
    def of(cls, environ: Mapping[str, str], directory: Path = DIRECTORY) -> Self:
        """Take from an environment what it says of the API; that may be nothing."""
        return cls(environ.get(HOST_VARIABLE, ""), environ.get(PORT_VARIABLE, ""), directory)

    def place(self) -> tuple[str, int]:
        """Return the API's host, a name or numeric without brackets, and its port. Raises `NoAccess`."""
        host, port = self.host.removeprefix("[").removesuffix("]"), self.port
        if not host or not port:
            raise NoAccess(f"{HOST_VARIABLE} and {PORT_VARIABLE} are not set, as they are in every pod of a cluster")
        if not (port.isascii() and port.isdigit() and len(port) <= PORT_DIGITS_MAX and 0 < int(port) <= PORT_MAX):
            raise NoAccess(f"{PORT_VARIABLE} is {_quoted(port)}, which is no port")
        if not (host.isascii() and host.isprintable()) or any(each in " /@?#" for each in host):
            raise NoAccess(f"{HOST_VARIABLE} is {_quoted(host)}, which is no host")
        return host, int(port)

    async def token(self, files: Files) -> str:
        """Return the token as it is now. Raises `NoAccess`."""
        path = self.directory / "token"
        token = await _text(files, path, TOKEN_BYTES_MAX)
        if not token or not token.isprintable() or " " in token:
            raise NoAccess(f"{path} holds no token")
        return token

    async def context(self, files: Files) -> ssl.SSLContext:
        """Return a TLS context that trusts the authorities as they are now. Raises `NoAccess`."""
        path = self.directory / "ca.crt"
        authorities = await _text(files, path, AUTHORITIES_BYTES_MAX)
        # Not `create_default_context`: from Python 3.13 on it is strict, and refuses authorities that clusters have.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_verify_locations(cadata=authorities)
        except (ssl.SSLError, ValueError):
            raise NoAccess(f"{path} holds no certificates") from None
        return context


async def _text(files: Files, path: Path, bytes_max: int) -> str:
    try:
        return (await files.read_whole(path, bytes_max)).decode("ascii").strip()
    except NotHere:
        raise NoAccess(f"{path} is not there: the pod has no service account mounted") from None
    except Unreachable as error:
        raise NoAccess(f"{path} cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise NoAccess(f"{path} is no text") from None


def _quoted(text: str) -> str:
    return ascii(text[:QUOTED_CHARACTERS_MAX])
