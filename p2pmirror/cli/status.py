"""`p2pmirror status`: what an agent holds, whom it knows and what it is doing."""

import json
from collections import Counter
from typing import Any, Final

import click

from p2pmirror.cli.asking import agent_option, ask, json_option, plain
from p2pmirror.cli.text import counted, duration, share, short_digest, size, table

MEMBERS_LISTED_MAX: Final = 50  # a list that is still looked through, in a terminal with some scrolling
MEMBERS_SHOWN: Final = 20  # of more members than that: a screen, below the summary
REGISTRIES_LISTED_MAX: Final = 20  # of those that were asked; a cluster's images come from a handful
ZONES_SHOWN: Final = 20  # a zone is what a node says; a cluster has a handful
_STATES: Final = ("alive", "suspect", "gone")
_EXAMPLE: Final = """\b
Example:
  p2pmirror status
  p2pmirror status --all
  p2pmirror status --agent http://10.0.0.7:9090 --json
"""


@click.command(epilog=_EXAMPLE)
@click.option("--all", "every", is_flag=True, help=f"List all members, not only the first {MEMBERS_SHOWN} of many.")
@agent_option
@json_option
def command(agent: str, *, every: bool, as_json: bool) -> None:
    """Show what an agent holds, knows and does.

    An agent that is not ready yet says why; that is an answer, so the exit code is 0.
    """
    answer = ask(agent, "/api/v1/status")
    click.echo(json.dumps(answer) if as_json else "\n".join(describe(answer, every=every)))


def describe(status: dict[str, Any], *, every: bool = False) -> list[str]:
    """Return the lines that people read; with `every` all members, however many."""
    held = status["held"]
    lines = [
        f"node       {plain(status['node_id'])}, p2pmirror {plain(status['version'])}",
        f"ready      {'yes' if status['ready'] else 'no: ' + plain('; '.join(status['reasons']))}",
        f"held       {_held(held)}",
    ]
    if cache := status.get("cache"):
        lines.append(f"cache      {_cache(cache)}")
        lines += (
            [f"           in trouble, it keeps nothing new: {plain(cache['trouble'])}"] if cache.get("trouble") else []
        )
    lines.append(f"hit ratio  {_hit_ratio(status.get('hit_ratio'))}")
    if saved := status.get("saved_bytes"):
        lines.append(f"saved      {size(saved)} sent to clients here that no registry had to send")
    if crossed := status.get("cross_zone_bytes"):
        lines.append(f"zones      {size(crossed)} came from peers of other zones")
    if (records := status.get("records")) is not None:
        lines.append(f"records    {counted(records, 'record')} of who has what, kept here for all nodes")
    members = status["members"]
    return [
        *lines,
        *_registries(status.get("registries", [])),
        *_members(members, status["node_id"], every=every),
        *_transfers(status["transfers"], members),
    ]


def _held(held: dict[str, Any]) -> str:
    if not held["blobs"]:
        return "nothing"
    return f"{counted(held['blobs'], 'blob')}, {counted(held['tags'], 'tag')}, {size(held['bytes'])}"


def _hit_ratio(ratio: float | None) -> str:
    if ratio is None:
        return "no request for an image yet"
    if not ratio:
        return "0%: no peer had what was asked for, nor did this node"
    return f"{share(ratio)} of the requests for images were answered from here or from a peer"


def _cache(cache: dict[str, Any]) -> str:
    if not cache.get("max_bytes"):
        return "none"
    text = f"{size(cache['bytes'])} of {size(cache['max_bytes'])}, {size(cache['free_bytes'])} free on the disk"
    if "hits" in cache:
        text += f"; answered {counted(cache['hits'], 'request')}, not {counted(cache['misses'], 'other')}"
    return text


