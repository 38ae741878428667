"""Half of a cluster dies at once, parts of it lose sight of each other, all of it restarts: no pull fails."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

import pytest

from p2pmirror.oci import Digest
from tests.lab.crew import Crew, Mate
from tests.lab.process import wait_until
from tests.store.images import Image

pytestmark = pytest.mark.lab

KIB, MIB = 1024, 1024 * 1024
PULLERS = 3
PARTITION_S = 30.0
HEAL_S = 30.0  # a member that is gone is knocked at every 10 s
PULL_S = 15.0


def test_half_of_ten_agents_are_killed_at_once(lab_run: object) -> None:
    """Pulls under way go on and pulls that begin right then succeed, from whoever is left."""
    with Crew(10) as crew:
        image = crew.image(*[MIB] * 6)
        dead, alive = crew.mates[:5], crew.mates[5:]
        holders = [*dead[1:4], *alive[:2]]
        for holder in holders:
            holder.put(image)
        crew.start()
        for mate in alive:
            for layer in image.layers:
                mate.wait_known(layer, *holders)
        with pulling(image, alive[2:]) as pulls:
            time.sleep(1)
            for mate in dead:
                mate.agent.kill()
            time.sleep(4)
        assert set(pulls.outcomes) == {"right"}
        assert pulls.outcomes["right"] > len(image.layers)


@pytest.mark.parametrize("count", [3, pytest.param(10, marks=pytest.mark.long)])
def test_all_agents_restart_one_after_another(count: int, lab_run: object) -> None:
    """As in a rolling update: a pull gets every byte, or finds the port closed, as containerd may; it is never cut."""
    with Crew(count) as crew:
        image = crew.image(*[MIB] * 4)
        for holder in crew.mates[:2]:
            holder.put(image)
        crew.start()
        for mate in crew.mates:
            for layer in image.layers:
                mate.wait_known(layer, *crew.mates[:2])
        with pulling(image, crew.mates) as pulls:
            for mate in crew.mates:
                assert mate.agent.stop() == 0
                mate.agent.start()
        assert set(pulls.outcomes) <= {"right", "closed", "elsewhere"}
        assert pulls.outcomes["right"] > pulls.outcomes["elsewhere"]
        for mate in crew.mates:
            for layer in image.layers:
                mate.wait_known(layer, *crew.mates[:2], alone=False)


@pytest.mark.long
def test_a_partition_and_its_healing(lab_run: object) -> None:
    """For 30 s each half serves what it has and says 404 to the rest, quickly; then everything is found everywhere."""
    with Crew(6) as crew:
        both, right_only = crew.image(MIB, MIB), crew.image(MIB, MIB)
        left, right = crew.mates[:3], crew.mates[3:]
        for holder in (left[0], right[0]):
            holder.put(both)
        right[0].put(right_only)
        crew.start()
        for mate in crew.mates:
            mate.wait_known(both.layers[0], left[0], right[0])
            mate.wait_known(right_only.layers[0], right[0])
        with pulling(both, [left[1], right[1]]) as pulls:
            crew.network.part([mate.host for mate in left])
            time.sleep(PARTITION_S)
        assert pulls.outcomes["cut"] == pulls.outcomes["wrong"] == 0
        assert pulls.outcomes["right"] > pulls.outcomes["elsewhere"]
        missing = left[1].get(right_only.layers[0])
        assert (missing.status, missing.seconds < 1.5) == (404, True)
        crew.network.heal()
        healed = [mate.agent.find(str(right_only.layers[0])) for mate in left]

        def found() -> bool:
            healed[:] = [mate.agent.find(str(right_only.layers[0])) for mate in left]
            return healed == [{right[0].host.address}] * 3

        wait_until(found, "the other half's content is found again", timeout_s=HEAL_S)
        assert left[1].get(right_only.layers[0]).body == right_only.content[right_only.layers[0]][0]


class Pulls:
    """Pulls layers, one after another, on nodes drawn by chance, and counts how they ended."""

    def __init__(self, image: Image, mates: Sequence[Mate]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.ending = threading.Event()
        self._image = image
        self._mates = mates

    def run(self, seed: int) -> None:
        chance = Random(seed)
        while not self.ending.is_set():
            self.outcomes[self._pull(chance.choice(self._mates), chance.choice(self._image.layers))] += 1
            time.sleep(0.02)  # a closed port is tried again, but not all the time

    def _pull(self, mate: Mate, layer: Digest) -> str:
        """Pull as containerd does: it goes to the registry when the port is closed, or when the agent says 404."""
        try:
            got = mate.get(layer)
        except (OSError, http.client.HTTPException) as error:
            return "closed" if isinstance(error, ConnectionError | http.client.RemoteDisconnected) else str(error)
        if got.status == 404:
            return "elsewhere"
        if got.status != 200 or got.seconds > PULL_S:
            return f"{got.status} after {got.seconds:.0f} s"
        if got.is_cut:
            return "cut"
        return "right" if got.body == self._image.content[layer][0] else "wrong"


@contextmanager
def pulling(image: Image, mates: Sequence[Mate]) -> Iterator[Pulls]:
    """Pull layers of an image on these nodes, some at a time, while the block runs."""
    pulls = Pulls(image, mates)
    threads = [threading.Thread(target=pulls.run, args=(seed,)) for seed in range(PULLERS)]
    for thread in threads:
        thread.start()
    try:
        yield pulls
    finally:
        pulls.ending.set()
        for thread in threads:
            thread.join()
