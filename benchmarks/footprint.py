"""What an agent takes from its node when little or nothing is asked of it: memory, time, packets, and how it starts."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any

from benchmarks.content import write_images
from benchmarks.load import Job
from benchmarks.places import Place
from benchmarks.processes import cpu_s, rss_mib
from benchmarks.rows import Budget, Row
from benchmarks.stage import Stage, start_agents
from tests.lab.agent import REGISTRY_PORT, Agent
from tests.lab.network import Host
from tests.lab.process import wait_until

HOLD_S = 25.0  # a server may cut clients that take nothing for 30 s
LAYERS = 48  # an image of the start row: with its config and manifest 50 blobs
LAYER_BYTES = 4096
POLL_S = 0.005


def memory(stage: Stage) -> list[Row]:
    """Resident memory of agents that have just started, and with many responses that nobody takes."""
    shared = stage.content.big.layers[1]
    target = stage.content.big.target(shared)
    count = stage.scale.open_responses
    with Place() as place:
        far, near = place.host("far"), place.host("near")
        layout = f"oci-layout:{stage.content.directory}"
        agents = [place.agent(far, [far, near], store=layout), place.agent(near, [far, near], store="none")]
        holder, relay = start_agents(agents)
        time.sleep(stage.scale.settle_s)
        idle = {"holds": rss_mib(holder.pid), "holds nothing": rss_mib(relay.pid)}
        open_local, held_local = _rss_with_open(
            place, near, Job(far.address, REGISTRY_PORT, [target]), count, holder.pid
        )
        open_peer, held_peer = _rss_with_open(place, near, Job(near.address, REGISTRY_PORT, [target]), count, relay.pid)
    note = f"RSS {stage.scale.settle_s:g} s after it was ready and had hashed {_size(stage)}"
    mib = stage.scale.shared_mib
    return [
        Row("memory, idle", "MiB", idle["holds"], budget=Budget("<=", 60), note=note),
        Row("memory, idle, an empty store", "MiB", idle["holds nothing"], budget=Budget("<=", 60)),
        Row(
            f"memory, {count} open responses, held",
            "MiB",
            open_local,
            budget=Budget("<=", 128),
            note=f"{held_local} of a blob of {mib} MiB and take nothing",
        ),
        Row(
            f"memory, {count} open responses, relayed",
            "MiB",
            open_peer,
            budget=Budget("<=", 128),
            note=f"{held_peer} of the same blob, which comes from a peer, and take nothing",
        ),
    ]


def idle(stage: Stage) -> list[Row]:
    """Time and packets of agents that hold a little and are asked nothing."""
    count, seconds = stage.scale.idle_agents, stage.scale.idle_s
    with Place() as place:
        write_images(place.directory / "content", [[LAYER_BYTES] * 20])
        hosts = [place.host(f"n{number}") for number in range(1, count + 1)]
        layout = f"oci-layout:{place.directory / 'content'}"
        agents = [place.agent(host, hosts, store=layout) for host in hosts]
        pids = [process.pid for process in start_agents(agents)]
        time.sleep(stage.scale.settle_s)
        cpu, packets, began = sum(map(cpu_s, pids)), _packets(place, agents), time.perf_counter()
        time.sleep(seconds)
        elapsed = time.perf_counter() - began
        cpu_percent = (sum(map(cpu_s, pids)) - cpu) / elapsed / count * 100
        packets_per_s = (_packets(place, agents) - packets) / elapsed / count
    how = "of the interface" if place.network is not None else "as the agents count them"
    return [
        Row(
            f"idle, CPU, {count} agents",
            "%",
            cpu_percent,
            note=f"mean over {seconds:g} s",
        ),
        Row(
            f"idle, packets, {count} agents",
            "1/s",
            packets_per_s,
            note=f"in and out, {how}",
        ),
    ]


def start(stage: Stage) -> list[Row]:
    """From the start of the process to ready, with many blobs in the store."""
    with Place() as place:
        images = stage.scale.start_blobs // (LAYERS + 2)
        directory = place.directory / "content"
        write_images(directory, [[LAYER_BYTES] * LAYERS] * images)
        host = place.host("node")
        agent = place.agent(host, [host], store=f"oci-layout:{directory}")
        ready: list[float] = []
        for number in range(stage.scale.starts + 1):
            began = time.perf_counter()
            agent.launch()
            wait_until(lambda: agent.readiness() == "", "the agent is ready", every_s=POLL_S)
            assert agent.running, "something else answers at the agent's address"
            if number:  # the first start compiles the code
                ready.append(time.perf_counter() - began)
            held = agent.status()["held"]["blobs"]
            agent.kill()
    spread = f"{min(ready):.2f} to {max(ready):.2f} s in {len(ready)} starts, {held} blobs held when ready"
    note = (
        f"an oci-layout with {images * (LAYERS + 2)} blobs of {LAYER_BYTES} bytes, each hashed before ready; {spread}"
    )
    return [Row("start, to ready", "s", median(ready), budget=Budget("<=", 1), note=note)]


def _rss_with_open(place: Place, client: Host, job: Job, count: int, pid: int) -> tuple[float, str]:
    """Return the memory of `pid` while `count` clients have asked and take nothing, and what they got."""
    job.connections, job.hold = count, True
    holders = client.start(f"holders-{job.host}", place.load_command(job))
    try:
        wait_until(lambda: '"held"' in holders.tail() or not holders.running, "first bytes", timeout_s=HOLD_S)
        held: dict[str, Any] = json.loads(holders.tail())
        others = ", ".join(f"{number} got {status}" for status, number in held["others"].items())
        return rss_mib(pid), f"{held['held']} clients have the first byte{f' ({others})' if others else ''}"
    finally:
        holders.kill()


def _packets(place: Place, agents: list[Agent]) -> float:
    if place.network is None:
        return sum(agent.metric("routing_datagrams_total") for agent in agents)
    return sum(place.packets(agent.host) or 0 for agent in agents)


def _size(stage: Stage) -> str:
    size = sum(path.stat().st_size for path in (stage.content.directory / "blobs" / "sha256").iterdir())
    return f"{size / (1 << 20):,.0f} MiB"
