"""A peer that says that it has a layer, and then drips, stops, or sends something else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import liar
from tests.lab.crew import Crew, Mate
from tests.lab.liar import Liar, Lie
from tests.store.images import Image

pytestmark = pytest.mark.lab

MIB = 1024 * 1024
LAYER_BYTES = 4 * MIB
TRIES = 5  # a liar that is slower than 50 ms, on a busy machine, is overtaken by the honest one
ON_TIME_S = 6.0  # a second to notice, two to be sure that it is slow, and what a busy machine adds

IS_CUT = [liar.has_too_few, liar.has_too_many, liar.changes_a_byte]
GOES_ON = [liar.sends_on, liar.has_a_page, liar.drips, liar.stalls, liar.closes_early]
BREAKS = [liar.drips, liar.stalls, liar.closes_early]  # upon which a peer is asked last for 5 s: each has its own liar


@pytest.fixture(scope="module")
def crew(lab_run: object) -> Iterator[Crew]:
    """Give one that asks, an honest one, and three whose addresses liars will take, in the asker's zone."""
    with Crew(2 + len(BREAKS)) as crew:
        asking, honest, *lying = crew.mates
        for mate in (asking, *lying):
            mate.agent.settings["zone"] = "a"
        honest.agent.settings["zone"] = "b"
        for mate in lying:
            mate.agent.settings |= liar.settings(mate.host)
        yield crew.start()


@pytest.mark.parametrize("lie", IS_CUT, ids=lambda lie: lie.__name__)
def test_wrong_content_never_ends_cleanly(crew: Crew, lie: Lie) -> None:
    """What only the digest can tell is cut with a FIN; the liar is not asked for it again, the next answer is right."""
    asking, honest, lying, *_ = crew.mates
    image = crew.image(LAYER_BYTES)
    (layer,) = image.layers
    hold(asking, image, lying)
    with Liar(lying.host, lie) as peer:
        got = asking.get(layer)
        assert (got.status, got.is_cut) == (200, True)
        assert got.seconds < ON_TIME_S
        honest.put(image)
        asking.wait_known(layer, lying, honest)
        for _ in range(3):
            again = asking.get(layer)
            assert (again.status, again.body == image.content[layer][0]) == (200, True)
    assert peer.asked[str(layer)] == 1


@pytest.mark.parametrize("lie", GOES_ON, ids=lambda lie: lie.__name__)
def test_the_same_response_goes_on_from_an_honest_peer(crew: Crew, lie: Lie) -> None:
    """The layer comes whole and exact, in one response, within seconds."""
    asking, honest, *liars = crew.mates
    lying = liars[BREAKS.index(lie) if lie in BREAKS else 0]
    for _ in range(TRIES):
        image = crew.image(LAYER_BYTES)
        (layer,) = image.layers
        hold(asking, image, lying, honest)
        with Liar(lying.host, lie) as peer:
            got = asking.get(layer)
        assert (got.status, got.is_cut, got.body == image.content[layer][0]) == (200, False, True)
        assert got.seconds < ON_TIME_S
        if peer.asked[str(layer)]:
            return
    pytest.fail("the liar was never asked first")


@pytest.mark.parametrize("lie", [*GOES_ON, *IS_CUT], ids=lambda lie: lie.__name__)
@pytest.mark.long
def test_a_lone_liar_is_found_out(crew: Crew, lie: Lie) -> None:
    """With nobody else the answer is cut or a miss, soon, unless the content was right after all."""
    asking, _, lying, *_ = crew.mates
    image = crew.image(LAYER_BYTES)
    (layer,) = image.layers
    hold(asking, image, lying)
    with Liar(lying.host, lie):
        got = asking.get(layer)
    if lie is liar.sends_on:
        assert got.body == image.content[layer][0]
    elif lie is liar.has_a_page:
        assert got.status == 404
    else:
        assert (got.status, got.is_cut) == (200, True)
    assert got.seconds < 15


def hold(asking: Mate, image: Image, *holders: Mate) -> None:
    """Give an image to these, and wait until the asking one knows."""
    for holder in holders:
        holder.put(image)
    asking.wait_known(image.layers[0], *holders)
