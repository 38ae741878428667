"""A peer sends wrong bytes under right headers to a real containerd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import liar
from tests.lab.containerd import Build, PullFailed
from tests.lab.lab import Lab
from tests.lab.liar import Liar
from tests.lab.process import wait_until
from tests.lab.registry import NAME

pytestmark = pytest.mark.lab

LAYER_BYTES = 4 << 20


@pytest.fixture(scope="module")
def pair(build: Build) -> Iterator[Lab]:
    """Give a cluster of two, of which the first one's address is left to a liar."""
    with Lab(2, build) as lab:
        lying = lab.nodes[0]
        lying.agent.settings |= liar.settings(lying.host)
        lab.start()
        yield lab


def test_containerd_keeps_nothing_wrong_and_can_pull_again(pair: Lab) -> None:
    """With only a liar the pull fails; as soon as the registry is back the next one succeeds, every byte right."""
    lying, puller = pair.nodes
    image = pair.image([LAYER_BYTES])
    pair.registry.push(image)
    lying.containerd.import_tar(image.tar(pair.directory / "wrong.tar", NAME))
    wait_until(lambda: all(puller.agent.find(key) for key in (*image.here, image.name(NAME))), "known", timeout_s=10)
    pair.registry.stop()
    with Liar(lying.host, liar.changes_a_byte) as peer:
        with pytest.raises(PullFailed):
            puller.containerd.pull(image.name(NAME))
        assert not puller.containerd.verified(image)
        pair.registry.start()

        puller.containerd.pull(image.name(NAME))

    assert puller.containerd.verified(image)
    assert peer.asked[image.layers[0]] == 1
