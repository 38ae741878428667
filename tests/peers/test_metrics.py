"""Promises of what this room counts and says."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from p2pmirror.oci import Digest
from p2pmirror.peers.metrics import PeersMetrics
from p2pmirror.wire.identity import NodeId


def test_a_ban_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks why a cluster shares badly finds whom nobody asks any more, for what, and why."""
    registry, digest = CollectorRegistry(), Digest.of(b"one")
    PeersMetrics(registry).banned(NodeId(b"1" * 20), digest, 600.0, "a piece is not what it claims")
    assert registry.get_sample_value("p2pmirror_peers_bans_total") == 1
    (line,) = caplog.messages
    assert line == f"peer {'31' * 20} is not asked for {digest} for 600 s: a piece is not what it claims"
