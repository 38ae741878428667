"""Certificates of an API's servers, made by openssl: each is its own authority."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.groups import leave_out

NAMES = "IP:127.0.0.1,IP:::1,IP:10.96.0.1,IP:10.96.0.2,IP:fd00::1,DNS:api.example"


@dataclass(frozen=True)
class Certificate:
    """What a server shows, and what a client that believes it has in its `ca.crt`."""

    pem: bytes
    serving: ssl.SSLContext


def make_certificate(directory: Path, names: str = NAMES) -> Certificate:
    if shutil.which("openssl") is None:
        leave_out("kubernetes-api", "needs openssl")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"),
        *("-subj", "/CN=kubernetes", "-addext", f"subjectAltName={names}", "-keyout", str(key)),
        *("-out", str(certificate)),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    return Certificate(certificate.read_bytes(), serving)
