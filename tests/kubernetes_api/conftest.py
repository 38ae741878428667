"""What the tests of the API's clients share: certificates, made once."""

from __future__ import annotations

import pytest

from tests.kubernetes_api.certificates import Certificate, make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Make the certificate of an API."""
    return make_certificate(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Make the certificate of somebody who pretends to be the API."""
    return make_certificate(tmp_path_factory.mktemp("stranger"))
