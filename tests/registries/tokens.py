"""A token server, on trio, whose tokens docker-registry believes; it says whom it was asked by, and for what."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import trio

from p2pmirror.wire.http import Request, Response
from tests.registries.docker import ISSUER, PASSWORD, USER


@dataclass
class TokenServer:
    """Answers `handle`; give it to an `HttpServer`.

    `needs_login`: nobody else is given a token. `delay_s`: before each answer. `status`: each is refused with it.
    `answer`: what stands in the answer, besides or instead of the token. `name`: under which name the token stands.
    """

    certificate: Path
    key: Path
    url: str = ""  # where it is, once it is served
    needs_login: bool = False
    delay_s: float = 0.0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    answer: dict[str, object] = field(default_factory=dict)
    name: str = "token"
    asked: list[dict[str, str]] = field(default_factory=list)  # the query, and `authorization`
    given: list[str] = field(default_factory=list)

    async def handle(self, request: Request) -> Response:
        asked = dict(parse_qsl(request.query)) | {"authorization": request.headers.get("authorization", "")}
        self.asked.append(asked)
        await trio.sleep(self.delay_s)
        if self.status is not None:
            return Response(
                self.status, dict(self.headers), b'{"errors":[{"code":"DENIED","message":"dckr_jti_secret"}]}'
            )
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if asked["authorization"] != wanted and (self.needs_login or asked["authorization"]):
            return Response(401, {}, b"{}")
        token = await trio.to_thread.run_sync(self._token, asked.get("service", ""), asked.get("scope", ""))
        self.given.append(token)
        body = json.dumps({self.name: token, "expires_in": 300} | self.answer).encode()
        return Response(200, {"Content-Type": "application/json"}, body)

    def _token(self, service: str, scope: str) -> str:
        """Return a token for whatever is asked for, as distribution's specification has it (JWT, RS256)."""
        now = int(time.time())
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}] if scope else []
        body = {"iss": ISSUER, "sub": "", "aud": service, "exp": now + 300, "nbf": now - 10, "iat": now}
        pem = self.certificate.read_text().split("-----")[2]
        head = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(pem.split())]}
        signed = ".".join(_encoded(json.dumps(each).encode()) for each in (head, body | {"jti": "1", "access": access}))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        signature = subprocess.run(command, input=signed.encode(), capture_output=True, check=True).stdout
        return f"{signed}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