def _registries(registries: list[dict[str, Any]]) -> list[str]:
    """List the registries that were asked; the others are only counted."""
    asked = [each for each in registries if each["asked"]]
    unasked = sum(1 for each in registries if not each["asked"] and each["mode"] == "through")
    more = f"{unasked} more: not asked yet" if unasked else ""
    if not asked:
        return []
    rows = [
        (
            each["name"],
            "reachable" if each["reachable"] else "unreachable",
            duration(each["rests_s"]) if each["rests_s"] else "-",
            "-" if each["quota_left"] is None else each["quota_left"],
        )
        for each in asked[:REGISTRIES_LISTED_MAX]
    ]
    return ["", *table(("REGISTRY", "STATE", "NOT ASKED FOR", "PULLS LEFT"), rows), *([more] if more else [])]


def _members(members: list[dict[str, Any]], own: str, *, every: bool) -> list[str]:
    listed = members if every or len(members) <= MEMBERS_LISTED_MAX else members[:MEMBERS_SHOWN]
    rows = [
        (
            each["node_id"][:12],
            each["address"],
            each["zone"] or "-",
            each["state"],
            "this node" if each["node_id"] == own else f"{duration(each['last_seen_s'])} ago",
        )
        for each in listed
    ]
    lines = ["", f"{counted(len(members), 'member')}: {_states(members)}"]
    if len(listed) < len(members):
        lines += [*_zones(members), "", f"the first {len(listed)} of {len(members)}; --all lists every one"]
    return [*lines, *table(("NODE", "ADDRESS", "ZONE", "STATE", "LAST SEEN"), rows)]


def _states(members: list[dict[str, Any]]) -> str:
    counts = Counter(each["state"] for each in members)
    states = [*(state for state in _STATES if counts[state]), *sorted(counts.keys() - set(_STATES))]
    return ", ".join(f"{counts[state]} {plain(state)}" for state in states)


def _zones(members: list[dict[str, Any]]) -> list[str]:
    """Count the members by zone and state, the largest zones first."""
    zones: dict[str, Counter[str]] = {}
    for each in members:
        zones.setdefault(each["zone"] or "-", Counter())[each["state"]] += 1
    largest = sorted(zones.items(), key=lambda zone: (-zone[1].total(), zone[0]))
    rows = [(zone, *(counts[state] for state in _STATES), counts.total()) for zone, counts in largest[:ZONES_SHOWN]]
    more = [f"and {len(largest) - ZONES_SHOWN} more zones"] if len(largest) > ZONES_SHOWN else []
    return [*table(("ZONE", *(state.upper() for state in _STATES), "ALL"), rows), *more]


def _transfers(transfers: list[dict[str, Any]], members: list[dict[str, Any]]) -> list[str]:
    if not transfers:
        return ["", "no running transfers"]
    addresses = {each["node_id"]: each["address"] for each in members}
    head = ("DIGEST", "NAME", "DONE", "SENT", "RATE", "FROM", "RESUMES", "FOR")
    rows = [row for each in transfers for row in _transfer(each, addresses)]
    return ["", counted(len(transfers), "running transfer"), *table(head, rows)]


def _transfer(transfer: dict[str, Any], addresses: dict[str, str]) -> list[tuple[Any, ...]]:
    """Return the row of a transfer, and below it one for each of its sources where there are several."""

    def name(source: dict[str, Any]) -> str:
        return source.get("registry") or addresses.get(source["peer"]) or (source["peer"] or "-")[:12]

    sources, rate = transfer.get("sources", []), transfer.get("rate")
    first = (
        short_digest(transfer["digest"]),
        transfer["name"],
        share(transfer["sent_bytes"] / transfer["size"] if transfer["size"] else 1),
        f"{size(transfer['sent_bytes'])} of {size(transfer['size'])}",
        "-" if rate is None else f"{size(rate)}/s",
        counted(len(sources), "source") if len(sources) > 1 else name(transfer),
        transfer["resumes"],
        duration(transfer["seconds"]),
    )
    if len(sources) <= 1:
        return [first]
    return [first, *(("", "", "", size(each["bytes"]), "", name(each), "", "") for each in sources)]
