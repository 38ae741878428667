"""Nodes whose clock is wrong, that come back at another address, or at somebody else's."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.lab.crew import Crew, Mate
from tests.lab.process import wait_until
from tests.store.images import Image

pytestmark = pytest.mark.lab

MIB = 1024 * 1024
GONE_S = 10.0  # after its death nobody is handed out for longer


def test_a_clock_that_is_an_hour_off(lab_run: object, tmp_path: Path) -> None:
    """An hour ahead or behind, with a cluster key: a node is a member like any other, asks and is asked."""
    key = tmp_path / "key"
    key.write_text("a key for this test alone\n")
    with Crew(3, peer_key_file=str(key)) as crew:
        right, ahead, behind = crew.mates
        for mate, offset in ((ahead, "+1h"), (behind, "-1h")):
            mate.agent.run_by = ["env", "DONT_FAKE_MONOTONIC=1", "faketime", "-f", offset]
        images = [crew.image(MIB) for _ in crew.mates]
        for mate, image in zip(crew.mates, images, strict=True):
            mate.put(image)
        crew.start()
        assert [_hour(mate) - _hour(right) for mate in (ahead, behind)] == [1, -1], "the clocks are off"
        for mate in crew.mates:
            for holder, image in zip(crew.mates, images, strict=True):
                _pulls(mate, image, holder)


def test_a_node_comes_back_elsewhere_and_another_takes_its_address(lab_run: object) -> None:
    """With its id at another address it is itself there; who has its old address is asked for nothing of it."""
    with Crew(4) as crew:
        asking, _, _, moving = crew.mates
        image, other = crew.image(MIB), crew.image(MIB)
        moving.put(image)
        crew.start()
        _pulls(asking, image, moving)
        node_id = moving.agent.status()["node_id"]
        moving.agent.kill()
        moving.host.move(40)
        heir = Mate(crew.network.add("heir", 4), [mate.host for mate in crew.mates[:3]])
        heir.put(other)
        moving.agent.start()
        heir.agent.start()
        assert moving.agent.status()["node_id"] == node_id
        addresses = {moving.host.address}
        wait_until(lambda: asking.agent.find(str(image.layers[0])) == addresses, "it is found there", timeout_s=GONE_S)
        _pulls(asking, image, moving)
        _pulls(asking, other, heir)
        _pulls(heir, image, moving)


def _pulls(mate: Mate, image: Image, *holders: Mate) -> None:
    """Let a node pull a layer, with a client that would see each wrong byte."""
    (layer,) = image.layers
    mate.wait_known(layer, *holders, alone=False)  # whoever pulled it before has it for a while
    got = mate.get(layer)
    assert (got.status, got.body == image.content[layer][0]) == (200, True)


def _hour(mate: Mate) -> float:
    """Return the hour of an agent's own clock, which its answers tell."""
    return round(parsedate_to_datetime(mate.agent.get("/livez").headers["Date"]).timestamp() / 3600)
